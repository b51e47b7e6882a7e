//! Making a connection to a server: the name, the route, TLS, the log-in, the session. Each step says itself what is wrong
//! with it, so that nobody looks for a closed port where a log-in is slow.
//!
//! An outage of any step may pass; only what a person must change is refused. Nothing here tries again.

use std::io;
use std::path::PathBuf;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions as _, Error, MySql, Row as _};
use tokio::time::{Instant, timeout_at};

use super::errors::explain;
use super::server::{Server, SessionLimits, prepare};
use crate::db::database::Database;
use crate::domain::{BackendError, Message};
use crate::net;

/// The plug-ins by which the driver can log in.
const PLUGINS: &str = "mysql_native_password, or with TLS caching_sha2_password or sha256_password";

/// Plug-ins that need the password itself, or remember that they have seen it.
const NEED_TLS: [&str; 2] = ["caching_sha2_password", "sha256_password"];

/// Makes a connection and a session on it within [`SessionLimits::connect`], which counts for the way to the server and
/// once more for what the server answers.
pub(super) async fn connect(
    db: &Database<MySql>,
    limits: &SessionLimits,
) -> Result<(MySqlConnection, Server), BackendError> {
    let name = &db.name;
    let adds_modes = db.schema.requirements.settings.is_empty();
    let options = db
        .location
        .options(adds_modes)
        .map_err(|Message { text, remedy }| BackendError::refused(format!("{name} cannot be used: {text}"), remedy))?;
    let options = if options.get_socket().is_none() {
        let socket = dial(db, &options, limits).await?;
        options.socket(socket)
    } else {
        options
    };
    let deadline = Instant::now() + limits.connect;
    let slow = |step: &str, remedy: &str| {
        let text = format!(
            "{name} was reached, but {step} took longer than {} s",
            limits.connect.as_secs()
        );
        BackendError::unavailable(text, remedy)
    };
    let Ok(logged_in) = timeout_at(deadline, options.connect()).await else {
        return Err(slow(
            "its log-in",
            "check whether the server or a proxy before it is overloaded, and whether the server looks client names up in a \
             slow DNS (skip_name_resolve); attempts that are given up may make it block this host (max_connect_errors)",
        ));
    };
    let mut conn = logged_in.map_err(|error| refused_log_in(db, &error))?;
    let session = async {
        prepare(&mut conn, limits, &db.schema.requirements).await?;
        let server = Server::ask(&mut conn, limits).await?;
        Ok((server, plugin_without_tls(&mut conn).await?))
    };
    let Ok(session) = timeout_at(deadline, session).await else {
        return Err(slow(
            "its first answer",
            "look at what the server is doing (SHOW PROCESSLIST)",
        ));
    };
    let (server, plugin) = session.map_err(|error: Error| explain(db, &error))?;
    match plugin {
        Some(plugin) => Err(needs_tls(db, &plugin)),
        None => Ok((conn, server)),
    }
}

/// Connects to the server, and returns the socket that leads there.
async fn dial(
    db: &Database<MySql>,
    options: &MySqlConnectOptions,
    limits: &SessionLimits,
) -> Result<PathBuf, BackendError> {
    let name = &db.name;
    let server = net::connect(options.get_host(), options.get_port(), limits.connect).await;
    let server = server
        .map_err(|error| BackendError::unavailable(format!("{name} cannot be reached: {error}"), error.remedy()))?;
    db.location.relays.relay(server).map_err(|error| {
        let text = format!("no connection to {name} could be set up: {error}");
        BackendError::unavailable(text, "raise the limit of open files (`ulimit -n`)")
    })
}

/// Explains an error of the log-in.
fn refused_log_in(db: &Database<MySql>, error: &Error) -> BackendError {
    let name = &db.name;
    match error {
        // The handshake's own error comes wrapped.
        Error::Io(cause) if is_handshake(cause) => no_tls(db, cause),
        Error::Tls(cause) => no_tls(db, cause),
        Error::Io(cause) => BackendError::unavailable(
            format!("{name} was reached and closed the connection before the log-in: {cause}"),
            "check that this is the port of a MySQL or MariaDB server, and the error log of the server",
        ),
        // sqlx has no variant for them; these are its words.
        Error::Protocol(text) if text.contains("authentication plugin") => BackendError::refused(
            format!("{name} demands a way to log in that podlog does not have: {text}"),
            format!("let the user log in by {PLUGINS} (ALTER USER)"),
        ),
        Error::Configuration(text) if text.to_string().contains("RSA") => needs_tls(db, NEED_TLS[0]),
        other => explain(db, other),
    }
}

