//! The URL of a sink. Nothing is opened here. `Display`, `Debug` and errors never show a password.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use sqlx::MySql;
use url::Url;

use super::file::{FileOptions, Fsync, OPEN_FILES};
use super::sql::SqlDialect;
use crate::db::password::PasswordFile;
use crate::db::url::{self as urls, DatabaseUrl, MYSQL_CONNECTION_FILES, UrlForm};
use crate::domain::Message;

/// Parameters of `file` URLs.
pub const FILE_PARAMETERS: [&str; 4] = ["max_size", "keep", "fsync", "gzip"];

/// A sink, as written on the command line.
#[derive(Clone)]
pub struct SinkUrl {
    pub(super) destination: Destination,
}

/// What a URL names.
#[derive(Clone)]
pub(super) enum Destination {
    Stdout,
    File(FileOptions),
    Database(DatabaseUrl),
}

/// The databases that records can be stored in.
const DATABASES: [UrlForm; 2] = [UrlForm::MYSQL, UrlForm::SQLITE];

fn known_sinks() -> String {
    format!("known sinks: stdout, file:///dir, {}", UrlForm::examples(&DATABASES))
}

impl FromStr for SinkUrl {
    /// What is wrong with the URL, and what to do about it. The text may contain a password, so no error repeats it.
    type Err = Message;

    fn from_str(text: &str) -> Result<Self, Message> {
        // The schemes of URLs are read without regard to case, so this word is too.
        if text.eq_ignore_ascii_case("stdout") {
            return Ok(Self {
                destination: Destination::Stdout,
            });
        }
        if !text.contains(':') {
            return Err(Message::new("the sink's URL has no scheme", known_sinks()));
        }
        let url = Url::parse(text)
            .map_err(|error| Message::new(format!("the sink's URL cannot be read: {error}"), known_sinks()))?;
        let destination = match url.scheme() {
            "stdout" => {
                no_parameters(&url)?;
                Destination::Stdout
            }
            "file" => Destination::File(file(&url)?),
            scheme => match UrlForm::find(&DATABASES, scheme) {
                Some(form) => Destination::Database(form.read(url, "the sink's URL")?),
                None => return Err(Message::new(format!("there is no sink `{scheme}`"), known_sinks())),
            },
        };
        Ok(Self { destination })
    }
}

impl SinkUrl {
    /// Files and sockets that the sink has open when it writes this many streams.
    #[must_use]
    pub fn open_files(&self, streams: usize) -> usize {
        match &self.destination {
            Destination::Stdout => 0,
            Destination::File(_) => streams.min(OPEN_FILES),
            // The file, its write-ahead log and the log's index.
            Destination::Database(DatabaseUrl::Sqlite(_)) => 3,
            Destination::Database(DatabaseUrl::MySql(_)) => MySql::CONNECTIONS as usize * MYSQL_CONNECTION_FILES,
        }
    }

    /// Lets the password be read for each connection from the file that this variable of the environment names.
    pub fn read_password_from(&mut self, variable: &str, file: &Path) {
        if let Destination::Database(url) = &mut self.destination {
            url.read_password_from(PasswordFile::new(variable, file));
        }
    }

    /// Whether records and the stream's position are stored together, so that each is stored exactly once.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        matches!(self.destination, Destination::Database(_))
    }
}

fn no_parameters(url: &Url) -> Result<(), Message> {
    match urls::unknown_parameter(url, &[]) {
        Some(name) => Err(Message::new(
            format!("`{}` sinks have no parameter `{name}`", url.scheme()),
            "leave it out",
        )),
        None => Ok(()),
    }
}

fn pathless(url: &Url) -> Message {
    let scheme = url.scheme();
    Message::new(
        format!("a `{scheme}` sink needs a path and has no host, user or port"),
        format!("write three slashes: {scheme}:///path"),
    )
}

