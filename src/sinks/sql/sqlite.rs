//! Records in SQLite: the statements.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Error, Sqlite};

use super::batch;
use super::dialect::{LockedRow, Purge, SqlDialect, StatementLimits};
use super::json::{labels, positions};
use crate::db::database::Database;
use crate::db::sqlite::connect::BEGIN;
use crate::db::sqlite::errors;
use crate::domain::{BackendError, Fence, Origin, StreamId, Time};
use crate::sinks::dedup::{NewGap, NewRecord, StreamColumns, StreamRow};

const FIND: &str = "SELECT id, fence, time_ns, ordinal, hash, seq FROM log_stream \
    WHERE uid = ? AND container = ? AND container_id = ?";

const CREATE: &str = "INSERT INTO log_stream \
    (fence, labels, node, uid, container, container_id, namespace, pod, restart, created_at, updated_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, unixepoch(), unixepoch())";

const REOPEN: &str = "UPDATE log_stream SET fence = ?, labels = ?, node = ?, updated_at = unixepoch() WHERE id = ?";

const INSERT_GAP: &str = "INSERT INTO log_gap (stream, seq, from_ns, to_ns, reason) VALUES (?, ?, ?, ?, ?) \
    ON CONFLICT (stream, seq) DO UPDATE SET to_ns = excluded.to_ns, reason = excluded.reason";

/// The transaction's write lock covers the rows.
const LOCK: &str = "SELECT id, fence, time_ns, ordinal, hash, seq, uid, container, container_id FROM log_stream \
    WHERE id IN (SELECT value FROM json_each(?))";

const ADVANCE: &str = "UPDATE log_stream SET fence = now.value ->> 1, time_ns = now.value ->> 2, \
    ordinal = now.value ->> 3, hash = now.value ->> 4, seq = now.value ->> 5, updated_at = unixepoch() \
    FROM json_each(?) AS now WHERE log_stream.id = now.value ->> 0";

static INSERT: LazyLock<Vec<String>> =
    LazyLock::new(|| batch::inserts("INSERT INTO log_record (stream, seq, time_ns, ordinal, message, cut) VALUES "));

const PURGE: Purge = Purge {
    old_streams: "SELECT s.id FROM log_stream s WHERE s.id > ? AND \
        (SELECT r.time_ns FROM log_record r WHERE r.stream = s.id ORDER BY r.stream, r.seq LIMIT 1) < ? \
        ORDER BY s.id LIMIT ?",
    old_end: "SELECT COALESCE(MIN(CASE WHEN time_ns >= ? THEN seq END), MAX(seq) + 1, 0) \
        FROM (SELECT seq, time_ns FROM log_record WHERE stream = ? ORDER BY seq LIMIT ?) AS first",
    records: "DELETE FROM log_record WHERE stream = ? AND seq < ?",
    gaps: "DELETE FROM log_gap WHERE stream = ? AND seq < ?",
    empty_streams: "SELECT s.id FROM log_stream s WHERE s.updated_at < MIN(?, unixepoch() - 86400) \
        AND NOT EXISTS (SELECT 1 FROM log_record r WHERE r.stream = s.id) ORDER BY s.id LIMIT ?",
    stream: "DELETE FROM log_stream WHERE id = ? AND updated_at < unixepoch() - 86400 \
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
    const BEGIN: &'static str = BEGIN;
    const PURGE: Purge = PURGE;
    const SLOW: &'static str = "its disk is too slow or too busy";

    fn explain(db: &Database, error: &Error) -> BackendError {
        errors::explain(db, error)
    }

    /// Columns have no length here.
    fn is_too_long(_: &Error) -> bool {
        false
    }

    async fn limits(_: &mut SqliteConnection) -> Result<StatementLimits, Error> {
        Ok(LIMITS)
    }

    async fn find(conn: &mut SqliteConnection, stream: &StreamId) -> Result<Option<StreamRow>, Error> {
        let found: Option<StreamColumns> = sqlx::query_as(FIND)
            .bind(stream.uid.as_str())
            .bind(&*stream.container)
            .bind(stream.container_id.as_str())
            .fetch_optional(conn)
            .await?;
        Ok(found.map(StreamRow::from))
    }

    async fn create(conn: &mut SqliteConnection, origin: &Origin, fence: Fence) -> Result<i64, Error> {
        let stream = &origin.stream;
        let done = sqlx::query(CREATE)
            .bind(fence.0.cast_signed())
            .bind(labels(origin))
            .bind(origin.node.as_deref())
            .bind(stream.uid.as_str())
            .bind(&*stream.container)
            .bind(stream.container_id.as_str())
            .bind(&*origin.namespace)
            .bind(&*origin.pod)
            .bind(i64::from(origin.restart_count))
            .execute(conn)
            .await?;
        Ok(done.last_insert_rowid())
    }

    async fn reopen(conn: &mut SqliteConnection, id: i64, origin: &Origin, fence: Fence) -> Result<(), Error> {
        sqlx::query(REOPEN)
            .bind(fence.0.cast_signed())
            .bind(labels(origin))
            .bind(origin.node.as_deref())
            .bind(id)
            .execute(conn)
            .await
            .map(drop)
    }

    async fn lock(conn: &mut SqliteConnection, ids: &[i64]) -> Result<Vec<LockedRow>, Error> {
        let ids = serde_json::json!(ids).to_string();
        sqlx::query_as(LOCK).bind(ids).fetch_all(conn).await
    }

    async fn insert(conn: &mut SqliteConnection, records: &[NewRecord<'_>]) -> Result<(), Error> {
        let mut query = sqlx::query(INSERT[records.len().ilog2() as usize].as_str());
        for record in records {
            query = query
                .bind(record.stream)
                .bind(record.seq)
                .bind(record.time)
                .bind(i64::from(record.ordinal))
                .bind(record.message)
                .bind(record.cut.cast_signed());
        }
        query.execute(conn).await.map(drop)
    }

    async fn insert_gap(conn: &mut SqliteConnection, row: &NewGap) -> Result<(), Error> {
        sqlx::query(INSERT_GAP)
            .bind(row.stream)
            .bind(row.seq)
            .bind(row.gap.from.map(|t| t.0))
            .bind(row.gap.to.map(|t| t.0))
            .bind(row.gap.reason.as_str())
            .execute(conn)
            .await
            .map(drop)
    }

    async fn advance(conn: &mut SqliteConnection, rows: &[StreamRow]) -> Result<(), Error> {
        sqlx::query(ADVANCE).bind(positions(rows)).execute(conn).await.map(drop)
    }

    async fn numbers(conn: &mut SqliteConnection, text: &'static str, parameters: &[i64]) -> Result<Vec<i64>, Error> {
        let query = sqlx::query_scalar(text);
        let query = parameters.iter().fold(query, |query, number| query.bind(*number));
        query.fetch_all(conn).await
    }

    async fn delete(conn: &mut SqliteConnection, text: &'static str, parameters: &[i64]) -> Result<u64, Error> {
        let query = sqlx::query(text);
        let query = parameters.iter().fold(query, |query, number| query.bind(*number));
        Ok(query.execute(conn).await?.rows_affected())
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
