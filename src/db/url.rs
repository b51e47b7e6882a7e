//! URLs of databases: how they are read and how they are shown.
//!
//! A password is never shown, wherever in a URL it was written: not by `Display`, not by `Debug`, and not in an error.
//! Nothing here connects to anything.

use std::fmt;
use std::path::PathBuf;

use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;
use url::Url;

use super::password::PasswordFile;
use crate::domain::Message;

/// Parameters of `mysql` URLs. A misspelt one must not be ignored (`ssl-mod=VERIFY_CA`).
pub(crate) const MYSQL_PARAMETERS: [&str; 9] = [
    "ssl-mode", "sslmode", "ssl-ca", "sslca", "ssl-cert", "sslcert", "ssl-key", "sslkey", "socket",
];

/// Files of a connection to a server: the driver's socket, the other end of it, and the connection itself.
pub(crate) const MYSQL_CONNECTION_FILES: usize = 3;

/// A database: `mysql://user:password@host:port/database?ssl-mode=…` (or `mariadb://…`), `sqlite:///absolute/path.db`
/// or `sqlite://relative.db`.
#[derive(Clone)]
pub(crate) enum DatabaseUrl {
    /// A `MySQL` or `MariaDB` database.
    MySql(ServerUrl),
    /// An `SQLite` file.
    Sqlite(PathBuf),
}

/// A database of a server. The URL contains its password, unless that is in a file.
#[derive(Clone)]
pub(crate) struct ServerUrl {
    pub url: Url,
    /// The file with the password, which counts instead of one in the URL.
    pub password_file: Option<PasswordFile>,
}

impl From<Url> for ServerUrl {
    fn from(url: Url) -> Self {
        let password_file = None;
        Self { url, password_file }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.url, &[]))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DatabaseUrl {
    /// Lets the password be read from a file for each connection.
    pub(crate) fn read_password_from(&mut self, file: PasswordFile) {
        match self {
            Self::MySql(server) => server.password_file = Some(file),
            Self::Sqlite(_) => {}
        }
    }
}

/// How the URLs of one kind of database are written and read. A use of databases has a list of those that it supports.
#[derive(Debug)]
pub(crate) struct UrlForm {
    schemes: &'static [&'static str],
    /// What to write, for people.
    example: &'static str,
    read: fn(Url) -> Result<DatabaseUrl, Message>,
}

impl UrlForm {
    pub(crate) const MYSQL: Self = Self {
        schemes: &["mysql", "mariadb"],
        example: "mysql://user:password@host:3306/database",
        read: |url| server(&url).map(|()| DatabaseUrl::MySql(url.into())),
    };
    pub(crate) const SQLITE: Self = Self {
        schemes: &["sqlite"],
        example: "sqlite:///path/podlog.db or sqlite://podlog.db (in the working directory)",
        read: |url| file(&url).map(DatabaseUrl::Sqlite),
    };

    /// The form of URLs with this scheme.
    #[must_use]
    pub(crate) fn find<'a>(forms: &'a [Self], scheme: &str) -> Option<&'a Self> {
        forms.iter().find(|form| form.schemes.contains(&scheme))
    }

    /// Examples of all forms.
    #[must_use]
    pub(crate) fn examples(forms: &[Self]) -> String {
        forms.iter().map(|form| form.example).collect::<Vec<_>>().join(", ")
    }

    /// Reads a URL with one of the schemes. `what` names the URL in the error, which does not contain the password.
    pub(crate) fn read(&self, url: Url, what: &str) -> Result<DatabaseUrl, Message> {
        (self.read)(url).map_err(|error| Message::new(format!("{what} is wrong: {}", error.text), error.remedy))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(server) => fmt::Display::fmt(server, f),
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks the parts of a `mysql` URL.
fn server(url: &Url) -> Result<(), Message> {
    if let Some(name) = unknown_parameter(url, &MYSQL_PARAMETERS) {
        let known = MYSQL_PARAMETERS.join(", ");
        let text = format!("`mysql` URLs have no parameter `{name}`");
        return Err(Message::new(text, format!("known: {known}")));
    }
    let form = format!("write {}", UrlForm::MYSQL.example);
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Message::new("it names no host", form));
    }
    // No error shows the URL: what stands after the host may be the rest of a password that was not escaped.
    if url.fragment().is_some() || url.path().contains('@') {
        return Err(Message::new(
            "it has a `#`, or an `@` after the host",
            "write special characters in user, password and database as %XX (`#` as %23, `/` as %2F)",
        ));
    }
    let database = url.path().trim_matches('/');
    if database.is_empty() || database.contains('/') {
        return Err(Message::new("it must name one database after the host", form));
    }
    MySqlConnectOptions::from_url(url)
        .map(drop)
        .map_err(|error| unreadable(&error))
}

