//! The URL that names a lock store.
//!
//! Parsed once, when the settings are read. A password in it is never shown: not by `Display`, not
//! by `Debug`, and not in an error.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use url::Url;

use crate::db::password::PasswordFile;
use crate::db::url::{DatabaseUrl, MYSQL_CONNECTION_FILES, UrlForm};
use crate::domain::Message;

/// Where claims are stored: the URL of a database.
#[derive(Clone)]
pub struct LockUrl(pub(super) DatabaseUrl);

/// The databases that claims can be stored in.
const DATABASES: [UrlForm; 2] = [UrlForm::MYSQL, UrlForm::SQLITE];

impl LockUrl {
    /// How many files and sockets the stores of one replica have open: the collector's and the renewer's.
    #[must_use]
    pub fn open_files(&self) -> usize {
        match &self.0 {
            DatabaseUrl::MySql(_) => 2 * MYSQL_CONNECTION_FILES,
            // The file, its write-ahead log and the index of that log.
            DatabaseUrl::Sqlite(_) => 2 * 3,
        }
    }

    /// Lets the password be read for each connection from the file that this variable of the environment names.
    pub fn read_password_from(&mut self, variable: &str, file: &Path) {
        self.0.read_password_from(PasswordFile::new(variable, file));
    }
}

impl FromStr for LockUrl {
    /// What is wrong with the URL, and what to do about it. The text may hold a password, so no error repeats it.
    type Err = Message;

    fn from_str(text: &str) -> Result<Self, Message> {
        let unknown = |what: String| Message::new(what, format!("write {}", UrlForm::examples(&DATABASES)));
        let Some((scheme, _)) = text.split_once("://") else {
            return Err(unknown("the lock URL has no scheme".into()));
        };
        let form =
            UrlForm::find(&DATABASES, scheme).ok_or_else(|| unknown(format!("there is no lock store {scheme}://")))?;
        let url = Url::parse(text).map_err(|error| {
            let remedy = "special characters in user and password are written as %XX";
            Message::new(format!("the lock URL cannot be read: {error}"), remedy)
        })?;
        form.read(url, "the lock URL").map(Self)
    }
}

impl fmt::Display for LockUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
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

    #[test]
    fn an_invalid_lock_url_is_refused_with_the_known_forms_and_without_the_password() {
        for (text, says) in [
            ("redis://user:secret@x", "redis://; write mysql://"),
            ("mysql:user:secret@db/podlog", "no scheme; write mysql://"),
            ("mysql://user:secret@db:99999/podlog", "cannot be read: invalid port"),
            ("mysql://root:#secret@db/podlog", "is wrong: it has a `#`"),
            ("mysql://root:20/secret@db/podlog", "is wrong: it has a `#`"),
            ("sqlite://", "is wrong: a `sqlite` URL needs the path of a file"),
        ] {
            let error = text.parse::<LockUrl>().unwrap_err();
            assert!(!error.remedy.is_empty(), "{error}");
            let error = error.to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }
}
