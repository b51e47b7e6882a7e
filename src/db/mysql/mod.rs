//! `MySQL` and `MariaDB`: making a connection, checking that it can be used, and keeping other migrations out.

mod diagnose;
pub(crate) mod errors;
pub(crate) mod server;

use std::io;
use std::time::Duration;

use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions, Error, Executor, MySql, query_scalar_with, query_with};
use tokio::time::timeout;
use url::Url;

use self::server::{Requirements, Server, SessionLimits, prepare};
use super::database::{Database, DatabaseKind, DiagnoseOptions, ErrorClass, Purpose, Work};
use super::migrate::apply;
use super::statement::{Execute, Value};
use super::version::AppliedMigration;
use crate::domain::{BackendError, Finding};

/// How long another replica's migration is waited for, seconds.
const MIGRATION_WAIT: u32 = 30;
/// How long all of a migration may take: the wait, and altering tables of some size.
const MIGRATION: Duration = Duration::from_mins(2);

impl DatabaseKind for MySql {
    type Location = Url;
    type Limits = SessionLimits;
    type Requirements = Requirements;
    type Server = Server;

    const BEGIN: &'static str = "BEGIN";
    /// The longest pause leaves time for an attempt within a deadline of 3 s.
    const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
    /// A table that other replicas use may be altered when their transactions are done. Because a migration that gave up
    /// waiting would have to be repaired by a person, it waits for long.
    const MIGRATION_LIMITS: SessionLimits = SessionLimits {
        connect: Duration::from_secs(10),
        lock_wait: Duration::from_secs(10),
        table_wait: Some(Duration::from_mins(1)),
        idle: MIGRATION,
        read: None,
    };
    const MIGRATION: Duration = MIGRATION;
    const ATOMIC_MIGRATIONS: bool = false;

    /// Sets the character set and the SQL modes that the statements need, whatever the URL says.
    fn options(db: &Database<Self>, _: &SessionLimits) -> Result<MySqlConnectOptions, BackendError> {
        let options = MySqlConnectOptions::from_url(&db.location).map_err(|error| {
            BackendError::refused(format!("{} cannot be used: {error}", db.name), "correct the URL")
        })?;
        // The driver adds to the server's SQL mode, unless `prepare` sets a mode.
        let adds_modes = db.schema.requirements.settings.is_empty();
        Ok(options
            .charset("utf8mb4")
            .pipes_as_concat(adds_modes)
            .no_engine_substitution(adds_modes)
            .disable_statement_logging())
    }

    async fn connect(
        db: &Database<Self>,
        limits: &SessionLimits,
        purpose: Purpose,
    ) -> Result<(MySqlConnection, Server), BackendError> {
        let options = Self::options(db, limits)?;
        let attempt = async {
            let mut conn = match options.connect().await {
                Ok(conn) => conn,
                Err(error) => return Err(unreachable(&options, db, &error).await),
            };
            let prepared = async {
                prepare(&mut conn, limits, &db.schema.requirements).await?;
                Server::ask(&mut conn, limits).await
            };
            let server = prepared.await.map_err(|error| Self::explain(db, &error))?;
            Ok((conn, server))
        };
        let (conn, server) = timeout(limits.connect, attempt).await.unwrap_or_else(|_| {
            Err(BackendError::unavailable(
                format!("{} did not answer within {} s", db.name, limits.connect.as_secs()),
                "check that the address is right and the port open",
            ))
        })?;
        let requirements = &db.schema.requirements;
        server.check(
            db,
            match purpose {
                Purpose::Use => requirements.to_open,
                Purpose::Migrate => requirements.to_migrate,
                Purpose::Diagnose => &[],
            },
        )?;
        Ok((conn, server))
    }

    fn pool_options(
        pool: MySqlPoolOptions,
        db: &Database<Self>,
        limits: SessionLimits,
        deadline: Duration,
    ) -> MySqlPoolOptions {
        let requirements = &db.schema.requirements;
        pool
            // Checked once in this time, so that idle connections go before the server drops them.
            .idle_timeout(deadline)
            .after_connect(move |conn, _| Box::pin(async move { prepare(conn, &limits, requirements).await }))
    }

    fn classify(error: &Error) -> ErrorClass {
        errors::classify(error)
    }

    fn is_no_table(error: &Error) -> bool {
        errors::is_no_table(error)
    }

    fn explain(db: &Database<Self>, error: &Error) -> BackendError {
        errors::explain(db, error)
    }

