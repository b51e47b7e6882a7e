//! Creating tables, and finding out which version they have.
//!
//! Applied migrations are recorded in a table of podlog's own, one for claims and one for records. So neither podlog's
//! other tables nor another program's migrations in the same database are taken for these.

use sqlx::Error;
use sqlx::migrate::{MigrateError, Migrator};
use tokio::time::timeout;

use super::database::{Database, DatabaseKind, ErrorClass, Purpose, Schema, Work, cause, close};
use super::version::SchemaState;
use crate::domain::BackendError;

/// The state of the tables.
pub(crate) async fn state<K: DatabaseKind>(conn: &mut K::Connection, schema: &Schema<K>) -> Result<SchemaState, Error> {
    let versions = schema.tables.versions;
    let statement = format!("SELECT version, description, success, checksum FROM {versions} ORDER BY version");
    match K::applied(conn, statement).await {
        Ok(applied) => Ok(schema.state(&applied)),
        Err(error) if K::is_no_table(&error) => Ok(SchemaState::Missing),
        Err(error) => Err(error),
    }
}

/// Creates the tables, or brings them up to date. Any number of replicas may do so at once: one does, the others wait.
pub(crate) async fn migrate<K: DatabaseKind>(db: &Database<K>) -> Result<(), BackendError> {
    let (mut conn, _) = K::connect(db, &K::MIGRATION_LIMITS, Purpose::Migrate).await?;
    let work = async {
        // Before others are kept out: where nothing is to be done, no privilege to create tables is needed either.
        if !is_done(&mut conn, db).await? {
            K::migrate_alone(&mut conn, db).await?;
        }
        K::after_migrations(&mut conn, db).await;
        Ok(())
    };
    let Ok(done) = timeout(K::MIGRATION, work).await else {
        return Err(K::timed_out(db, Work::Migrate, K::MIGRATION));
    };
    // After an error of a server the connection may be broken, and closing it would only delay the error.
    if done.is_ok() || K::ATOMIC_MIGRATIONS {
        close(conn).await;
    }
    done
}

/// Applies the migrations that are missing. The caller keeps other processes out.
pub(super) async fn apply<K: DatabaseKind>(conn: &mut K::Connection, db: &Database<K>) -> Result<(), BackendError> {
    // The process that was waited for may have done it.
    if is_done(conn, db).await? {
        return Ok(());
    }
    let Database { name, schema, .. } = db;
    let tables = schema.tables;
    let mut migrator = Migrator::with_migrations(schema.migrations.iter().cloned().collect());
    migrator.dangerous_set_table_name(tables.versions);
    // sqlx would wait without end for its own lock, and on MariaDB that keeps nobody out.
    migrator.set_locking(false);
    // `run` cannot be named in a future that must be `Send`. This is what it calls.
    let done = migrator.run_direct(None, conn, false).await;
    done.map_err(|error| match error {
        // The version is recorded before the migration runs, and the server commits with each table that is created. So
        // another attempt finds an interrupted migration: only a person can help, whatever the error is.
        MigrateError::ExecuteMigration(error, _)
            if !K::ATOMIC_MIGRATIONS && K::classify(&error) != ErrorClass::Broken =>
        {
            tables.migration_failed(name, &cause(&error))
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => K::explain(db, &error),
        other => tables.migration_refused(name, &other, schema.known()),
    })
}

/// Whether migrating would change nothing. Refuses tables of a newer podlog, whose migrations sqlx does not know.
async fn is_done<K: DatabaseKind>(conn: &mut K::Connection, db: &Database<K>) -> Result<bool, BackendError> {
    let found = state(conn, db.schema).await;
    let found = found.map_err(|error| K::explain(db, &error))?;
    if matches!(found, SchemaState::Newer(_)) {
        db.check(found)?;
    }
    Ok(found.is_done())
}
