//! URLs with passwords, and the sources of the passwords.
//!
//! `Display` and `Debug` of a [`SecretUrl`] mask its secrets. Only the code that parses the URL to connect calls
//! `expose`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use super::unreadable::Unreadable;
use crate::cli::units::Secret;
use crate::db::password::{PasswordFile, without_line_end};
use crate::db::url as urls;
use crate::domain::{Cause, Message};
use crate::exit::Failure;
use crate::locks::LockUrl;
use crate::sinks::{FILE_PARAMETERS, SinkUrl};

/// A valid URL, or a single word such as `stdout`. Secrets are masked when it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl {
    text: String,
    url: Url,
}

impl SecretUrl {
    /// Parses a URL without the white space around it. The error does not contain the text.
    ///
    /// Control characters are refused: the parser would remove some of them, also from a password. Text in which part
    /// of a password may be parsed as another part of the URL is refused too, because that part is not masked.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err("control characters must be escaped, a line end as %0A".to_owned());
        }
        let word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let whole = if word { format!("{text}:") } else { text.to_owned() };
        let url = Url::parse(&whole).map_err(|e| e.to_string())?;
        if !word
            && !text
                .get(url.scheme().len()..)
                .is_some_and(|rest| rest.starts_with("://"))
        {
            return Err("it has no :// after its scheme".to_owned());
        }
        if url.fragment().is_some() {
            return Err("# must be written %23".to_owned());
        }
        if may_split_password(text) {
            return Err("/ and ? in a password must be written %2F and %3F, and an @ after the host %40".to_owned());
        }
        let text = text.to_owned();
        Ok(Self { text, url })
    }

    /// The URL as typed, with its secrets and with the password inserted.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The same URL with a password. `None` if it has a password already, or if its scheme does not allow one.
    #[must_use]
    pub fn with_password(&self, password: &Secret) -> Option<Self> {
        if self.url.password().is_some() {
            return None;
        }
        let mut url = self.url.clone();
        // `set_password` escapes every special character except `%`.
        url.set_password(Some(&password.expose().replace('%', "%25"))).ok()?;
        Some(Self {
            text: url.to_string(),
            url,
        })
    }
}

