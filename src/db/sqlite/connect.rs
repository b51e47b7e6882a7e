//! Opening an `SQLite` file.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use tokio::time::{Instant, sleep};

use super::errors;
use crate::db::database::Database;
use crate::domain::BackendError;

/// Takes the write lock when the transaction begins. Taking it later fails at once if another process wrote in between.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";

/// The pause before a busy file is opened again: shorter than creating the tables takes (some 50 ms).
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How the file is opened. `busy` is how long a statement waits for another process's transaction: less than the deadline
/// of the statement, so that the answer is "busy" and the connection can be used again.
#[must_use]
pub(crate) fn options(path: &Path, busy: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(busy)
        // Readers do not wait for the writer, and a commit is on disk when it returns.
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
}

/// Opens the file; creates it if it does not exist and `create` says so.
pub(crate) async fn connect(
    path: &Path,
    db: &Database,
    busy: Duration,
    create: bool,
) -> Result<SqliteConnection, BackendError> {
    check_path(path, db, create)?;
    let options = options(path, busy).create_if_missing(create);
    let give_up = Instant::now() + busy;
    loop {
        match options.connect().await {
            Ok(conn) => return Ok(conn),
            // While another process writes a file that is not in WAL mode yet, `SQLite` refuses the change to WAL mode
            // at once instead of waiting for `busy`. Processes that create the file together meet there.
            Err(error) if errors::is_busy(&error) && Instant::now() < give_up => sleep(BUSY_PAUSE).await,
            Err(error) => return Err(errors::explain(db, &error)),
        }
    }
}

/// Refuses what `SQLite` would only call "unable to open database file".
pub(super) fn check_path(path: &Path, db: &Database, create: bool) -> Result<(), BackendError> {
    let refused = |what: &str, remedy: &str| Err(BackendError::refused(format!("{} {what}", db.name), remedy));
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let what = format!("cannot be opened: there is no directory {}", folder.display());
        return refused(&what, "create it, or correct the URL");
    }
    if path.is_dir() {
        return refused("is a directory", "name a file in it");
    }
    if !create && !path.exists() {
        return refused("does not exist", "run `podlog migrate`, or correct the URL");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Executor};

    use super::*;
    use crate::db::fixtures::{CLAIMS, database};

    #[tokio::test]
    async fn a_file_that_another_process_is_creating_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("podlog.db");
        let other = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut other = other.connect().await.unwrap();
        other.execute("CREATE TABLE t (x)").await.unwrap();
        let transaction = other.begin_with(BEGIN).await.unwrap();
        let db = database(&CLAIMS);
        let opened = connect(&path, &db, Duration::from_secs(20), true);
        let finished = async {
            // Long enough for several attempts to open the file.
            sleep(Duration::from_millis(200)).await;
            transaction.commit().await
        };
        let (opened, finished) = tokio::join!(opened, finished);
        finished.unwrap();
        opened.unwrap();
    }
}
