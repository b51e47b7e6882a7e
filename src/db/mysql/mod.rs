//! `MySQL` and `MariaDB`: what differs from other databases, and keeping other migrations out.

mod connect;
mod diagnose;
pub(crate) mod errors;
pub(crate) mod location;
mod relay;
pub(crate) mod server;
pub(crate) mod views;

use std::time::Duration;

use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::{Arguments as _, AssertSqlSafe, Error, Executor, MySql, query_scalar_with, query_with};

use self::location::Location;
use self::server::{Requirements, Server, SessionLimits};
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
    type Location = Location;
    type Limits = SessionLimits;
    type Requirements = Requirements;
    type Server = Server;

    const BEGIN: &'static str = "BEGIN";
    /// The longest pause leaves time for an attempt within a deadline of 3 s.
    const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
    /// MySQL can lock an account after some refused log-ins (`FAILED_LOGIN_ATTEMPTS`), MariaDB too (`max_password_errors`).
    const REFUSED_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));
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

    async fn connect(
        db: &Database<Self>,
        limits: &SessionLimits,
        purpose: Purpose,
    ) -> Result<(MySqlConnection, Server), BackendError> {
        let (conn, server) = connect::connect(db, limits).await?;
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

    fn secrets(db: &Database<Self>) -> u64 {
        db.location.secrets()
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
        if locked.map_err(|error| errors::no_lock(db, &error))? != Some(1) {
            return Err(BackendError::unavailable(
                format!("another process has been migrating {} for {MIGRATION_WAIT} s", db.name),
                "wait for it, or end it, and try again",
            ));
        }
        apply(conn, db).await
    }

    async fn after_migrations(conn: &mut MySqlConnection, db: &Database<Self>) {
        views::replace(conn, db).await;
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
