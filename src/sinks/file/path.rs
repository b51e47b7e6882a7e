//! The path of a stream's file: `<dir>/<namespace>/<pod>_<uid>/<container>/<restart>-<container id, 12>.jsonl`.
//!
//! Names come from the cluster, so each is turned into a single harmless path component: no path leaves the directory.
//! The container id is in the name because only it is unique: the restart count starts again when the kubelet loses its
//! state.

use std::path::{Path, PathBuf};

use crate::domain::Origin;

/// File systems take components of 255 bytes. 180 for the pod's name leave room for `_`, a UID of 36 and
/// the suffix of a rotated file. A longer name is cut, and the UID distinguishes such pods.
const LONGEST: usize = 180;

/// The file of a stream.
pub(super) fn of(dir: &Path, origin: &Origin) -> PathBuf {
    let stream = &origin.stream;
    let mut pod = component(&origin.pod);
    pod.push('_');
    pod.push_str(&component(stream.uid.as_str()).chars().take(64).collect::<String>());
    let mut name = format!("{}-{}", origin.restart_count, component(stream.container_id.short()));
    name.push_str(".jsonl");
    dir.join(component(&origin.namespace))
        .join(pod)
        .join(component(&stream.container))
        .join(name)
}

/// Letters, digits, `-`, `_` and inner dots stay; every other byte becomes `%` and two hexadecimal digits.
fn component(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            let hex = |digit: u8| {
                char::from_digit(u32::from(digit), 16)
                    .unwrap_or('0')
                    .to_ascii_uppercase()
            };
            out.push(hex(byte >> 4));
            out.push(hex(byte & 15));
        }
        if out.len() >= LONGEST {
            break;
        }
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixtures::origin;

    #[test]
    fn each_stream_has_its_own_file() {
        let path = of(Path::new("/logs"), &origin("7e2a", "app"));
        assert_eq!(path, Path::new("/logs/shop/cart-0_7e2a/app/2-0123456789ab.jsonl"));
    }

    #[test]
    fn no_name_leaves_the_directory() {
        let names = [
            "..",
            ".",
            "",
            "/",
            "../../etc/passwd",
            "a/b",
            "a\0b",
            "%2e%2e",
            ".hidden",
            "ä",
            &"x".repeat(300),
        ];
        for name in names {
            let mut evil = (*origin(name, name)).clone();
            (evil.namespace, evil.pod) = (name.into(), name.into());
            evil.stream.container_id = name.into();
            let path = of(Path::new("/logs"), &evil);
            let parts: Vec<_> = path.components().collect();
            assert_eq!(parts.len(), 2 + 4, "{path:?}");
            assert!(path.starts_with("/logs"));
            for part in &parts[2..] {
                let part = part.as_os_str().to_str().unwrap();
                assert!(
                    !part.starts_with('.') && !part.contains('\0') && part.len() <= 250,
                    "{path:?}"
                );
            }
        }
    }
}
