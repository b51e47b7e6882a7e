//! The one connection of a store to its file: how it is opened, judged and replaced.
//!
//! A job either gives the connection back in order or it is closed, which rolls back what was begun.
//! Errors are told apart by `SQLite`'s result codes and explained in one line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::super::{LockError, STATEMENT_DEADLINE};

/// How long another process's transaction is waited for: below the statement deadline, so that the
/// answer is "busy" and the connection stays usable.
const BUSY: Duration = Duration::from_secs(2);

/// Work on a connection that may be done again from the start.
pub(super) trait Job: Sync {
    /// What it answers.
    type Answer: Send;
    /// Does it once.
    fn run(&self, conn: &mut SqliteConnection) -> impl Future<Output = Result<Self::Answer, sqlx::Error>> + Send;
}

/// A connection that is replaced when it breaks.
#[derive(Debug)]
pub(super) struct Session {
    path: PathBuf,
    slot: Mutex<Option<SqliteConnection>>,
}

impl Session {
    /// Opens the file; makes it when `create`.
    pub(super) async fn open(path: &Path, create: bool) -> Result<Self, LockError> {
        let conn = connect(path, create).await?;
        Ok(Self {
            path: path.into(),
            slot: Mutex::new(Some(conn)),
        })
    }

    /// Does a job within [`STATEMENT_DEADLINE`]. Waiting for the job before it is not counted.
    pub(super) async fn run<J: Job>(&self, job: &J) -> Result<J::Answer, LockError> {
        self.run_for(job, STATEMENT_DEADLINE).await
    }

    /// Does a job within `limit`.
    pub(super) async fn run_for<J: Job>(&self, job: &J, limit: Duration) -> Result<J::Answer, LockError> {
        let mut slot = self.slot.lock().await;
        let work = async {
            // Taken out while in use: when this future is dropped half-way, so is the connection.
            let mut conn = match slot.take() {
                Some(conn) => conn,
                None => connect(&self.path, false).await?,
            };
            match job.run(&mut conn).await {
                Ok(answer) => {
                    *slot = Some(conn);
                    Ok(answer)
                }
                Err(error) => {
                    // Busy is no fault of the connection; after anything else a new one is surer.
                    if kind(&error) == Some(BUSY_KIND) {
                        *slot = Some(conn);
                    }
                    Err(explain(&self.path, &error))
                }
            }
        };
        timeout(limit, work).await.unwrap_or_else(|_| {
            Err(LockError::unavailable(
                format!(
                    "the lock file {} did not answer within {} s",
                    self.path.display(),
                    limit.as_secs()
                ),
                "look whether the disk is overloaded",
            ))
        })
    }

    /// Closes the connection and waits until that is done; dropping it would close it a moment later.
    pub(super) async fn close(&self) {
        if let Some(conn) = self.slot.lock().await.take() {
            timeout(STATEMENT_DEADLINE, conn.close()).await.ok();
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

async fn connect(path: &Path, create: bool) -> Result<SqliteConnection, LockError> {
    check_place(path, create)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .busy_timeout(BUSY)
        // Readers do not wait for the writer, and a commit is on disk when it returns.
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    options.connect().await.map_err(|error| explain(path, &error))
}

/// Refuses what `SQLite` would only call "unable to open database file".
pub(super) fn check_place(path: &Path, create: bool) -> Result<(), LockError> {
    let refused = |what: &str, remedy: &str| {
        Err(LockError::refused(
            format!("the lock file {} {what}", path.display()),
            remedy,
        ))
    };
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

/// What to do about a failure that has no remedy of its own.
const DISK: &str = "look at the system log for failures of the disk";

/// `SQLITE_BUSY`.
const BUSY_KIND: u32 = 5;

/// The kind of a database error: the low byte of its code; the rest says which of its kind.
fn kind(error: &sqlx::Error) -> Option<u32> {
    Some(error.as_database_error()?.code()?.parse::<u32>().ok()? & 0xff)
}

/// Explains an error in one line.
pub(super) fn explain(path: &Path, error: &sqlx::Error) -> LockError {
    let name = format!("the lock file {}", path.display());
    let Some(database) = error.as_database_error() else {
        return LockError::unavailable(format!("{name} failed: {error}"), DISK);
    };
    let message = database.message();
    match kind(error).unwrap_or(1) {
        BUSY_KIND | 6 => LockError::unavailable(
            format!(
                "{name} is busy: another process has been writing for {} s",
                BUSY.as_secs()
            ),
            "end it if it hangs",
        ),
        8 => LockError::refused(
            format!("{name} is read-only"),
            "give this user the right to write the file and its directory",
        ),
        13 => LockError::unavailable(format!("{name} cannot grow: the disk is full"), "free some space"),
        14 => LockError::refused(
            format!("{name} cannot be opened: {message}"),
            "check the rights on the file and its directory",
        ),
        11 => LockError::refused(
            format!("{name} is damaged: {message}"),
            "restore it, or delete it and run `podlog migrate`",
        ),
        26 => LockError::refused(
            format!("{name} is not an SQLite database"),
            "correct the URL, or move the file away",
        ),
        1 if message.starts_with("no such table") => super::super::schema::missing(&name),
        1 => LockError::refused(
            format!("{name} refused a statement: {message}"),
            "undo what was changed in its tables by hand",
        ),
        _ => LockError::unavailable(format!("{name} failed: {message}"), DISK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_has_reached_its_size_is_named_as_a_full_disk_and_tried_again() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE t (x)").execute(&mut conn).await.unwrap();
        // No more pages than it has: what a full disk answers, without one.
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&mut conn)
            .await
            .unwrap();
        let insert = sqlx::query("INSERT INTO t VALUES (zeroblob(100000))");
        let error = insert.execute(&mut conn).await.unwrap_err();
        let error = explain(Path::new("/claims.db"), &error);
        assert!(matches!(error, LockError::Unavailable(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("the lock file /claims.db cannot grow: the disk is full"),
            "{text}"
        );
    }
}