/// What the driver says of a URL, without the beginnings that it repeats, and the way to correct it. Its text shows the value of
/// `ssl-mode` only.
pub(crate) fn unreadable(error: &sqlx::Error) -> Message {
    let text = error.to_string();
    let text = text
        .replace("error with configuration: ", "")
        .replace("ssl_mode", "ssl-mode");
    let remedy = if text.contains("ssl-mode") {
        "use DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"
    } else {
        "correct the URL"
    };
    Message::new(text, remedy)
}

/// The file of a `sqlite` URL.
fn file(url: &Url) -> Result<PathBuf, Message> {
    if let Some(name) = unknown_parameter(url, &[]) {
        let text = format!("`sqlite` URLs have no parameter `{name}`");
        return Err(Message::new(text, "leave it out"));
    }
    let bare = url.query().is_none() && url.fragment().is_none() && !url.path().ends_with('/');
    let form = "write three slashes: sqlite:///path/podlog.db";
    let text = "a `sqlite` URL needs the path of a file and has no host, user, password or port";
    path(url).filter(|_| bare).ok_or_else(|| Message::new(text, form))
}

/// The URL with `***` in place of its password, and without what follows a `#`. Of parameters only the values of known
/// ones are shown (those of databases and `others`), because a password may have been written as one; such a URL is
/// refused, and the refusal shows it.
#[must_use]
pub(crate) fn masked(url: &Url, others: &[&str]) -> String {
    let mut url = url.clone();
    // A user with an escaped colon is one with a password. A URL that has either takes another; were it refused,
    // nothing might be shown.
    let joined = url.username().to_ascii_lowercase().contains("%3a");
    if joined && url.set_username("***").is_err() || url.password().is_some() && url.set_password(Some("***")).is_err()
    {
        return "***".into();
    }
    let known = |name: &str| MYSQL_PARAMETERS.contains(&name) || others.contains(&name);
    let query = url.query().map(|query| {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if known(name) => pair.to_owned(),
            Some((name, value)) => match shown_name(name, value) {
                "***" => "***".to_owned(),
                name => format!("{name}=***"),
            },
            None => "***".to_owned(),
        });
        pairs.collect::<Vec<_>>().join("&")
    });
    url.set_query(query.as_deref());
    url.set_fragment(None);
    url.into()
}

/// The name of the first parameter that is not known, as it may be shown.
#[must_use]
pub(crate) fn unknown_parameter(url: &Url, known: &[&str]) -> Option<String> {
    let (name, value) = url.query_pairs().find(|(name, _)| !known.contains(&&**name))?;
    Some(shown_name(&name, &value).to_owned())
}

/// The name of a parameter, if it looks like one and has a value: otherwise it may be a password, or the rest of one
/// after an `&`.
fn shown_name<'a>(name: &'a str, value: &str) -> &'a str {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b"-_".contains(&b));
    if plain && !name.is_empty() && !value.is_empty() {
        name
    } else {
        "***"
    }
}

/// The path of `scheme:///absolute/path`, or of `scheme://relative/path` in the working directory; `%41` is `A`.
/// `None` when there is no path, or when there is a user, a password or a port, which a path has not.
#[must_use]
pub(crate) fn path(url: &Url) -> Option<PathBuf> {
    if url.port().is_some() || url.password().is_some() || !url.username().is_empty() {
        return None;
    }
    let relative = url.host_str().unwrap_or_default();
    let path = percent_decode(&format!("{relative}{}", url.path()))?;
    (!path.is_empty() && path != "/").then(|| PathBuf::from(path))
}

