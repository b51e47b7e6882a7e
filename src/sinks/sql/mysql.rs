//! Records in MySQL and MariaDB: the statements, and the privileges they need. Every statement works on MySQL 8.0 and later
//! and on MariaDB 10.6 and later. There are few texts: closing a prepared statement stalls the connection.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::{Error, MySql, query_as_with, query_with};

use super::batch;
use super::dialect::{LockedRow, SqlDialect, StatementLimits, Statements};
use crate::db::mysql::errors;
use crate::db::mysql::server::SessionLimits;
use crate::db::mysql::views::View;
use crate::db::schema::Privilege;
use crate::domain::Time;

/// Rows are locked in the order of their ids, so that two groups cannot wait for each other. Statements for 1, 8, 64 and
/// 512 ids; shorter lists repeat their last id.
static LOCK: LazyLock<[(usize, String); 4]> = LazyLock::new(|| {
    [1, 8, 64, 512].map(|size| {
        let placeholders = vec!["?"; size].join(",");
        let text = format!(
            "SELECT id, fence, time_ns, ordinal, hash, seq, uid, container, container_id \
             FROM log_stream FORCE INDEX (PRIMARY) WHERE id IN ({placeholders}) ORDER BY id FOR UPDATE"
        );
        (size, text)
    })
});

static INSERTS: LazyLock<Vec<String>> = LazyLock::new(|| batch::inserts(|_| "?".into()));

const STATEMENTS: Statements = Statements {
    find: "SELECT id, fence, time_ns, ordinal, hash, seq, uid, container, container_id FROM log_stream \
        WHERE uid = ? AND container = ? AND container_id = ? FOR UPDATE",
    create: "INSERT INTO log_stream \
        (fence, labels, node, uid, container, container_id, namespace, pod, restart, created_at, updated_at) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    reopen: "UPDATE log_stream SET fence = ?, labels = ?, node = ?, updated_at = UTC_TIMESTAMP(6) WHERE id = ?",
    insert_gap: "INSERT INTO log_gap (stream, seq, from_ns, to_ns, reason) VALUES (?, ?, ?, ?, ?) \
        ON DUPLICATE KEY UPDATE to_ns = VALUES(to_ns), reason = VALUES(reason)",
    // One statement for all streams of a group. The join order is fixed: if the server read all of `log_stream` instead, it
    // would lock rows of other writers.
    advance: "UPDATE JSON_TABLE(?, '$[*]' COLUMNS ( \
        id BIGINT PATH '$[0]', fence BIGINT PATH '$[1]', time_ns BIGINT PATH '$[2]', \
        ordinal BIGINT PATH '$[3]', hash BIGINT PATH '$[4]', seq BIGINT PATH '$[5]')) AS now \
        STRAIGHT_JOIN log_stream s ON s.id = now.id \
        SET s.fence = now.fence, s.time_ns = now.time_ns, s.ordinal = now.ordinal, s.hash = now.hash, s.seq = now.seq, \
        s.updated_at = UTC_TIMESTAMP(6)",
    // `ORDER BY r.stream, r.seq` makes the server read one record per stream; `ORDER BY r.seq` would make it sort all of
    // the stream's records.
    old_streams: "SELECT s.id FROM log_stream s WHERE s.id > ? AND \
        (SELECT r.time_ns FROM log_record r WHERE r.stream = s.id ORDER BY r.stream, r.seq LIMIT 1) < ? \
        ORDER BY s.id LIMIT ?",
    old_end: "SELECT COALESCE(MIN(CASE WHEN time_ns >= ? THEN seq END), MAX(seq) + 1, 0) \
        FROM (SELECT seq, time_ns FROM log_record WHERE stream = ? ORDER BY seq LIMIT ?) AS first",
    delete_records: "DELETE FROM log_record WHERE stream = ? AND seq < ?",
    delete_gaps: "DELETE FROM log_gap WHERE stream = ? AND seq < ?",
    empty_streams: "SELECT s.id FROM log_stream s \
        WHERE s.updated_at < LEAST(TIMESTAMPADD(MICROSECOND, ?, TIMESTAMP '1970-01-01 00:00:00'), \
            UTC_TIMESTAMP(6) - INTERVAL 1 DAY) \
        AND NOT EXISTS (SELECT 1 FROM log_record r WHERE r.stream = s.id) ORDER BY s.id LIMIT ?",
    delete_stream: "DELETE FROM log_stream WHERE id = ? AND updated_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY \
        AND NOT EXISTS (SELECT 1 FROM log_record r WHERE r.stream = log_stream.id)",
};

