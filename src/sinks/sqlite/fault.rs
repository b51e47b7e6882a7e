//! What a failure of SQLite means, and what a person can do about it.

use sqlx::Error;

use crate::sinks::SinkOpenError;

/// SQLite's primary result code; the bits above are details.
fn code(error: &Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

fn remedy(code: i32) -> Option<&'static str> {
    Some(match code {
        1 => "if a table is missing, run `podlog migrate`",
        3 | 23 => "the file's or directory's permissions forbid it; change them",
        5 | 6 => "another process holds the write lock for long; look for an open transaction on the file",
        8 => "the file or its directory is read-only; allow writing",
        10 => "the disk failed or has a limit; look at the system log",
        11 | 26 => "the file is damaged or not an SQLite database; restore it or begin a new one",
        13 => "the disk or a quota is full; free some space",
        14 => "the file or its directory cannot be opened; check that it exists and its permissions",
        _ => return None,
    })
}

/// The cause and the remedy, on one line.
pub(in crate::sinks) fn cause(error: &Error) -> String {
    match code(error).and_then(remedy) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// The failure as an answer to opening the sink: whether a person must change something.
pub(in crate::sinks) fn refusal(name: &str, error: &Error) -> SinkOpenError {
    let found = format!("{name}: {error}");
    let remedy = code(error).and_then(remedy).unwrap_or_default();
    match code(error) {
        Some(3 | 8 | 11 | 14 | 23 | 26) => SinkOpenError::refused(found, remedy),
        _ => SinkOpenError::unavailable(found, remedy),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

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
        assert!(
            cause(&error).ends_with("; the disk or a quota is full; free some space"),
            "{}",
            cause(&error)
        );
        let answer = refusal("records.db", &error);
        assert!(matches!(answer, SinkOpenError::Unavailable(_)), "{answer:?}");
    }
}
