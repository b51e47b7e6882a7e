//! The tables of the SQL sinks: bringing them up to date, and checking on opening that they are.
//!
//! What was applied is noted in a table of its own, so that the tables of claims, which may lie in the
//! same database, have their own versions. Opening a sink never changes a table. Which later tables suit is
//! the rule in `db::version`.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, MySqlConnection, SqliteConnection};
use tokio::time::timeout;

use super::SinkOpenError;
use crate::db::version::{Applied, SchemaState};

static MYSQL: Migrator = sqlx::migrate!("migrations/mysql/records");
static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite/records");

/// Where applied migrations are noted.
pub(super) const NOTES: &str = "podlog_records_migrations";
const APPLIED: &str = "SELECT version, description, success, checksum FROM podlog_records_migrations ORDER BY version";

/// A row of `APPLIED`.
type Noted = (i64, String, bool, Vec<u8>);

/// Creating five tables and views takes a second; another replica that is at it may be waited for.
const DEADLINE: Duration = Duration::from_mins(1);

/// Keeps a second migration out; the lock goes with the connection. `MariaDB` understands no wait without end, as
/// sqlx's own lock asks for, and lets everybody through. One name per database, within the 64 characters allowed.
const LOCK: &str = "SELECT GET_LOCK(CONCAT('podlog records ', LEFT(SHA2(DATABASE(), 256), 40)), ?)";

/// The last migration this program knows.
fn known(migrator: &Migrator) -> i64 {
    migrator.iter().map(|m| m.version).max().unwrap_or(0)
}

fn standing(noted: Vec<Noted>, migrator: &Migrator) -> SchemaState {
    let known = known(migrator);
    let same = |version: i64, checksum: &[u8]| {
        let ours = migrator.iter().find(|one| one.version == version);
        version > known || ours.is_some_and(|one| *one.checksum == *checksum)
    };
    let applied: Vec<Applied> = noted
        .into_iter()
        .map(|(version, description, success, checksum)| Applied {
            same: same(version, &checksum),
            version,
            description,
            success,
        })
        .collect();
    SchemaState::of(&applied, known)
}

/// Refuses tables that this program cannot work with.
pub(super) fn check(name: &str, standing: SchemaState) -> Result<(), SinkOpenError> {
    let known = known(&MYSQL);
    let (why, remedy) = match standing {
        SchemaState::Current | SchemaState::Extended(_) | SchemaState::Differs(_) => return Ok(()),
        SchemaState::Interrupted => (
            "a migration of the record tables failed half-way".to_owned(),
            "drop the log_ tables and views and podlog_records_migrations, then run `podlog migrate`",
        ),
        SchemaState::Missing => ("the record tables do not exist".to_owned(), "run `podlog migrate`"),
        SchemaState::Older(version) => (
            format!("the record tables are of version {version}, this podlog needs {known}"),
            "run `podlog migrate`",
        ),
        SchemaState::Newer(version) => (
            format!(
                "the record tables are of version {version}, which this podlog (it knows {known}) cannot work with"
            ),
            "run a newer podlog",
        ),
    };
    Err(SinkOpenError::refused(format!("{name}: {why}"), remedy))
}

/// The same migrations, noted in our own table.
fn ours(migrator: &Migrator) -> Migrator {
    let mut ours = Migrator::with_migrations(migrator.iter().cloned().collect());
    ours.dangerous_set_table_name(NOTES);
    ours
}

pub(super) async fn mysql_state(conn: &mut MySqlConnection) -> Result<SchemaState, sqlx::Error> {
    match sqlx::query_as(APPLIED).fetch_all(conn).await {
        Ok(noted) => Ok(standing(noted, &MYSQL)),
        Err(sqlx::Error::Database(error)) if missing(&*error) => Ok(SchemaState::Missing),
        Err(error) => Err(error),
    }
}

fn missing(error: &dyn sqlx::error::DatabaseError) -> bool {
    error
        .try_downcast_ref::<MySqlDatabaseError>()
        .is_some_and(|error| error.number() == 1146)
}

