//! URLs of stores and sinks: how they are shown, and what their parts mean, the same for all kinds.
//!
//! A password is never shown, wherever in a URL it was written. Nothing here connects to anything.

use std::path::PathBuf;

use url::Url;

/// Parameters of `mysql` URLs. A misspelt one must not be ignored (`ssl-mod=VERIFY_CA`).
pub const MYSQL_PARAMETERS: [&str; 9] = [
    "ssl-mode", "sslmode", "ssl-ca", "sslca", "ssl-cert", "sslcert", "ssl-key", "sslkey", "socket",
];

/// The URL with `***` in place of its password. Of parameters only the values of known ones are shown (those of
/// databases and `others`), because a password may have been written as one; such a URL is refused, and the refusal shows it.
#[must_use]
pub fn masked(url: &Url, others: &[&str]) -> String {
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
    url.into()
}

/// The name of the first parameter that is not known, as it may be shown.
#[must_use]
pub fn unknown_parameter(url: &Url, known: &[&str]) -> Option<String> {
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
pub fn path(url: &Url) -> Option<PathBuf> {
    if url.port().is_some() || url.password().is_some() || !url.username().is_empty() {
        return None;
    }
    let relative = url.host_str().unwrap_or_default();
    let path = percent_decode(&format!("{relative}{}", url.path()))?;
    (!path.is_empty() && path != "/").then(|| PathBuf::from(path))
}

/// The file of a `sqlite` URL; `None` also when it names a directory or has parameters.
#[must_use]
pub fn sqlite(url: &Url) -> Option<PathBuf> {
    let bare = url.query().is_none() && url.fragment().is_none() && !url.path().ends_with('/');
    path(url).filter(|_| bare)
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
            ("file:///d?keep=3", "file:///d?keep=3"),
        ] {
            assert_eq!(masked(&read(text), &["keep"]), shown);
        }
    }

    #[test]
    fn a_file_is_absolute_or_relative_and_must_be_named() {
        for (text, file) in [
            ("sqlite:///var/lib/a%20b.db", Some("/var/lib/a b.db")),
            ("sqlite://podlog.db", Some("podlog.db")),
            ("sqlite://a/b+c.db", Some("a/b+c.db")),
            ("sqlite://", None),
            ("sqlite:///var/lib/", None),
            ("sqlite:///d?mode=ro", None),
            ("sqlite://me@logs/x", None),
            ("sqlite://:pw@logs/x", None),
            ("sqlite:///%ff.db", None),
        ] {
            assert_eq!(sqlite(&read(text)), file.map(PathBuf::from), "{text}");
        }
    }
}
