//! Making a connection to `MySQL` or `MariaDB`, and checking that it can be used.

use std::io;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Error};
use tokio::time::timeout;
use url::Url;

use super::errors;
use super::server::{Server, SessionLimits, prepare};
use crate::db::database::Database;
use crate::domain::BackendError;

/// Options from a URL. What the statements rely on is not left to the URL.
pub(crate) fn options(url: &Url, db: &Database) -> Result<MySqlConnectOptions, BackendError> {
    let options = MySqlConnectOptions::from_url(url)
        .map_err(|error| BackendError::refused(format!("{} cannot be used: {error}", db.name), "correct the URL"))?;
    // The driver adds to the server's SQL mode, unless `prepare` sets a mode.
    let adds_modes = db.schema.demands.settings.is_empty();
    Ok(options
        .charset("utf8mb4")
        .pipes_as_concat(adds_modes)
        .no_engine_substitution(adds_modes)
        .disable_statement_logging())
}

/// Makes a connection, and checks server and session.
pub(crate) async fn connect(
    options: &MySqlConnectOptions,
    db: &Database,
    limits: &SessionLimits,
) -> Result<(MySqlConnection, Server), BackendError> {
    let (conn, server) = connect_unchecked(options, db, limits).await?;
    server.check(db, db.schema.demands.to_open)?;
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
            prepare(&mut conn, limits, &db.schema.demands).await?;
            Server::ask(&mut conn, limits).await
        };
        let server = prepared.await.map_err(|error| errors::explain(db, &error))?;
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
    match error {
        // The handshake's own error comes wrapped.
        Error::Io(cause) if is_handshake(cause) => lasting(db, format!("{} {NO_TLS}: {cause}", db.name), TLS_REMEDY),
        Error::Io(cause) if options.get_socket().is_none() => {
            let host = options.get_host();
            let lookup = tokio::net::lookup_host((host, options.get_port())).await;
            not_found_or_down(db, host, cause, lookup.err())
        }
        Error::Tls(cause) => BackendError::refused(format!("{} {NO_TLS}: {cause}", db.name), TLS_REMEDY),
        other => errors::explain(db, other),
    }
}

const NO_TLS: &str = "did not agree on TLS";
const TLS_REMEDY: &str = "check ssl-mode and ssl-ca in the URL";

fn is_handshake(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// The error of a server that was not reached, given the error of looking up its host.
fn not_found_or_down(db: &Database, host: &str, cause: &io::Error, lookup: Option<io::Error>) -> BackendError {
    let name = &db.name;
    match lookup {
        Some(lookup) if !is_temporary(&lookup.to_string()) => lasting(
            db,
            format!("{name} cannot be found: {host} has no address ({lookup})"),
            "correct the host in the URL",
        ),
        _ => BackendError::unavailable(
            format!("{name} cannot be reached: {cause}"),
            "check that it runs, and that firewalls and network policies let podlog through",
        ),
    }
}

/// An error that rarely goes away by itself. Whether connecting is tried again depends on the use of the database.
fn lasting(db: &Database, text: String, remedy: &str) -> BackendError {
    if db.schema.demands.final_connect_errors {
        BackendError::refused(text, remedy)
    } else {
        BackendError::unavailable(text, remedy)
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
    use crate::db::fixtures::{CLAIMS, RECORDS, database};

    #[test]
    fn a_name_server_that_does_not_answer_is_not_taken_for_an_unknown_host() {
        let text = |why: &str| format!("failed to lookup address information: {why}");
        assert!(is_temporary(&text("Temporary failure in name resolution")));
        assert!(is_temporary(&text("Try again")));
        assert!(!is_temporary(&text("Name or service not known")));
        assert!(!is_temporary(&text("Name does not resolve")));
    }

    #[tokio::test]
    async fn an_unknown_host_and_a_failed_handshake_are_final_for_claims_and_tried_again_for_records() {
        let (claims, records) = (database(&CLAIMS), database(&RECORDS));
        let is_final = |error: &BackendError| matches!(error, BackendError::Refused(_));
        let unknown = |db: &Database, why: &str| {
            let lookup = io::Error::other(format!("failed to lookup address information: {why}"));
            not_found_or_down(db, "h", &io::Error::other("down"), Some(lookup))
        };
        let says = "Name or service not known";
        assert!(is_final(&unknown(&claims, says)) && !is_final(&unknown(&records, says)));
        for db in [&claims, &records] {
            let text = unknown(db, says).to_string();
            assert!(
                text.contains("h has no address") && text.ends_with("correct the host in the URL"),
                "{text}"
            );
            assert!(!is_final(&unknown(db, "Temporary failure in name resolution")));
        }
        let handshake = Error::Io(io::Error::other(rustls::Error::DecryptError));
        let options = MySqlConnectOptions::new();
        let failed = unreachable(&options, &claims, &handshake).await;
        assert!(is_final(&failed) && failed.to_string().contains("TLS"), "{failed}");
        let failed = unreachable(&options, &records, &handshake).await;
        assert!(!is_final(&failed) && failed.to_string().contains("TLS"), "{failed}");
    }
}
