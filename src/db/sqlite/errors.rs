//! What an error of `SQLite` means for the caller.
//!
//! Errors are told apart by their result code. Only code 1, which stands for any error in a statement, is told apart by its
//! text. Nothing here logs or retries.

use sqlx::Error;

use crate::db::database::Database;
use crate::domain::BackendError;

/// `SQLITE_BUSY`.
const BUSY: u32 = 5;

/// The primary result code of an error: the low byte. The bits above are details.
fn code(error: &Error) -> Option<u32> {
    Some(error.as_database_error()?.code()?.parse::<u32>().ok()? & 0xff)
}

/// Whether another process wrote for longer than the connection waits. The connection can be used again.
pub(super) fn is_busy(error: &Error) -> bool {
    code(error) == Some(BUSY)
}

/// Whether a table does not exist.
pub(super) fn is_no_table(error: &Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.message().starts_with("no such table"))
}

/// Explains an error in one line.
#[must_use]
pub(crate) fn explain(db: &Database, error: &Error) -> BackendError {
    const DISK: &str = "look at the system log for failures of the disk";
    let name = &db.name;
    if matches!(error, Error::PoolTimedOut) {
        return BackendError::unavailable(
            format!("{name} did not answer: earlier statements still occupy its only connection"),
            "check whether the disk is overloaded or another process holds the file",
        );
    }
    let Some(database) = error.as_database_error() else {
        return BackendError::unavailable(format!("{name} failed: {error}"), DISK);
    };
    let message = database.message();
    match code(error).unwrap_or(1) {
        1 if is_no_table(error) => db.schema.missing_table(name, message),
        1 => BackendError::refused(
            format!("{name} refused a statement: {message}"),
            "undo what was changed in its tables by hand",
        ),
        3 | 23 => BackendError::refused(
            format!("{name} may not be used: {message}"),
            "change the permissions of the file and its directory",
        ),
        BUSY | 6 => BackendError::unavailable(
            format!("{name} is busy: another process has been writing for long"),
            "end it if it hangs",
        ),
        8 => BackendError::refused(
            format!("{name} is read-only"),
            "give this user the right to write the file and its directory",
        ),
        11 => BackendError::refused(
            format!("{name} is damaged: {message}"),
            "restore it, or delete it and run `podlog migrate`",
        ),
        13 => BackendError::unavailable(
            format!("{name} cannot grow: the disk or a quota is full"),
            "free some space",
        ),
        14 => BackendError::refused(
            format!("{name} cannot be opened: {message}"),
            "check that it exists, and the permissions of the file and its directory",
        ),
        26 => BackendError::refused(
            format!("{name} is not an SQLite database"),
            "correct the URL, or move the file away",
        ),
        // 10 is a failed read or write.
        _ => BackendError::unavailable(format!("{name} failed: {message}"), DISK),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn a_file_that_cannot_grow_is_a_full_disk_and_may_be_tried_again() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE t (x)").execute(&mut conn).await.unwrap();
        // No more pages than it has: what a full disk answers, without one.
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&mut conn)
            .await
            .unwrap();
        let insert = sqlx::query("INSERT INTO t VALUES (zeroblob(100000))");
        let error = insert.execute(&mut conn).await.unwrap_err();
        let db = Database {
            name: "the lock store sqlite:///claims.db".into(),
            schema: &crate::db::fixtures::CLAIMS,
        };
        let error = explain(&db, &error);
        assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the lock store sqlite:///claims.db cannot grow: the disk or a quota is full; free some space"
        );
    }
}