/// How long sessions wait, if an attempt to write may take `attempt`.
///
/// The server drops a connection, and with it an open transaction and its row locks, when nothing has come for two attempts
/// and 5 s: otherwise a replica that is frozen in the middle of a write would keep the next holder of the claim from the
/// streams for hours. With attempts of 5 s that is 15 s, sooner than its claims can be taken
/// (20 s ttl - 5 s renewal + 1 s grace = 16 s).
pub(in crate::sinks) const fn session_limits(attempt: Duration) -> SessionLimits {
    let silence = attempt.saturating_mul(2).saturating_add(Duration::from_secs(5));
    SessionLimits {
        connect: Duration::from_secs(10),
        // Ends before the attempt does, so that the connection survives. A statement that was given up would go on
        // waiting on the server, beside those of the next attempts.
        lock_wait: Duration::from_secs(3),
        table_wait: Some(Duration::from_secs(3)),
        idle: silence,
        read: Some(silence),
    }
}

/// A MEDIUMBLOB holds 2^24 - 1 bytes.
const LONGEST_MESSAGE: usize = (1 << 24) - 1;

/// Bytes of a packet that a statement needs beside one message.
pub(in crate::sinks) const PACKET_OVERHEAD: usize = 4096;

/// Bytes of one statement: some thousand lines. Larger ones are not faster.
const STATEMENT_BYTES: usize = 1 << 20;

impl SqlDialect for MySql {
    /// One for each group, one for streams that are opened, and one for retention.
    const CONNECTIONS: u32 = Self::IN_FLIGHT as u32 + 2;
    const IN_FLIGHT: usize = 3;
    const STATEMENTS: Statements = STATEMENTS;
    const SLOW: &'static str = "it is slow or unreachable";

    fn connection_limits(attempt: Duration) -> SessionLimits {
        session_limits(attempt)
    }

    /// The server drops it after twice that time: see [`session_limits`].
    fn idle_limit(attempt: Duration) -> Duration {
        attempt
    }

    fn is_too_long(error: &Error) -> bool {
        errors::is_too_long(error)
    }

    async fn limits(conn: &mut MySqlConnection) -> Result<StatementLimits, Error> {
        let packet: i64 = sqlx::query_scalar("SELECT CAST(@@max_allowed_packet AS SIGNED)")
            .fetch_one(conn)
            .await?;
        let packet = usize::try_from(packet).unwrap_or(usize::MAX);
        Ok(StatementLimits {
            message: packet.saturating_sub(PACKET_OVERHEAD).min(LONGEST_MESSAGE),
            statement: packet.min(STATEMENT_BYTES),
        })
    }

    async fn stream_rows(
        conn: &mut MySqlConnection,
        text: &'static str,
        arguments: MySqlArguments,
    ) -> Result<Vec<LockedRow>, Error> {
        query_as_with(text, arguments).fetch_all(conn).await
    }

    async fn create(conn: &mut MySqlConnection, arguments: MySqlArguments) -> Result<i64, Error> {
        let done = query_with(STATEMENTS.create, arguments).execute(conn).await?;
        Ok(done.last_insert_id().cast_signed())
    }

    async fn lock(conn: &mut MySqlConnection, ids: &[i64]) -> Result<Vec<LockedRow>, Error> {
        let mut rows = Vec::with_capacity(ids.len());
        for part in ids.chunks(512) {
            let (size, text) = LOCK.iter().find(|(size, _)| part.len() <= *size).unwrap_or(&LOCK[3]);
            let mut query = sqlx::query_as::<_, LockedRow>(text.as_str());
            for index in 0..*size {
                query = query.bind(part.get(index).or(part.last()));
            }
            rows.extend(query.fetch_all(&mut *conn).await?);
        }
        Ok(rows)
    }

    fn inserts() -> &'static [String] {
        &INSERTS
    }

    fn updated_at(time: Time) -> i64 {
        time.0 / 1000
    }
}

