//! Records in SQLite: the statements.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Error, Sqlite, query_as_with, query_with};

use super::batch;
use super::dialect::{LockedRow, SqlDialect, StatementLimits, Statements};
use crate::domain::Time;

/// The transaction's write lock covers the rows.
const LOCK: &str = "SELECT id, fence, time_ns, ordinal, hash, seq, uid, container, container_id FROM log_stream \
    WHERE id IN (SELECT value FROM json_each(?))";

static INSERTS: LazyLock<Vec<String>> = LazyLock::new(|| batch::inserts(|_| "?".into()));

const STATEMENTS: Statements = Statements {
    find: "SELECT id, fence, time_ns, ordinal, hash, seq, uid, container, container_id FROM log_stream \
        WHERE uid = ? AND container = ? AND container_id = ?",
    create: "INSERT INTO log_stream \
        (fence, labels, node, uid, container, container_id, namespace, pod, restart, created_at, updated_at) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, unixepoch(), unixepoch())",
    reopen: "UPDATE log_stream SET fence = ?, labels = ?, node = ?, updated_at = unixepoch() WHERE id = ?",
    insert_gap: "INSERT INTO log_gap (stream, seq, from_ns, to_ns, reason) VALUES (?, ?, ?, ?, ?) \
        ON CONFLICT (stream, seq) DO UPDATE SET to_ns = excluded.to_ns, reason = excluded.reason",
    advance: "UPDATE log_stream SET fence = now.value ->> 1, time_ns = now.value ->> 2, \
        ordinal = now.value ->> 3, hash = now.value ->> 4, seq = now.value ->> 5, updated_at = unixepoch() \
        FROM json_each(?) AS now WHERE log_stream.id = now.value ->> 0",
    old_streams: "SELECT s.id FROM log_stream s WHERE s.id > ? AND \
        (SELECT r.time_ns FROM log_record r WHERE r.stream = s.id ORDER BY r.stream, r.seq LIMIT 1) < ? \
        ORDER BY s.id LIMIT ?",
    old_end: "SELECT COALESCE(MIN(CASE WHEN time_ns >= ? THEN seq END), MAX(seq) + 1, 0) \
        FROM (SELECT seq, time_ns FROM log_record WHERE stream = ? ORDER BY seq LIMIT ?) AS first",
    delete_records: "DELETE FROM log_record WHERE stream = ? AND seq < ?",
    delete_gaps: "DELETE FROM log_gap WHERE stream = ? AND seq < ?",
    empty_streams: "SELECT s.id FROM log_stream s WHERE s.updated_at < MIN(?, unixepoch() - 86400) \
        AND NOT EXISTS (SELECT 1 FROM log_record r WHERE r.stream = s.id) ORDER BY s.id LIMIT ?",
    delete_stream: "DELETE FROM log_stream WHERE id = ? AND updated_at < unixepoch() - 86400 \
        AND NOT EXISTS (SELECT 1 FROM log_record r WHERE r.stream = log_stream.id)",
};

/// How long a statement waits for another process's transaction: less than an attempt's 5 s, so that the answer
/// says what it waited for.
pub(in crate::sinks) const BUSY: Duration = Duration::from_secs(4);

/// SQLite refuses values of more than 1,000,000,000 bytes; a chunk's text is far shorter. Up to 4 MiB are copied for a
/// statement.
const LIMITS: StatementLimits = StatementLimits {
    message: 1_000_000_000,
    statement: 4 << 20,
};

impl SqlDialect for Sqlite {
    const CONNECTIONS: u32 = 1;
    const IN_FLIGHT: usize = 1;
    const STATEMENTS: Statements = STATEMENTS;
    const SLOW: &'static str = "its disk is too slow or too busy";

    fn connection_limits(_: Duration) -> Duration {
        BUSY
    }

    /// Columns have no length here.
    fn idle_limit(_: Duration) -> Duration {
        Duration::from_hours(1)
    }

    fn is_too_long(_: &Error) -> bool {
        false
    }

    async fn limits(_: &mut SqliteConnection) -> Result<StatementLimits, Error> {
        Ok(LIMITS)
    }

    async fn stream_rows(
        conn: &mut SqliteConnection,
        text: &'static str,
        arguments: SqliteArguments,
    ) -> Result<Vec<LockedRow>, Error> {
        query_as_with(text, arguments).fetch_all(conn).await
    }

    async fn create(conn: &mut SqliteConnection, arguments: SqliteArguments) -> Result<i64, Error> {
        let done = query_with(STATEMENTS.create, arguments).execute(conn).await?;
        Ok(done.last_insert_rowid())
    }

    async fn lock(conn: &mut SqliteConnection, ids: &[i64]) -> Result<Vec<LockedRow>, Error> {
        let ids = serde_json::json!(ids).to_string();
        sqlx::query_as(LOCK).bind(ids).fetch_all(conn).await
    }

    fn inserts() -> &'static [String] {
        &INSERTS
    }

    fn updated_at(time: Time) -> i64 {
        time.floor_seconds()
    }
}

/// Writes a stream, a line and a gap. The number below zero does not move the table's own.
pub(in crate::sinks) const PROBE: [&str; 3] = [
    "INSERT INTO log_stream \
     (id, uid, container, container_id, namespace, pod, restart, labels, fence, created_at, updated_at) \
     VALUES (-1, 'podlog check', '', '', '', '', 0, '{}', 0, unixepoch(), unixepoch())",
    "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) VALUES (-1, 0, 0, 0, x'00')",
    "INSERT OR REPLACE INTO log_gap (stream, seq, reason) VALUES (-1, 0, 'deleted')",
];
