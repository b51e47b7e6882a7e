//! Creating tables in an `SQLite` file, and finding out which version they have.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Error};
use tokio::time::timeout;

use super::connect::{BEGIN, connect};
use super::errors;
use crate::db::database::Database;
use crate::db::schema::Schema;
use crate::db::version::SchemaState;
use crate::domain::BackendError;

/// How long a migration may take, the wait for those of other processes included.
const MIGRATION: Duration = Duration::from_secs(30);
/// How long other processes are waited for.
const BUSY: Duration = Duration::from_secs(20);

/// The state of the tables.
pub(crate) async fn state(conn: &mut SqliteConnection, schema: &Schema) -> Result<SchemaState, Error> {
    match sqlx::query_as(AssertSqlSafe(schema.applied())).fetch_all(conn).await {
        Ok(rows) => Ok(schema.state(rows, &schema.sqlite.migrations)),
        Err(error) if errors::is_no_table(&error) => Ok(SchemaState::Missing),
        Err(error) => Err(error),
    }
}

/// Creates the tables, or brings them up to date, all or none; creates the file if there is none. Any number of processes
/// may do so at once: one does, the others wait.
pub(crate) async fn migrate(path: &Path, db: &Database) -> Result<(), BackendError> {
    let work = async {
        let mut conn = connect(path, db, BUSY, true).await?;
        let done = apply(&mut conn, db).await;
        // Waits until it is closed. A connection that is dropped closes a moment later.
        timeout(Duration::from_secs(3), conn.close()).await.ok();
        done
    };
    timeout(MIGRATION, work).await.unwrap_or_else(|_| {
        Err(BackendError::unavailable(
            format!("migrating {} took longer than {} s", db.name, MIGRATION.as_secs()),
            "check whether another `podlog migrate` hangs or the disk is overloaded",
        ))
    })
}

async fn apply(conn: &mut SqliteConnection, db: &Database) -> Result<(), BackendError> {
    let explain = |error: Error| errors::explain(db, &error);
    let mut transaction = conn.begin_with(BEGIN).await.map_err(explain)?;
    let found = state(&mut transaction, db.schema).await.map_err(explain)?;
    // sqlx does not know the migrations of a newer podlog.
    if matches!(found, SchemaState::Newer(_)) {
        return db.schema.check(&db.name, found);
    }
    if found.is_done() {
        return Ok(());
    }
    let migrator = db.schema.migrator(&db.schema.sqlite);
    // `run` cannot be named in a future that must be `Send`. This is what it calls.
    let done = migrator.run_direct(None, &mut *transaction, false).await;
    done.map_err(|error| db.schema.failed(&db.name, error, |error| errors::explain(db, error)))?;
    transaction.commit().await.map_err(explain)
}
