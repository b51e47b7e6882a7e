//! Names that become part of keys: which are valid, and the identity of a replica.
//!
//! It reads the name of the pod or the host, and nothing else.

use crate::domain::ReplicaId;
use crate::exit::Failure;

/// Names up to this length fit their columns with a suffix of nine characters.
const LONGEST_NAME: usize = 63;

/// Whether a name may contain this character.
pub(super) fn is_valid_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Checks a name that becomes part of keys and columns.
pub(super) fn check(flag: &str, name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_valid_char) {
        return Err(
            Failure::usage(format!("--{flag} {name:?} is not a valid name")).with_remedy(format!(
                "use 1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores"
            )),
        );
    }
    Ok(())
}

/// An identity that is unique per process start: a readable name and 32 random bits. Two replicas of the same name have
/// the same identity with a probability of 1 in 2^32.
pub(super) fn replica_id(name: Option<&str>) -> Result<ReplicaId, Failure> {
    let host = || {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = variable("POD_NAME").or_else(|| variable("HOSTNAME")).or_else(kernel);
        let valid: String = name
            .unwrap_or_default()
            .trim()
            .chars()
            .filter(|c| is_valid_char(*c))
            .take(63)
            .collect();
        if valid.is_empty() { "podlog".to_owned() } else { valid }
    };
    let name = name.map_or_else(host, str::to_owned);
    check("replica-id", &name)?;
    Ok(format!("{name}#{:08x}", fastrand::u32(..)).into())
}
