//! The tables of the SQL sinks: bringing them up to date, and checking on opening that they are.
//!
//! What was applied is noted in a table of its own, so that the tables of claims, which may lie in the
//! same database, have their own versions. Opening a sink never changes a table.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, MySqlConnection, SqliteConnection};
use tokio::time::timeout;

use super::SinkOpenError;

static MYSQL: Migrator = sqlx::migrate!("migrations/mysql/records");
static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite/records");

/// Where applied migrations are noted.
const NOTES: &str = "podlog_records_schema";
const APPLIED: &str =
    "SELECT COUNT(*), MAX(version), COUNT(CASE WHEN NOT success THEN 1 END) FROM podlog_records_schema";

/// Creating five tables and views takes a second; another replica that is at it may be waited for.
const DEADLINE: Duration = Duration::from_mins(1);

/// Keeps a second migration out; the lock goes with the connection. `MariaDB` understands no wait without end, as
/// sqlx's own lock asks for, and lets everybody through. One name per database, within the 64 characters allowed.
const LOCK: &str = "SELECT GET_LOCK(CONCAT('podlog records ', LEFT(SHA2(DATABASE(), 256), 40)), ?)";

/// What the database says about its tables, and what this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    applied: Option<i64>,
    broken: bool,
    known: i64,
}

impl State {
    fn new(count: i64, applied: Option<i64>, failed: i64, migrator: &Migrator) -> Self {
        Self {
            applied: applied.filter(|_| count > 0),
            broken: failed > 0,
            known: migrator.iter().map(|m| m.version).max().unwrap_or(0),
        }
    }

    /// Refuses tables that are not the ones this program was made for.
    pub(super) fn check(self, name: &str) -> Result<(), SinkOpenError> {
        let known = self.known;
        let why = match self.applied {
            _ if self.broken => "a migration of the record tables failed half-way; drop the log_ tables and views and \
                podlog_records_schema, then run `podlog migrate`"
                .to_owned(),
            None => "the record tables do not exist; run `podlog migrate`".to_owned(),
            Some(version) if version < known => {
                format!("the record tables are of version {version}, this podlog needs {known}; run `podlog migrate`")
            }
            Some(version) if version > known => {
                format!("the record tables are of version {version}, this podlog knows {known}; install a newer podlog")
            }
            Some(_) => return Ok(()),
        };
        Err(SinkOpenError::Refused(format!("{name}: {why}")))
    }
}

/// The same migrations, noted in our own table.
fn ours(migrator: &Migrator) -> Migrator {
    let mut ours = Migrator::with_migrations(migrator.iter().cloned().collect());
    ours.dangerous_set_table_name(NOTES);
    ours
}

pub(super) async fn mysql_state(conn: &mut MySqlConnection) -> Result<State, sqlx::Error> {
    let (count, applied, failed) = match sqlx::query_as(APPLIED).fetch_one(conn).await {
        Ok(answer) => answer,
        Err(sqlx::Error::Database(error)) if missing(&*error) => (0, None, 0),
        Err(error) => return Err(error),
    };
    Ok(State::new(count, applied, failed, &MYSQL))
}

fn missing(error: &dyn sqlx::error::DatabaseError) -> bool {
    error
        .try_downcast_ref::<MySqlDatabaseError>()
        .is_some_and(|error| error.number() == 1146)
}

pub(super) async fn sqlite_state(conn: &mut SqliteConnection) -> Result<State, sqlx::Error> {
    let find = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
    let tables: i64 = sqlx::query_scalar(find).bind(NOTES).fetch_one(&mut *conn).await?;
    let (count, applied, failed) = if tables == 0 {
        (0, None, 0)
    } else {
        sqlx::query_as(APPLIED).fetch_one(conn).await?
    };
    Ok(State::new(count, applied, failed, &SQLITE))
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
        let done = ours(&MYSQL).run_direct(None, &mut conn, false).await;
        done.map_err(|error| failed(name, &error.into()))
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
        let done = ours(&SQLITE).run_direct(None, &mut *tx, false).await;
        done.map_err(|error| failed(name, &error.into()))?;
        tx.commit().await.map_err(|error| super::sqlite::refusal(name, &error))
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(late(name)))
}

fn failed(name: &str, error: &anyhow::Error) -> SinkOpenError {
    let why = format!(
        "{name}: the record tables could not be created: {error:#}; the user needs CREATE, CREATE VIEW, ALTER and INDEX"
    );
    SinkOpenError::Refused(why)
}

fn late(name: &str) -> SinkOpenError {
    let why =
        format!("{name}: creating the record tables took more than {DEADLINE:?}; does another `podlog migrate` hang?");
    SinkOpenError::Unavailable(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_do_not_fit_are_refused_with_a_remedy() {
        let refused = |count, applied, failed| {
            let state = State::new(count, applied, failed, &MYSQL);
            state.check("db").map_err(|error| error.to_string())
        };
        assert_eq!(refused(5, Some(205), 0), Ok(()));
        assert!(refused(0, None, 0).unwrap_err().contains("podlog migrate"));
        assert!(refused(1, Some(201), 0).unwrap_err().contains("needs 205"));
        assert!(refused(9, Some(300), 0).unwrap_err().contains("newer podlog"));
        assert!(refused(2, Some(202), 1).unwrap_err().contains("half-way"));
    }
}