/// Whether a `/`, `?`, `#` or `\` is between a colon and an `@`. It may belong to a password and end the part that is
/// parsed as user and host. This is checked in the text as typed, because parsing may drop any of these characters.
fn may_split_password(text: &str) -> bool {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.rsplit_once('@')
        .is_some_and(|(before, _)| before.contains(':') && before.contains(['/', '?', '#', '\\']))
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As typed if there is nothing to mask: `Url` would insert slashes.
        if self.url.password().is_none() && self.url.query().is_none() && self.url.username().is_empty() {
            return f.write_str(&self.text);
        }
        f.write_str(&urls::masked(&self.url, &FILE_PARAMETERS))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Passwords from variables or files, not from URLs.
#[derive(Clone, Debug, Default)]
pub struct Passwords {
    /// The password of the lock store.
    pub(super) lock: Option<Password>,
    /// The password of the sink.
    pub(super) sink: Option<Password>,
}

/// A password from a variable or a file.
#[derive(Clone, Debug)]
pub(super) struct Password {
    text: Secret,
    /// The variable and the file that it is from. The file may change later.
    file: Option<(String, PathBuf)>,
}

impl Passwords {
    /// Reads `PODLOG_LOCK_PASSWORD`, `PODLOG_SINK_PASSWORD` and the files named by the variables with `_FILE`.
    /// Names each that cannot be read.
    pub fn from_env() -> Result<Self, Unreadable> {
        Self::from(|name| std::env::var_os(name))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Unreadable> {
        let read = |name: &str| -> Result<Option<Password>, Failure> {
            let direct = variable(name);
            let file = format!("{name}_FILE");
            match (direct, variable(&file)) {
                (None, None) => Ok(None),
                (Some(_), Some(_)) => {
                    Err(Failure::usage(format!("both {name} and {file} are set")).with_remedy("unset one"))
                }
                (Some(text), None) => {
                    let text = text.into_string().map_err(|_| {
                        Failure::usage(format!("{name} is not UTF-8")).with_remedy("set it to valid UTF-8")
                    })?;
                    let text = without_line_end(&text).into();
                    Ok(Some(Password { text, file: None }))
                }
                (None, Some(path)) => {
                    let text = PasswordFile::new(&*file, &path).read();
                    let text = text.map_err(|message| Failure::with_cause(Cause::Setting, message))?;
                    let (text, file) = (text.into(), Some((file, path.into())));
                    Ok(Some(Password { text, file }))
                }
            }
        };
        match (read("PODLOG_LOCK_PASSWORD"), read("PODLOG_SINK_PASSWORD")) {
            (Ok(lock), Ok(sink)) => Ok(Self { lock, sink }),
            (lock, sink) => Err(Unreadable([lock.err(), sink.err()].into_iter().flatten().collect())),
        }
    }
}

/// A parsed URL whose password may be in a file.
pub(super) trait TakesPassword: FromStr<Err = Message> {
    /// Lets the password be read for each connection from the file that the variable names.
    fn read_from(&mut self, variable: &str, file: &Path);
}

impl TakesPassword for LockUrl {
    fn read_from(&mut self, variable: &str, file: &Path) {
        self.read_password_from(variable, file);
    }
}

impl TakesPassword for SinkUrl {
    fn read_from(&mut self, variable: &str, file: &Path) {
        self.read_password_from(variable, file);
    }
}

/// Parses the URL of a flag and inserts its password.
pub(super) fn url<U: TakesPassword>(
    flag: &str,
    text: &Secret,
    password: Option<&Password>,
    example: &str,
) -> Result<U, Failure> {
    let url = with_password(flag, text, password, example)?;
    let url: Result<U, Message> = url.expose().parse();
    let mut url = url.map_err(|message| Failure::with_cause(Cause::Setting, message))?;
    if let Some((variable, file)) = password.and_then(|password| password.file.as_ref()) {
        url.read_from(variable, file);
    }
    Ok(url)
}

fn with_password(flag: &str, text: &Secret, password: Option<&Password>, example: &str) -> Result<SecretUrl, Failure> {
    if text.expose().trim().is_empty() {
        return Err(Failure::usage(format!("--{flag} is empty")).with_remedy(format!("write it like {example}")));
    }
    let url = SecretUrl::parse(text.expose()).map_err(|e| {
        Failure::usage(format!("--{flag} is not a URL ({e})")).with_remedy(format!("write it like {example}"))
    })?;
    let Some(password) = password else { return Ok(url) };
    if let Some(with) = url.with_password(&password.text) {
        return Ok(with);
    }
    let variable = match &password.file {
        Some((variable, _)) => variable.clone(),
        None => format!("PODLOG_{}_PASSWORD", flag.to_uppercase()),
    };
    let (why, remedy) = if url.url.password().is_some() {
        ("has a password already", "remove one of the two".to_owned())
    } else {
        ("takes no password", format!("unset {variable}"))
    };
    Err(Failure::usage(format!("{variable} is set, but --{flag} {url} {why}")).with_remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        format!("{0} {0:?}", SecretUrl::parse(text).unwrap())
    }

    #[test]
    fn secrets_are_masked_and_the_rest_is_shown() {
        assert_eq!(
            shown("mysql://u:hunter2@h:3306/d"),
            "mysql://u:***@h:3306/d mysql://u:***@h:3306/d"
        );
        assert_eq!(
            shown("mysql://u@h/d?ssl-mode=required&api_token=hunter2"),
            "mysql://u@h/d?ssl-mode=required&api_token=*** mysql://u@h/d?ssl-mode=required&api_token=***"
        );
        assert_eq!(shown("mysql://u%3Ahunter2@h/d"), "mysql://***@h/d mysql://***@h/d");
        assert_eq!(shown("stdout"), "stdout stdout");
        assert_eq!(shown(" stdout\n"), "stdout stdout");
        assert_eq!(shown("sqlite://podlog.db"), "sqlite://podlog.db sqlite://podlog.db");
    }

    #[test]
    fn a_password_in_the_wrong_place_is_refused_and_not_shown() {
        for text in [
            "hunter2@h/d",
            "root:hunter2@tcp(db)/d",
            "mysql://u:12#hunter2@h/d",
            "mysql://u:12/hunter2@h/d",
            "mysql://u:12?hunter2@h/d",
            "mysql://u:/hunter2@h/d",
            "mysql://u:?hunter2@h/d",
            "mysql://u:\\?hunter2@h/d",
            "mysql://u:a@b/hunter2@h/d",
            "mysql://u:/hunter2@h/..",
            "mysql:///u:hunter2@h/d",
            "mysql://u@h/hunt\rer2",
            "mysql://u:hunt\ter2@h/d",
        ] {
            let said = SecretUrl::parse(text).unwrap_err();
            assert!(!said.contains("hunter2"), "{text}: {said}");
        }
    }

    #[test]
    fn a_password_with_special_characters_is_inserted_escaped() {
        let url = SecretUrl::parse("mysql://u@h/d").unwrap();
        let with = url.with_password(&"p@ss/wörd%".into()).unwrap();
        assert_eq!(with.expose(), "mysql://u:p%40ss%2Fw%C3%B6rd%25@h/d");
        assert_eq!(with.to_string(), "mysql://u:***@h/d");
        assert!(with.with_password(&"other".into()).is_none());
        assert!(SecretUrl::parse("stdout").unwrap().with_password(&"x".into()).is_none());
    }

    #[test]
    fn a_password_that_cannot_be_used_is_refused_with_the_variable_to_unset() {
        let refusal = |text: &str, file: Option<&str>| {
            let file = file.map(|variable| (variable.to_owned(), PathBuf::from("/f")));
            let password = Password {
                text: "hunter2".into(),
                file,
            };
            with_password("sink", &text.into(), Some(&password), "stdout")
                .unwrap_err()
                .to_string()
        };
        for (text, file, says) in [
            (
                "stdout",
                None,
                "PODLOG_SINK_PASSWORD is set, but --sink stdout takes no password; unset PODLOG_SINK_PASSWORD",
            ),
            (
                "file:///d",
                Some("PODLOG_SINK_PASSWORD_FILE"),
                "PODLOG_SINK_PASSWORD_FILE is set, but --sink file:///d takes no password; unset PODLOG_SINK_PASSWORD_FILE",
            ),
            (
                "mysql://u:other@h/d",
                None,
                "PODLOG_SINK_PASSWORD is set, but --sink mysql://u:***@h/d has a password already; remove one of the two",
            ),
            (" ", None, "--sink is empty; write it like stdout"),
        ] {
            assert_eq!(refusal(text, file), says);
        }
    }

    #[test]
    fn line_ends_behind_a_password_are_removed_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().as_os_str().to_owned();
        for text in [" hunter2 ", " hunter2 \n", " hunter2 \n\n", " hunter2 \r\n\r\n"] {
            std::fs::write(file.path(), text).unwrap();
            let read = Passwords::from(|name| match name {
                "PODLOG_LOCK_PASSWORD_FILE" => Some(path.clone()),
                "PODLOG_SINK_PASSWORD" => Some(text.into()),
                _ => None,
            });
            let Passwords { lock, sink } = read.unwrap();
            assert_eq!(lock.unwrap().text.expose(), " hunter2 ", "{text:?}");
            assert_eq!(sink.unwrap().text.expose(), " hunter2 ", "{text:?}");
        }
    }

    #[test]
    fn a_password_from_two_sources_or_from_a_missing_file_is_refused() {
        let Unreadable(both) = Passwords::from(|_| Some("/nowhere".into())).unwrap_err();
        assert_eq!(
            both.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "both PODLOG_LOCK_PASSWORD and PODLOG_LOCK_PASSWORD_FILE are set; unset one",
                "both PODLOG_SINK_PASSWORD and PODLOG_SINK_PASSWORD_FILE are set; unset one"
            ]
        );
        let missing = |name: &str| (name == "PODLOG_SINK_PASSWORD_FILE").then(|| "/nowhere".into());
        let failure = Failure::from(Passwords::from(missing).unwrap_err());
        assert!(failure.to_string().contains("PODLOG_SINK_PASSWORD_FILE"), "{failure}");
    }
}