fn is_handshake(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// Certificates are replaced on the two sides at different times, so this may pass.
fn no_tls(db: &Database<MySql>, cause: impl std::fmt::Display) -> BackendError {
    BackendError::unavailable(
        format!("{} did not agree on TLS: {cause}", db.name),
        "check ssl-mode and ssl-ca in the URL, and the certificate of the server",
    )
}

/// The user's plug-in, if the connection has no TLS and the plug-in works without it only while the server remembers an
/// earlier log-in. Nothing where the server does not say.
async fn plugin_without_tls(conn: &mut MySqlConnection) -> Result<Option<String>, Error> {
    let cipher: Option<(String, String)> = sqlx::query_as("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        .fetch_optional(&mut *conn)
        .await?;
    if cipher.is_some_and(|(_, cipher)| !cipher.is_empty()) {
        return Ok(None);
    }
    // A user may see this of itself; the hash of the password is left out. MariaDB does not have these plug-ins.
    let shown = sqlx::query("SHOW CREATE USER CURRENT_USER()")
        .fetch_optional(conn)
        .await;
    let shown: Option<String> = match shown {
        Ok(row) => row.and_then(|row| row.try_get_unchecked(0).ok()),
        Err(Error::Database(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(shown.as_deref().and_then(plugin_that_needs_tls).map(str::to_owned))
}

/// The plug-in of a `CREATE USER` statement, if it needs TLS.
fn plugin_that_needs_tls(statement: &str) -> Option<&'static str> {
    let (_, after) = statement.split_once("IDENTIFIED WITH ")?;
    let plugin = after.trim_start_matches(['\'', '`']);
    NEED_TLS.into_iter().find(|name| {
        let rest = plugin.strip_prefix(name);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

fn needs_tls(db: &Database<MySql>, plugin: &str) -> BackendError {
    BackendError::refused(
        format!(
            "{}: the user logs in by {plugin}, which works without TLS only until the server restarts or forgets the log-in",
            db.name
        ),
        "set ssl-mode=REQUIRED in the URL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::url::ServerUrl;
    use crate::locks::schema;

    fn database() -> Database<MySql> {
        let url = ServerUrl::from(url::Url::parse("mysql://h/d").unwrap());
        Database::new("db", url.into(), &schema::MYSQL)
    }

    #[test]
    fn a_failed_log_in_says_whose_fault_it_is_and_only_what_a_person_must_change_is_refused() {
        let protocol = |text: &str| Error::Protocol(text.to_owned());
        for (error, refused, says) in [
            (
                Error::Io(io::Error::other(rustls::Error::DecryptError)),
                false,
                "did not agree on TLS",
            ),
            (Error::Tls("x".into()), false, "did not agree on TLS"),
            (
                Error::Io(io::ErrorKind::UnexpectedEof.into()),
                false,
                "before the log-in",
            ),
            (
                protocol("unknown authentication plugin: client_ed25519"),
                true,
                "client_ed25519",
            ),
            (
                protocol("unknown authentication plugin: auth_gssapi_client"),
                true,
                "mysql_native_password",
            ),
            (protocol("something else"), false, "db failed"),
            (
                Error::Configuration("RSA auth backend disabled".into()),
                true,
                "ssl-mode=REQUIRED",
            ),
        ] {
            let explained = refused_log_in(&database(), &error);
            let is_refused = matches!(explained, BackendError::Refused(_));
            assert_eq!(is_refused, refused, "{explained}");
            assert!(explained.to_string().contains(says), "{explained}");
        }
    }

    #[test]
    fn a_plug_in_that_needs_tls_is_told_from_the_statement_that_creates_the_user() {
        for (statement, plugin) in [
            (
                "CREATE USER `u`@`%` IDENTIFIED WITH 'caching_sha2_password' AS <secret> REQUIRE NONE",
                Some("caching_sha2_password"),
            ),
            (
                "CREATE USER `u`@`%` IDENTIFIED WITH sha256_password",
                Some("sha256_password"),
            ),
            (
                "CREATE USER `u`@`%` IDENTIFIED WITH 'mysql_native_password' AS '*0'",
                None,
            ),
            ("CREATE USER `u`@`%` IDENTIFIED WITH 'caching_sha2_password_x'", None),
            ("CREATE USER `u`@`%` IDENTIFIED BY PASSWORD '*0'", None),
            ("", None),
        ] {
            assert_eq!(plugin_that_needs_tls(statement), plugin, "{statement}");
        }
    }
}