    fn timed_out(db: &Database<Self>, work: Work, limit: Duration) -> BackendError {
        const OVERLOADED: &str = "check whether it is overloaded, or the network down";
        let (name, limit) = (&db.name, limit.as_secs());
        let text = format!("{name} did not answer within {limit} s");
        match work {
            Work::Open => BackendError::unavailable(text, OVERLOADED),
            Work::Job(step) => BackendError::unavailable(format!("{text} ({step})"), OVERLOADED),
            Work::Migrate => BackendError::unavailable(
                format!("migrating {name} took longer than {limit} s"),
                "look at what the server is doing (SHOW PROCESSLIST), and try again",
            ),
        }
    }

    async fn execute_text(conn: &mut MySqlConnection, statement: &'static str) -> Result<(), Error> {
        conn.execute(statement).await.map(drop)
    }

    async fn applied(conn: &mut MySqlConnection, statement: String) -> Result<Vec<AppliedMigration>, Error> {
        sqlx::query_as(AssertSqlSafe(statement)).fetch_all(conn).await
    }

    /// The lock goes with the connection.
    async fn migrate_alone(conn: &mut MySqlConnection, db: &Database<Self>) -> Result<(), BackendError> {
        // The name must differ between databases of a server and fit into 64 characters: 14 + 1 + 40. (MySQL 9 has no
        // MD5.)
        let what = db.schema.tables.lock;
        let statement = format!("SELECT GET_LOCK(CONCAT('{what} ', LEFT(SHA2(DATABASE(), 256), 40)), ?)");
        let locked = sqlx::query_scalar(AssertSqlSafe(statement)).bind(MIGRATION_WAIT);
        let locked: Result<Option<i64>, Error> = locked.fetch_one(&mut *conn).await;
        if locked.map_err(|error| Self::explain(db, &error))? != Some(1) {
            return Err(BackendError::unavailable(
                format!("another process has been migrating {} for {MIGRATION_WAIT} s", db.name),
                "wait for it, or end it, and try again",
            ));
        }
        apply(conn, db).await
    }

    async fn diagnose(db: &Database<Self>, options: DiagnoseOptions) -> Vec<Finding> {
        super::server::diagnose(db, options).await
    }
}

impl Execute for MySql {
    fn bind(arguments: &mut MySqlArguments, value: &Value<'_>) -> Result<(), BoxDynError> {
        match *value {
            Value::Number(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text),
            // These columns hold bytes, so they are compared with bytes.
            Value::Name(name) => arguments.add(name.as_bytes()),
            Value::Bytes(bytes) => arguments.add(bytes),
        }
    }

    async fn execute(conn: &mut MySqlConnection, text: &'static str, arguments: MySqlArguments) -> Result<u64, Error> {
        Ok(query_with(text, arguments).execute(conn).await?.rows_affected())
    }

    async fn numbers(
        conn: &mut MySqlConnection,
        text: &'static str,
        arguments: MySqlArguments,
    ) -> Result<Vec<i64>, Error> {
        query_scalar_with(text, arguments).fetch_all(conn).await
    }
}

/// Distinguishes an unknown host, which a person must correct, from a server that is down.
async fn unreachable(options: &MySqlConnectOptions, db: &Database<MySql>, error: &Error) -> BackendError {
    match error {
        // The handshake's own error comes wrapped.
        Error::Io(cause) if is_handshake(cause) => lasting(db, format!("{} {NO_TLS}: {cause}", db.name), TLS_REMEDY),
        Error::Io(cause) if options.get_socket().is_none() => {
            let host = options.get_host();
            let lookup = tokio::net::lookup_host((host, options.get_port())).await;
            not_found_or_down(db, host, cause, lookup.err())
        }
        Error::Tls(cause) => BackendError::refused(format!("{} {NO_TLS}: {cause}", db.name), TLS_REMEDY),
        other => MySql::explain(db, other),
    }
}

const NO_TLS: &str = "did not agree on TLS";
const TLS_REMEDY: &str = "check ssl-mode and ssl-ca in the URL";

fn is_handshake(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// The error of a server that was not reached, given the error of looking up its host.
fn not_found_or_down(db: &Database<MySql>, host: &str, cause: &io::Error, lookup: Option<io::Error>) -> BackendError {
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
fn lasting(db: &Database<MySql>, text: String, remedy: &str) -> BackendError {
    if db.schema.requirements.final_connect_errors {
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
    use crate::db::database::Schema;
    use crate::{locks, sinks};

    fn database(schema: &'static Schema<MySql>) -> Database<MySql> {
        Database::new("db", "mysql://h/d".parse().unwrap(), schema)
    }

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
        let (claims, records) = (database(&locks::schema::MYSQL), database(&sinks::schema::MYSQL));
        let is_final = |error: &BackendError| matches!(error, BackendError::Refused(_));
        let unknown = |db: &Database<MySql>, why: &str| {
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
