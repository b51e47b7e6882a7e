//! Creating tables in `MySQL` or `MariaDB`, and finding out which version they have.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Error};
use tokio::time::timeout;
use url::Url;

use super::connect::{connect_unchecked, options};
use super::errors::{self, ErrorClass};
use super::server::SessionLimits;
use crate::db::database::Database;
use crate::db::schema::Schema;
use crate::db::version::SchemaState;
use crate::domain::BackendError;

/// How long another replica's migration is waited for, seconds.
const WAIT: u32 = 30;
/// How long all of a migration may take: the wait, and altering tables of some size.
const MIGRATION: Duration = Duration::from_mins(2);

/// A table that other replicas use may be altered when their transactions are done. Because a migration that gave up
/// waiting would have to be repaired by a person, it waits for long.
const LIMITS: SessionLimits = SessionLimits {
    connect: Duration::from_secs(10),
    lock_wait: Duration::from_secs(10),
    table_wait: Some(Duration::from_mins(1)),
    idle: MIGRATION,
    read: None,
};

/// The state of the tables.
pub(super) async fn state(conn: &mut MySqlConnection, schema: &Schema) -> Result<SchemaState, Error> {
    match sqlx::query_as(AssertSqlSafe(schema.applied())).fetch_all(conn).await {
        Ok(rows) => Ok(schema.state(rows, &schema.mysql.migrations)),
        Err(error) if errors::is_no_table(&error) => Ok(SchemaState::Missing),
        Err(error) => Err(error),
    }
}

/// Creates the tables, or brings them up to date. Any number of replicas may do so at once: one does, the others wait.
pub(crate) async fn migrate(url: &Url, db: &Database) -> Result<(), BackendError> {
    let options = options(url, db)?;
    let (mut conn, server) = connect_unchecked(&options, db, &LIMITS).await?;
    server.check(db, db.schema.demands.to_migrate)?;
    let done = timeout(MIGRATION, apply(&mut conn, db)).await.unwrap_or_else(|_| {
        Err(BackendError::unavailable(
            format!("migrating {} took longer than {} s", db.name, MIGRATION.as_secs()),
            "look at what the server is doing (SHOW PROCESSLIST), and try again",
        ))
    });
    if done.is_ok() {
        // Optional: dropping the connection frees the lock as well.
        timeout(Duration::from_secs(1), conn.close()).await.ok();
    }
    done
}

async fn apply(conn: &mut MySqlConnection, db: &Database) -> Result<(), BackendError> {
    // Before the lock is asked for: where nothing is to be done, no privilege to create tables is needed either.
    if is_done(conn, db).await? {
        return Ok(());
    }
    lock(conn, db).await?;
    // The replica that had the lock may have done it.
    if is_done(conn, db).await? {
        return Ok(());
    }
    let migrator = db.schema.migrator(&db.schema.mysql);
    // `run` cannot be named in a future that must be `Send`. This is what it calls.
    let done = migrator.run_direct(None, conn, false).await;
    done.map_err(|error| match error {
        // The version is recorded before the migration runs, and the server commits with each table that is created. So
        // another attempt finds an interrupted migration: only a person can help, whatever the error is.
        MigrateError::ExecuteMigration(error, _) if errors::classify(&error) != ErrorClass::Broken => {
            db.schema.migration_failed(&db.name, &errors::cause(&error))
        }
        other => db.schema.failed(&db.name, other, |error| errors::explain(db, error)),
    })
}

/// Whether migrating would change nothing. Refuses tables of a newer podlog, whose migrations sqlx does not know.
async fn is_done(conn: &mut MySqlConnection, db: &Database) -> Result<bool, BackendError> {
    let found = state(conn, db.schema).await;
    let found = found.map_err(|error| errors::explain(db, &error))?;
    if matches!(found, SchemaState::Newer(_)) {
        db.schema.check(&db.name, found)?;
    }
    Ok(found.is_done())
}

/// Keeps other migrations of these tables out; the lock goes with the connection.
async fn lock(conn: &mut MySqlConnection, db: &Database) -> Result<(), BackendError> {
    // The name must differ between databases of a server and fit into 64 characters: 14 + 1 + 40. (MySQL 9 has no MD5.)
    let what = db.schema.lock;
    let statement = format!("SELECT GET_LOCK(CONCAT('{what} ', LEFT(SHA2(DATABASE(), 256), 40)), ?)");
    let locked = sqlx::query_scalar(AssertSqlSafe(statement)).bind(WAIT);
    let locked: Option<i64> = locked
        .fetch_one(conn)
        .await
        .map_err(|error| errors::explain(db, &error))?;
    if locked != Some(1) {
        return Err(BackendError::unavailable(
            format!("another process has been migrating {} for {WAIT} s", db.name),
            "wait for it, or end it, and try again",
        ));
    }
    Ok(())
}