pub(super) async fn sqlite_state(conn: &mut SqliteConnection) -> Result<SchemaState, sqlx::Error> {
    let find = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
    let tables: i64 = sqlx::query_scalar(find).bind(NOTES).fetch_one(&mut *conn).await?;
    if tables == 0 {
        return Ok(SchemaState::Missing);
    }
    Ok(standing(sqlx::query_as(APPLIED).fetch_all(conn).await?, &SQLITE))
}

/// Creates or updates the tables in MySQL or MariaDB.
pub(super) async fn migrate_mysql(options: &MySqlConnectOptions, name: &str) -> Result<(), SinkOpenError> {
    let work = async {
        let conn = MySqlConnection::connect_with(options).await;
        let mut conn = conn.map_err(|error| super::mysql::refusal(name, &error))?;
        let lock = sqlx::query_scalar(LOCK).bind(DEADLINE.as_secs());
        let locked: Option<i64> = lock
            .fetch_one(&mut conn)
            .await
            .map_err(|error| super::mysql::refusal(name, &error))?;
        if locked != Some(1) {
            return Err(late(name));
        }
        // Where nothing is to be done, no right to make tables is needed; and tables that newer programs have
        // extended are left alone, which sqlx would call unknown.
        let found = mysql_state(&mut conn).await;
        let found = found.map_err(|error| super::mysql::refusal(name, &error))?;
        if matches!(found, SchemaState::Newer(_)) {
            return check(name, found);
        }
        if found.is_done() {
            return Ok(());
        }
        let done = ours(&MYSQL).run_direct(None, &mut conn, false).await;
        done.map_err(|error| failed(name, &error))
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(late(name)))
}

/// Creates the file if there is none, and creates or updates its tables.
pub(super) async fn migrate_sqlite(options: SqliteConnectOptions, name: &str) -> Result<(), SinkOpenError> {
    let work = async {
        let conn = SqliteConnection::connect_with(&options.create_if_missing(true)).await;
        let mut conn = conn.map_err(|error| super::sqlite::refusal(name, &error))?;
        // SQLite's migrator takes no lock of its own; the write lock keeps a second one out.
        let mut tx = conn
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(|error| super::sqlite::refusal(name, &error))?;
        let found = sqlite_state(&mut tx).await;
        let found = found.map_err(|error| super::sqlite::refusal(name, &error))?;
        if matches!(found, SchemaState::Newer(_)) {
            return check(name, found);
        }
        if found.is_done() {
            return Ok(());
        }
        let done = ours(&SQLITE).run_direct(None, &mut *tx, false).await;
        done.map_err(|error| failed(name, &error))?;
        tx.commit().await.map_err(|error| super::sqlite::refusal(name, &error))
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(late(name)))
}

fn failed(name: &str, error: &MigrateError) -> SinkOpenError {
    SinkOpenError::refused(
        format!("{name}: the record tables could not be created: {error}"),
        "the user needs CREATE, CREATE VIEW, ALTER and INDEX",
    )
}

fn late(name: &str) -> SinkOpenError {
    SinkOpenError::unavailable(
        format!("{name}: creating the record tables took more than {DEADLINE:?}"),
        "look whether another `podlog migrate` hangs",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_do_not_fit_are_refused_with_a_remedy() {
        let refused = |standing| check("db", standing).map_err(|error| error.to_string());
        assert_eq!(refused(SchemaState::Current), Ok(()));
        assert_eq!(refused(SchemaState::Extended(300)), Ok(()));
        assert!(refused(SchemaState::Missing).unwrap_err().contains("podlog migrate"));
        assert!(refused(SchemaState::Older(201)).unwrap_err().contains("needs 205"));
        assert!(refused(SchemaState::Newer(300)).unwrap_err().contains("newer podlog"));
        assert!(refused(SchemaState::Interrupted).unwrap_err().contains("half-way"));
    }

    #[test]
    fn what_was_made_by_our_own_texts_is_current_and_by_some_of_them_older() {
        for migrator in [&MYSQL, &SQLITE] {
            let noted = || {
                migrator
                    .iter()
                    .map(|m| (m.version, m.description.to_string(), true, m.checksum.to_vec()))
            };
            assert_eq!(standing(noted().collect(), migrator), SchemaState::Current);
            assert_eq!(standing(noted().take(2).collect(), migrator), SchemaState::Older(202));
        }
    }
}
