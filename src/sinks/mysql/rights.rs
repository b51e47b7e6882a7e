//! The rights that the MySQL sink needs, each with a statement that needs this right only and has no effect.

use sqlx::mysql::MySqlConnection;
use sqlx::{Error, Executor};

use super::fault::number;

/// A right on a table.
pub(super) struct Right {
    pub(super) verb: &'static str,
    pub(super) table: &'static str,
    /// Needed only for deleting old records.
    pub(super) retains: bool,
    pub(super) text: &'static str,
}

const fn need(verb: &'static str, table: &'static str, text: &'static str) -> Right {
    Right {
        verb,
        table,
        retains: false,
        text,
    }
}

const fn retain(verb: &'static str, table: &'static str, text: &'static str) -> Right {
    Right {
        verb,
        table,
        retains: true,
        text,
    }
}

/// All of them.
pub(super) const RIGHTS: [Right; 11] = [
    need("SELECT", "log_stream", "SELECT 1 FROM log_stream LIMIT 0"),
    need(
        "INSERT",
        "log_stream",
        "INSERT INTO log_stream (uid, container, container_id, namespace, pod, restart, labels, fence, created_at, updated_at) \
         SELECT '', '', '', '', '', 0, '{}', 0, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM DUAL WHERE 1 = 0",
    ),
    need("UPDATE", "log_stream", "UPDATE log_stream SET seq = 0 WHERE 1 = 0"),
    retain("DELETE", "log_stream", "DELETE FROM log_stream WHERE 1 = 0"),
    need(
        "INSERT",
        "log_record",
        "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) SELECT 0, 0, 0, 0, '' FROM DUAL WHERE 1 = 0",
    ),
    retain("SELECT", "log_record", "SELECT 1 FROM log_record LIMIT 0"),
    retain("DELETE", "log_record", "DELETE FROM log_record WHERE 1 = 0"),
    // To replace a gap that is there already.
    need("SELECT", "log_gap", "SELECT 1 FROM log_gap LIMIT 0"),
    need(
        "INSERT",
        "log_gap",
        "INSERT INTO log_gap (stream, seq, reason) SELECT 0, 0, '' FROM DUAL WHERE 1 = 0",
    ),
    need("UPDATE", "log_gap", "UPDATE log_gap SET reason = '' WHERE 1 = 0"),
    retain("DELETE", "log_gap", "DELETE FROM log_gap WHERE 1 = 0"),
];

/// Writes a stream, a line and a gap; to be rolled back. Parameter of each: the stream's number.
pub(super) const PROBE: [&str; 4] = [
    "INSERT INTO log_stream \
     (id, uid, container, container_id, namespace, pod, restart, labels, fence, created_at, updated_at) \
     VALUES (?, 'podlog check', UUID(), '', '', '', 0, '{}', 0, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) VALUES (?, 0, 0, 0, 'podlog check')",
    "INSERT INTO log_gap (stream, seq, reason) VALUES (?, 0, 'deleted') \
     ON DUPLICATE KEY UPDATE reason = VALUES(reason)",
    "UPDATE log_stream SET seq = 1 WHERE id = ?",
];

/// Fails with the first right that every replica needs and this user has not.
pub(super) async fn try_all(conn: &mut MySqlConnection) -> Result<(), Error> {
    for right in RIGHTS.iter().filter(|right| !right.retains) {
        conn.execute(right.text).await?;
    }
    Ok(())
}

/// No right to the statement, a column or the database.
pub(super) fn denied(error: &Error) -> bool {
    matches!(number(error), Some(1142 | 1143 | 1044))
}

/// A column is named twice: the right to create was there, the table was not to be.
pub(super) fn twice(error: &Error) -> bool {
    number(error) == Some(1060)
}