fn file(url: &Url) -> Result<FileOptions, Message> {
    let mut options = FileOptions {
        dir: urls::path(url).ok_or_else(|| pathless(url))?,
        max_size: 10 << 20,
        keep: 5,
        fsync: Fsync::Interval,
        gzip: false,
    };
    if let Some(name) = urls::unknown_parameter(url, &FILE_PARAMETERS) {
        let known = FILE_PARAMETERS.join(", ");
        return Err(Message::new(
            format!("`file` sinks have no parameter `{name}`"),
            format!("known: {known}"),
        ));
    }
    for (name, value) in url.query_pairs() {
        let unreadable = |form: &str| Message::new(format!("`{name}={value}` cannot be read"), format!("write {form}"));
        match &*name {
            "max_size" if bytes(&value) == Some(0) => {
                return Err(Message::new(
                    format!("`max_size={value}` leaves no room for a line"),
                    "write a size such as 10MiB",
                ));
            }
            "max_size" => options.max_size = bytes(&value).ok_or_else(|| unreadable("a size such as 10MiB"))?,
            "keep" => options.keep = value.parse().map_err(|_| unreadable("a number such as 5"))?,
            "gzip" => options.gzip = value.parse().map_err(|_| unreadable("true or false"))?,
            "fsync" => {
                options.fsync = match &*value {
                    "never" => Fsync::Never,
                    "interval" => Fsync::Interval,
                    "always" => Fsync::Always,
                    _ => return Err(unreadable("never, interval or always")),
                }
            }
            _ => {}
        }
    }
    Ok(options)
}

/// `1048576`, `1MiB`, `1MB`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

impl fmt::Display for SinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Destination::Stdout => f.write_str("stdout"),
            Destination::File(options) => write!(f, "file://{}", options.dir.display()),
            Destination::Database(url) => fmt::Display::fmt(url, f),
        }
    }
}

impl fmt::Debug for SinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SinkUrl, String> {
        text.parse::<SinkUrl>().map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = parse("mysql://u:s3cret@db:3306/logs?ssl-mode=REQUIRED").unwrap();
        assert_eq!(url.to_string(), "mysql://u:***@db:3306/logs?ssl-mode=REQUIRED");
        assert_eq!(format!("{url:?}"), url.to_string());
        for bad in [
            "mysql://u:s3cret@db:port/logs",
            "mysql://u:s3cret@db/logs?x=1",
            "mysql://u@db/logs?s3cret",
            "file:///d?keep=3&s3cret=1",
            "mysql://u:s3cret@db",
            "nosql://u:s3cret@db",
            "mysql://root:#s3cret@db/logs",
            "mysql://root:20/s3cret@db/logs",
        ] {
            assert!(!parse(bad).unwrap_err().contains("s3cret"), "{bad}");
        }
    }

    #[test]
    fn unknown_sinks_and_parameters_are_refused_and_the_known_ones_named() {
        assert!(parse("kafka://x").unwrap_err().contains("known sinks: stdout, file"));
        assert!(parse("file:///d?max=1").unwrap_err().contains("known: max_size, keep"));
        assert!(parse("file://").unwrap_err().contains("three slashes"));
        assert!(
            parse("file:///d?fsync=maybe")
                .unwrap_err()
                .contains("never, interval or always")
        );
        assert!(parse("sqlite://").unwrap_err().contains("needs the path of a file"));
        assert!(
            parse("records")
                .unwrap_err()
                .contains("has no scheme; known sinks: stdout")
        );
        for size in ["0", "0MiB", "00"] {
            let error = parse(&format!("file:///d?max_size={size}")).unwrap_err();
            assert!(error.contains("no room for a line; write a size"), "{error}");
        }
    }

    #[test]
    fn parameters_are_parsed() {
        let url = parse("file:///var/log/a%20b?max_size=2MiB&keep=0&fsync=always&gzip=true").unwrap();
        let Destination::File(options) = url.destination else {
            panic!("not a file sink")
        };
        let expected = FileOptions {
            dir: "/var/log/a b".into(),
            max_size: 2 << 20,
            keep: 0,
            fsync: Fsync::Always,
            gzip: true,
        };
        assert_eq!(options, expected);
        for text in ["stdout", "Stdout", "STDOUT", "stdout://", "Stdout://"] {
            assert!(
                matches!(parse(text).unwrap().destination, Destination::Stdout),
                "{text}"
            );
        }
        assert!(
            matches!(parse("sqlite:///a/b.db").unwrap().destination, Destination::Database(DatabaseUrl::Sqlite(p)) if p.as_os_str() == "/a/b.db")
        );
        // Relative to the working directory.
        assert!(
            matches!(parse("sqlite://a/b.db").unwrap().destination, Destination::Database(DatabaseUrl::Sqlite(p)) if p.as_os_str() == "a/b.db")
        );
    }
}