/// `None` when the bytes are not text.
fn percent_decode(text: &str) -> Option<String> {
    // A plus sign stands for itself in a path, unlike in a query.
    let query = format!("p={}", text.replace('+', "%2B").replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(query.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())?;
    (!decoded.contains('\u{FFFD}')).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn secrets_are_masked_and_the_rest_is_shown() {
        for (text, shown) in [
            ("mysql://u:hunter2@h:3306/d", "mysql://u:***@h:3306/d"),
            (
                "mysql://u@h/d?ssl-mode=x&token=hunter2",
                "mysql://u@h/d?ssl-mode=x&token=***",
            ),
            ("mysql://u@h/d?p%61ssword=hunter2&hunter2", "mysql://u@h/d?***&***"),
            ("mysql://u@h/d?tls=hunter&hunter2=x", "mysql://u@h/d?tls=***&***"),
            ("mysql://u%3Ahunter2@h/d", "mysql://***@h/d"),
            ("mysql://u:#hunter2@h/d", "mysql://u"),
            ("file:///d?keep=3", "file:///d?keep=3"),
        ] {
            assert_eq!(masked(&read(text), &["keep"]), shown);
        }
    }

    fn database(text: &str) -> Result<DatabaseUrl, String> {
        let url = read(text);
        let form = UrlForm::find(&[UrlForm::MYSQL, UrlForm::SQLITE], url.scheme()).unwrap();
        form.read(url, "it").map_err(|message| message.to_string())
    }

    #[test]
    fn a_database_url_is_shown_without_its_password() {
        let url = database("mysql://user:s%20cret@db:3306/podlog?ssl-mode=REQUIRED").unwrap();
        assert_eq!(url.to_string(), "mysql://user:***@db:3306/podlog?ssl-mode=REQUIRED");
        assert_eq!(format!("{url:?}"), url.to_string());
    }

    #[test]
    fn a_url_that_is_wrong_is_refused_with_its_form_and_without_its_password() {
        for (text, says) in [
            ("mysql:user:secret@db/podlog", "no host"),
            ("mysql://user:secret@db/", "one database"),
            ("mysql://user:secret@db/a/b", "one database"),
            ("mysql://db/secret/b", "one database"),
            ("mysql://root:#secret@db/logs", "%23"),
            ("mysql://user@db/logs#secret", "%23"),
            ("mysql://root:20/secret@db/logs", "%2F"),
            ("mysql://root:20/secret@db", "%2F"),
            (
                "mysql://user:secret@db/podlog?ssl-mod=x",
                "no parameter `ssl-mod`; known: ssl-mode",
            ),
            ("mysql://user@db/podlog?password=secret", "no parameter `password`"),
            ("mysql://user@db/podlog?p%61ssword=secret&ssl-mode=x", "no parameter"),
            ("mysql://user@db/podlog?secret", "no parameter `***`"),
            ("mysql://user@db/podlog?password=a&secret2=x", "no parameter"),
            (
                "mysql://user:secret@db/podlog?ssl-mode=x",
                "it is wrong: unknown value \"x\" for `ssl-mode`; use DISABLED",
            ),
            ("mysql://user:secret@db/podlog?sslmode=", "for `ssl-mode`; use DISABLED"),
            ("sqlite://user:secret@db/", "three slashes"),
            ("sqlite://user:secret@db/podlog.db", "three slashes"),
            ("sqlite:///d?mode=ro", "no parameter `mode`; leave it out"),
        ] {
            let error = database(text).unwrap_err();
            assert!(error.contains(says) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_has_an_absolute_or_a_relative_path() {
        for (text, file) in [
            ("sqlite:///var/lib/a%20b.db", Some("/var/lib/a b.db")),
            ("sqlite://podlog.db", Some("podlog.db")),
            ("sqlite://a/b+c.db", Some("a/b+c.db")),
            ("sqlite://", None),
            ("sqlite:///var/lib/", None),
            ("sqlite:///d#x", None),
            ("sqlite://me@logs/x", None),
            ("sqlite://:pw@logs/x", None),
            ("sqlite:///%ff.db", None),
        ] {
            let found = match database(text) {
                Ok(DatabaseUrl::Sqlite(path)) => Some(path),
                _ => None,
            };
            assert_eq!(found, file.map(PathBuf::from), "{text}");
        }
    }
}
