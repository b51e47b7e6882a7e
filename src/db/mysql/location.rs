//! Where a `MySQL` or `MariaDB` database is, and the driver's options for a connection to it.
//!
//! The file with the password is read for each connection, so a password that was changed needs no restart. (The driver
//! reads the files of certificates for each connection too.) Nothing here connects to anything.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::relay::Relays;
use crate::db::url::{ServerUrl, unreadable};
use crate::domain::Message;
use crate::net::bare;

/// A database of a server, and the relays to it.
#[derive(Debug)]
pub(crate) struct Location {
    url: ServerUrl,
    pub(super) relays: Relays,
}

impl From<ServerUrl> for Location {
    fn from(url: ServerUrl) -> Self {
        let relays = Relays::default();
        Self { url, relays }
    }
}

impl Location {
    /// The driver's options, with the password as it is now. `adds_modes`: the driver adds to the server's SQL mode.
    /// The character set is the one that the statements need, whatever the URL says.
    pub(super) fn options(&self, adds_modes: bool) -> Result<MySqlConnectOptions, Message> {
        let options = MySqlConnectOptions::from_url(&self.url.url).map_err(|error| unreadable(&error))?;
        let host = bare(options.get_host()).to_owned();
        let options = options
            .host(&host)
            .charset("utf8mb4")
            .pipes_as_concat(adds_modes)
            .no_engine_substitution(adds_modes)
            .disable_statement_logging();
        match &self.url.password_file {
            Some(file) => Ok(options.password(&file.read()?)),
            None => Ok(options),
        }
    }

    /// A number that changes when the file with the password does, also when it cannot be read any more.
    pub(super) fn secrets(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let password = self.url.password_file.as_ref().map(|file| file.read().ok());
        password.hash(&mut hasher);
        hasher.finish()
    }

    /// What `podlog check` says of a connection that may go over the network without TLS.
    pub(super) fn tls_warning(&self) -> Option<Message> {
        let options = MySqlConnectOptions::from_url(&self.url.url).ok()?;
        let host = bare(options.get_host());
        let address = host.parse::<std::net::IpAddr>();
        let is_local =
            options.get_socket().is_some() || host == "localhost" || address.is_ok_and(|ip| ip.is_loopback());
        if is_local {
            return None;
        }
        let harm = "passwords and log lines can be read on the way";
        match options.get_ssl_mode() {
            MySqlSslMode::Disabled => Some(Message::new(
                format!("ssl-mode=DISABLED: {harm}"),
                "set ssl-mode=VERIFY_IDENTITY and ssl-ca in the URL, or ssl-mode=REQUIRED",
            )),
            MySqlSslMode::Preferred => Some(Message::new(
                format!(
                    "ssl-mode=PREFERRED, the default: whoever is between podlog and {host} can turn TLS off, and then {harm}"
                ),
                "set ssl-mode=VERIFY_IDENTITY and ssl-ca in the URL, or at least ssl-mode=REQUIRED",
            )),
            _ => None,
        }
    }

    /// The part of a text about a refused log-in that says where the password comes from.
    pub(super) fn password_source(&self) -> String {
        match &self.url.password_file {
            Some(file) => format!("the file {file}, which is read for each connection"),
            None => "the settings".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::password::PasswordFile;

    fn location(url: &str) -> Location {
        Location::from(ServerUrl::from(url::Url::parse(url).unwrap()))
    }

    #[test]
    fn a_connection_to_another_host_that_may_do_without_tls_is_warned_of() {
        for (host, query, says) in [
            ("db", "", "PREFERRED"),
            ("db", "?ssl-mode=PREFERRED", "PREFERRED"),
            ("192.0.2.7", "?ssl-mode=DISABLED", "DISABLED"),
            ("[2001:db8::1]", "", "PREFERRED"),
            ("db", "?ssl-mode=REQUIRED", ""),
            ("db", "?ssl-mode=VERIFY_CA", ""),
            ("localhost", "", ""),
            ("127.0.0.2", "", ""),
            ("[::1]", "?ssl-mode=DISABLED", ""),
            ("db", "?socket=/run/mysqld.sock", ""),
        ] {
            let warning = location(&format!("mysql://u:secret@{host}/d{query}")).tls_warning();
            let text = warning.map_or(String::new(), |warning| warning.to_string());
            assert_eq!(text.is_empty(), says.is_empty(), "{host}{query}: {text}");
            assert!(text.contains(says) && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn an_address_of_ipv6_has_no_brackets_for_the_look_up_and_for_tls() {
        assert_eq!(
            location("mysql://u@[::1]:3306/d").options(true).unwrap().get_host(),
            "::1"
        );
    }

    #[test]
    fn the_password_is_the_one_that_the_file_has_now() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = url::Url::parse("mysql://u@db/d").unwrap();
        let location = Location::from(ServerUrl {
            password_file: Some(PasswordFile::new("FILE", file.path())),
            url,
        });
        let mut secrets = location.secrets();
        for (text, password) in [("first\n", "first"), (" second \r\n\n", " second ")] {
            std::fs::write(file.path(), text).unwrap();
            assert_ne!(std::mem::replace(&mut secrets, location.secrets()), secrets, "{text:?}");
            // The driver shows its password only here.
            let url = location.options(true).unwrap().to_url_lossy();
            let expected = url::form_urlencoded::byte_serialize(password.as_bytes()).collect::<String>();
            assert_eq!(url.password().map(|shown| shown.replace("%20", "+")), Some(expected));
        }
        file.close().unwrap();
        assert_ne!(location.secrets(), secrets, "the file is gone");
        let error = location.options(true).unwrap_err();
        assert!(
            error.text.starts_with("the file that FILE names cannot be read"),
            "{error}"
        );
    }
}
