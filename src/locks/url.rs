//! The URL that names a lock store.
//!
//! Parsed once, when the settings are read. A password in it is never shown: not by `Display`, not
//! by `Debug`, and not in an error.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::db::url::{self as urls, MYSQL_PARAMETERS};

/// Where claims are stored: `mysql://user:password@host:port/database?ssl-mode=…`,
/// `sqlite:///absolute/path.db` or `sqlite://relative.db`.
#[derive(Clone)]
pub struct LockUrl(pub(super) Place);

/// What a URL names.
#[derive(Clone)]
pub(super) enum Place {
    /// A `MySQL` or `MariaDB` database. The URL still has its password.
    MySql(Url),
    /// A file.
    Sqlite(PathBuf),
}

/// What is wrong with a lock URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLockUrl(String);

const KNOWN: &str = "mysql://user:password@host:3306/database, sqlite:///path/podlog.db or sqlite://podlog.db";

impl LockUrl {
    /// How many files and sockets the stores of one replica have open: the collector's and the renewer's.
    #[must_use]
    pub fn open_files(&self) -> usize {
        match &self.0 {
            Place::MySql(_) => 2,
            // The file, its write-ahead log and that one's index.
            Place::Sqlite(_) => 2 * 3,
        }
    }
}

impl FromStr for LockUrl {
    type Err = BadLockUrl;

    fn from_str(text: &str) -> Result<Self, BadLockUrl> {
        let Some((scheme, _)) = text.split_once("://") else {
            // The text may hold a password, so it is not repeated.
            return Err(BadLockUrl(format!("the lock URL has no scheme; write {KNOWN}")));
        };
        match scheme {
            "mysql" | "mariadb" => mysql(text),
            "sqlite" => sqlite(text),
            _ => Err(BadLockUrl(format!(
                "there is no lock store {scheme}://; known are {KNOWN}"
            ))),
        }
    }
}

fn mysql(text: &str) -> Result<LockUrl, BadLockUrl> {
    let url = Url::parse(text).map_err(|error| {
        BadLockUrl(format!(
            "the lock URL cannot be read: {error}; special characters in user and password are written as %XX"
        ))
    })?;
    let shown = LockUrl(Place::MySql(url.clone()));
    if url.host_str().is_none_or(str::is_empty) {
        return Err(BadLockUrl(format!("the lock URL {shown} names no host; write {KNOWN}")));
    }
    let database = url.path().trim_matches('/');
    if database.is_empty() || database.contains('/') {
        return Err(BadLockUrl(format!(
            "the lock URL {shown} must name one database after the host; write …/podlog"
        )));
    }
    if let Some(name) = urls::unknown_parameter(&url, &MYSQL_PARAMETERS) {
        return Err(BadLockUrl(format!(
            "the lock URL {shown} has an unknown parameter `{name}`; known are {}",
            MYSQL_PARAMETERS.join(", ")
        )));
    }
    Ok(shown)
}

fn sqlite(text: &str) -> Result<LockUrl, BadLockUrl> {
    let file = Url::parse(text).ok().and_then(|url| urls::sqlite(&url));
    // The text may hold a password, which is of no use here, so it is not repeated.
    let bad = || {
        BadLockUrl(
            "a lock URL sqlite:// must name a file and has no host, user, password or parameters; write sqlite:///path/podlog.db"
                .into(),
        )
    };
    file.map(|file| LockUrl(Place::Sqlite(file))).ok_or_else(bad)
}

impl fmt::Display for LockUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::MySql(url) => f.write_str(&urls::masked(url, &[])),
            Place::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}

impl fmt::Debug for LockUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LockUrl, BadLockUrl> {
        text.parse()
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = read("mysql://user:s%20cret@db:3306/podlog?ssl-mode=REQUIRED").unwrap();
        assert_eq!(url.to_string(), "mysql://user:***@db:3306/podlog?ssl-mode=REQUIRED");
        assert!(!format!("{url:?}").contains("cret"), "{url:?}");
    }

    #[test]
    fn no_error_repeats_a_password() {
        for text in [
            "mysql:user:secret@db/podlog",
            "postgres://user:secret@db/podlog",
            "mysql://user:secret@db:99999/podlog",
            "mysql://user:secret@db/",
            "mysql://user:secret@db/a/b",
            "mysql://user:secret@db/podlog?ssl-mod=x",
            "mysql://user@db/podlog?password=secret",
            "sqlite://user:secret@db/",
            "sqlite://user:secret@db/podlog.db",
            "mysql://user@db/podlog?p%61ssword=secret&ssl-mode=x",
            "mysql://user@db/podlog?secret",
            "mysql://user@db/podlog?password=a&secret2=x",
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_told_the_known_ones() {
        let error = read("redis://x").unwrap_err().to_string();
        for known in ["redis", "mysql://", "sqlite://"] {
            assert!(error.contains(known), "{error}");
        }
    }

    #[test]
    fn a_file_is_absolute_or_relative_and_must_be_named() {
        assert_eq!(
            read("sqlite:///var/lib/podlog.db").unwrap().to_string(),
            "sqlite:///var/lib/podlog.db"
        );
        let Place::Sqlite(path) = read("sqlite://podlog.db").unwrap().0 else {
            panic!()
        };
        assert_eq!(path, PathBuf::from("podlog.db"));
        assert!(read("sqlite://").is_err());
        assert!(read("sqlite:///var/lib/").is_err());
    }
}