/// The views as the migrations make them, but with the rights of their readers.
pub(in crate::sinks) const VIEWS: [View; 2] = [
    View {
        name: "log_line",
        replace: "CREATE OR REPLACE SQL SECURITY INVOKER VIEW log_line AS \
            SELECT s.namespace, s.pod, CONVERT(s.container USING utf8mb4) AS container, CONVERT(s.uid USING \
            utf8mb4) AS uid, CONVERT(s.container_id USING utf8mb4) AS container_id, s.restart, \
            TIMESTAMPADD(MICROSECOND, r.time_ns DIV 1000, TIMESTAMP '1970-01-01 00:00:00') AS time, r.time_ns, \
            r.ordinal, r.seq, COALESCE(CONVERT(r.message USING utf8mb4), CONVERT(r.message USING latin1)) AS \
            message, r.cut FROM log_stream s JOIN log_record r ON r.stream = s.id",
    },
    View {
        name: "log_gaps",
        replace: "CREATE OR REPLACE SQL SECURITY INVOKER VIEW log_gaps AS \
            SELECT s.namespace, s.pod, CONVERT(s.container USING utf8mb4) AS container, CONVERT(s.uid USING \
            utf8mb4) AS uid, CONVERT(s.container_id USING utf8mb4) AS container_id, s.restart, \
            TIMESTAMPADD(MICROSECOND, g.from_ns DIV 1000, TIMESTAMP '1970-01-01 00:00:00') AS time_from, \
            TIMESTAMPADD(MICROSECOND, g.to_ns DIV 1000, TIMESTAMP '1970-01-01 00:00:00') AS time_to, g.reason, \
            g.seq AS before_seq FROM log_stream s JOIN log_gap g ON g.stream = s.id",
    },
];

/// Each privilege that the statements above need.
pub(in crate::sinks) const PRIVILEGES: [Privilege; 11] = [
    Privilege::needed("SELECT", "log_stream", "SELECT 1 FROM log_stream LIMIT 0"),
    Privilege::needed(
        "INSERT",
        "log_stream",
        "INSERT INTO log_stream (uid, container, container_id, namespace, pod, restart, labels, fence, created_at, updated_at) \
         SELECT '', '', '', '', '', 0, '{}', 0, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM DUAL WHERE 1 = 0",
    ),
    Privilege::needed("UPDATE", "log_stream", "UPDATE log_stream SET seq = 0 WHERE 1 = 0"),
    Privilege::for_retention("DELETE", "log_stream", "DELETE FROM log_stream WHERE 1 = 0"),
    Privilege::needed(
        "INSERT",
        "log_record",
        "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) SELECT 0, 0, 0, 0, '' FROM DUAL WHERE 1 = 0",
    ),
    Privilege::for_retention("SELECT", "log_record", "SELECT 1 FROM log_record LIMIT 0"),
    Privilege::for_retention("DELETE", "log_record", "DELETE FROM log_record WHERE 1 = 0"),
    // To replace a gap that is there already.
    Privilege::needed("SELECT", "log_gap", "SELECT 1 FROM log_gap LIMIT 0"),
    Privilege::needed(
        "INSERT",
        "log_gap",
        "INSERT INTO log_gap (stream, seq, reason) SELECT 0, 0, '' FROM DUAL WHERE 1 = 0",
    ),
    Privilege::needed("UPDATE", "log_gap", "UPDATE log_gap SET reason = '' WHERE 1 = 0"),
    Privilege::for_retention("DELETE", "log_gap", "DELETE FROM log_gap WHERE 1 = 0"),
];

/// Writes a stream, a line and a gap. The stream's number is below zero, so that the table's own numbering does not move,
/// and is the connection's, so that two checks do not meet.
pub(in crate::sinks) const PROBE: [&str; 4] = [
    "INSERT INTO log_stream \
     (id, uid, container, container_id, namespace, pod, restart, labels, fence, created_at, updated_at) \
     VALUES (-1 - CAST(CONNECTION_ID() AS SIGNED), 'podlog check', UUID(), '', '', '', 0, '{}', 0, \
     UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) \
     VALUES (-1 - CAST(CONNECTION_ID() AS SIGNED), 0, 0, 0, 'podlog check')",
    "INSERT INTO log_gap (stream, seq, reason) VALUES (-1 - CAST(CONNECTION_ID() AS SIGNED), 0, 'deleted') \
     ON DUPLICATE KEY UPDATE reason = VALUES(reason)",
    "UPDATE log_stream SET seq = 1 WHERE id = -1 - CAST(CONNECTION_ID() AS SIGNED)",
];
