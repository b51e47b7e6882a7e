//! Making a connection to `MySQL` or `MariaDB`, and checking that it can be used.

use std::fmt::Display;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Error};
use tokio::time::timeout;
use url::Url;

use super::fault;
use super::server::{Server, SessionLimits, prepare};
use crate::db::database::Database;
use crate::domain::BackendError;

/// Options from a URL. What the statements rely on is not left to the URL; [`prepare`] sets the SQL mode.
pub fn options(url: &Url, db: &Database) -> Result<MySqlConnectOptions, BackendError> {
    let options = MySqlConnectOptions::from_url(url)
        .map_err(|error| BackendError::refused(format!("{} cannot be used: {error}", db.name), "correct the URL"))?;
    Ok(options
        .charset("utf8mb4")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .disable_statement_logging())
}

/// Makes a connection, and checks server and session.
pub async fn connect(
    options: &MySqlConnectOptions,
    db: &Database,
    limits: &SessionLimits,
) -> Result<(MySqlConnection, Server), BackendError> {
    let (conn, server) = connect_unchecked(options, db, limits).await?;
    server.check(&db.name)?;
    Ok((conn, server))
}

/// Makes a connection to any server, whether it can be used or not.
pub(super) async fn connect_unchecked(
    options: &MySqlConnectOptions,
    db: &Database,
    limits: &SessionLimits,
) -> Result<(MySqlConnection, Server), BackendError> {
    let attempt = async {
        let mut conn = match options.connect().await {
            Ok(conn) => conn,
            Err(error) => return Err(unreachable(options, db, &error).await),
        };
        let prepared = async {
            prepare(&mut conn, limits).await?;
            Server::ask(&mut conn, limits).await
        };
        let server = prepared.await.map_err(|error| fault::explain(db, &error))?;
        Ok((conn, server))
    };
    match timeout(limits.connect, attempt).await {
        Ok(made) => made,
        Err(_) => Err(unanswered(db, limits)),
    }
}

fn unanswered(db: &Database, limits: &SessionLimits) -> BackendError {
    BackendError::unavailable(
        format!("{} did not answer within {} s", db.name, limits.connect.as_secs()),
        "check that the address is right and the port open",
    )
}

/// Distinguishes an unknown host, which a person must correct, from a server that is down.
async fn unreachable(options: &MySqlConnectOptions, db: &Database, error: &Error) -> BackendError {
    let name = &db.name;
    let tls = |cause: &dyn Display| {
        BackendError::refused(
            format!("{name} did not agree on TLS: {cause}"),
            "check ssl-mode and ssl-ca in the URL",
        )
    };
    match error {
        // The handshake's own error comes wrapped.
        Error::Io(cause) if matches!(cause.get_ref(), Some(inner) if inner.is::<rustls::Error>()) => tls(cause),
        Error::Io(cause) if options.get_socket().is_none() => {
            let host = options.get_host();
            match tokio::net::lookup_host((host, options.get_port())).await {
                Err(lookup) if !is_temporary(&lookup.to_string()) => BackendError::refused(
                    format!("{name} cannot be found: {host} has no address ({lookup})"),
                    "correct the host in the URL",
                ),
                _ => BackendError::unavailable(
                    format!("{name} cannot be reached: {cause}"),
                    "check that it runs, and that firewalls and network policies let podlog through",
                ),
            }
        }
        Error::Tls(cause) => tls(cause),
        other => fault::explain(db, other),
    }
}

/// Whether a failed look-up of a host may succeed later: no name server answered. The resolver of glibc calls that a
/// `Temporary failure in name resolution`, that of musl `Try again`; there is no better sign of it than the text.
fn is_temporary(lookup: &str) -> bool {
    lookup.contains("Temporary failure") || lookup.contains("Try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_that_does_not_answer_is_not_taken_for_an_unknown_host() {
        let text = |why: &str| format!("failed to lookup address information: {why}");
        assert!(is_temporary(&text("Temporary failure in name resolution")));
        assert!(is_temporary(&text("Try again")));
        assert!(!is_temporary(&text("Name or service not known")));
        assert!(!is_temporary(&text("Name does not resolve")));
    }
}
