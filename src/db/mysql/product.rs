//! What the version of a `MySQL` or `MariaDB` server says: which product it is, and whether podlog can use it.
//!
//! The same for claims and records. Nothing here asks a server.

/// Whether the server is a `MariaDB`.
#[must_use]
pub fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

/// The product and its version, such as `MySQL 8.4.3`.
#[must_use]
pub fn product(version: &str) -> String {
    format!("{} {version}", kind(version).0)
}

/// What podlog needs instead, when the server is too old for it.
#[must_use]
pub fn too_old(version: &str) -> Option<String> {
    let (kind, oldest) = kind(version);
    let remedy = || format!("podlog needs {kind} {}.{} or newer", oldest.0, oldest.1);
    (release(version) < oldest).then(remedy)
}

/// The product, and the oldest release that has what the statements need.
fn kind(version: &str) -> (&'static str, (u32, u32)) {
    if is_mariadb(version) {
        ("MariaDB", (10, 6))
    } else {
        ("MySQL", (8, 0))
    }
}

/// Major and minor version; `MariaDB` may put `5.5.5-` before its own.
fn release(version: &str) -> (u32, u32) {
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_whatever_a_server_calls_itself() {
        assert_eq!(release("8.4.3"), (8, 4));
        assert_eq!(release("10.11.19-MariaDB-0+deb12u1"), (10, 11));
        assert_eq!(release("5.5.5-10.6.1-MariaDB"), (10, 6));
    }

    #[test]
    fn servers_that_are_too_old_are_told_what_is_needed() {
        assert_eq!(too_old("9.7.4-2"), None);
        assert_eq!(too_old("11.4.2-MariaDB"), None);
        assert_eq!(too_old("5.7.44").unwrap(), "podlog needs MySQL 8.0 or newer");
        let old = "5.5.5-10.5.1-MariaDB";
        assert_eq!(too_old(old).unwrap(), "podlog needs MariaDB 10.6 or newer");
        assert_eq!(product("8.0.1"), "MySQL 8.0.1");
    }
}
