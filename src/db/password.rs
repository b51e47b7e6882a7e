//! A file with a password, such as a mounted Secret. It may change while podlog runs.
//!
//! No text of an error and no `Debug` contains the path: it may be the password itself, in the wrong variable.

use std::fmt;
use std::path::PathBuf;

use crate::domain::Message;

/// A file with a password, named by a variable of the environment.
#[derive(Clone)]
pub(crate) struct PasswordFile {
    variable: String,
    path: PathBuf,
}

impl PasswordFile {
    /// The file at this path, which this variable names.
    pub(crate) fn new(variable: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let (variable, path) = (variable.into(), path.into());
        Self { variable, path }
    }

    /// The password as it is now.
    pub(crate) fn read(&self) -> Result<String, Message> {
        let text = std::fs::read_to_string(&self.path);
        text.map(|text| without_line_end(&text).to_owned()).map_err(|error| {
            Message::new(
                format!("{self} cannot be read: {error}"),
                "correct the path or the permissions of the file",
            )
        })
    }
}

/// How messages call it.
impl fmt::Display for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the file that {} names", self.variable)
    }
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PasswordFile").field(&self.variable).finish()
    }
}

/// A password without the line ends behind it, which editors, `echo` and YAML add.
pub(crate) fn without_line_end(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}
