//! Every statement of the SQLite sink, and nothing else.

use std::sync::LazyLock;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error};

use crate::domain::{Fence, Origin};
use crate::sinks::SinkError;
use crate::sinks::dedup::{Columns, GapRow, Record, Row};
use crate::sinks::sql::{self, labels};

/// The write lock is taken at the beginning: taking it later fails at once if another process wrote in between.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

const FIND: &str = "SELECT id, fence, time_ns, ordinal, hash, seq FROM log_stream \
    WHERE uid = ? AND container = ? AND container_id = ?";

const CREATE: &str = "INSERT INTO log_stream \
    (fence, labels, node, uid, container, container_id, namespace, pod, restart, created_at, updated_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, unixepoch(), unixepoch())";

const RAISE: &str = "UPDATE log_stream SET fence = ?, labels = ?, node = ?, updated_at = unixepoch() WHERE id = ?";

const GAP: &str = "INSERT INTO log_gap (stream, seq, from_ns, to_ns, reason) VALUES (?, ?, ?, ?, ?) \
    ON CONFLICT (stream, seq) DO UPDATE SET to_ns = excluded.to_ns, reason = excluded.reason";

const ROWS: &str = "SELECT id, fence, time_ns, ordinal, hash, seq FROM log_stream \
    WHERE id IN (SELECT value FROM json_each(?))";

const MOVE: &str = "UPDATE log_stream SET fence = now.value ->> 1, time_ns = now.value ->> 2, \
    ordinal = now.value ->> 3, hash = now.value ->> 4, seq = now.value ->> 5, updated_at = unixepoch() \
    FROM json_each(?) AS now WHERE log_stream.id = now.value ->> 0";

static INSERT: LazyLock<Vec<String>> =
    LazyLock::new(|| sql::inserts("INSERT INTO log_record (stream, seq, time_ns, ordinal, message, cut) VALUES "));

/// Bytes copied for one statement.
const STATEMENT_BYTES: usize = 4 << 20;

/// Writes a stream, a line and a gap; to be rolled back. The number below zero does not move the table's own.
pub(super) const PROBE: [&str; 3] = [
    "INSERT INTO log_stream \
     (id, uid, container, container_id, namespace, pod, restart, labels, fence, created_at, updated_at) \
     VALUES (-1, 'podlog check', '', '', '', '', 0, '{}', 0, unixepoch(), unixepoch())",
    "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) VALUES (-1, 0, 0, 0, x'00')",
    "INSERT OR REPLACE INTO log_gap (stream, seq, reason) VALUES (-1, 0, 'deleted')",
];

/// Creates the stream's row or raises its fence; one transaction, so that a writer under an older
/// claim has either finished or is refused.
pub(super) async fn open(
    conn: &mut SqliteConnection,
    origin: &Origin,
    fence: Fence,
) -> Result<Result<Row, SinkError>, Error> {
    let mut tx = conn.begin_with(BEGIN).await?;
    let stream = &origin.stream;
    let find = || {
        sqlx::query_as::<_, Columns>(FIND)
            .bind(stream.uid.as_str())
            .bind(&*stream.container)
            .bind(stream.container_id.as_str())
    };
    let row = match find().fetch_optional(&mut *tx).await?.map(Row::from) {
        Some(row) if row.fence > fence => return Ok(Err(SinkError::Fenced)),
        Some(row) => {
            let raise = sqlx::query(RAISE)
                .bind(fence.0.cast_signed())
                .bind(labels(origin))
                .bind(origin.node.as_deref())
                .bind(row.id);
            raise.execute(&mut *tx).await?;
            Row { fence, ..row }
        }
        None => create(&mut tx, origin, fence).await?,
    };
    tx.commit().await?;
    Ok(Ok(row))
}

async fn create(conn: &mut SqliteConnection, origin: &Origin, fence: Fence) -> Result<Row, Error> {
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
        .bind(i64::from(origin.restart))
        .execute(conn)
        .await?;
    Ok(Row {
        id: done.last_insert_rowid(),
        fence,
        position: None,
        seq: 0,
    })
}

/// The rows of these ids; the transaction's lock covers them. Rows that are gone are left out.
pub(super) async fn rows(conn: &mut SqliteConnection, ids: &[i64]) -> Result<Vec<Row>, Error> {
    let ids = serde_json::json!(ids).to_string();
    let rows: Vec<Columns> = sqlx::query_as(ROWS).bind(ids).fetch_all(conn).await?;
    Ok(rows.into_iter().map(Row::from).collect())
}

/// Inserts records.
pub(super) async fn insert(conn: &mut SqliteConnection, records: &[Record<'_>]) -> Result<(), Error> {
    let mut rest = records;
    while !rest.is_empty() {
        let power = sql::batch(rest, STATEMENT_BYTES);
        let (batch, after) = rest.split_at(1 << power);
        let mut query = sqlx::query(INSERT[power].as_str());
        for record in batch {
            query = query
                .bind(record.stream)
                .bind(record.seq)
                .bind(record.time)
                .bind(i64::from(record.ordinal))
                .bind(record.message)
                .bind(record.cut.cast_signed());
        }
        query.execute(&mut *conn).await?;
        rest = after;
    }
    Ok(())
}

/// Inserts gaps. One that is there already is the same again, or becomes one that ends where the new one does.
pub(super) async fn insert_gaps(conn: &mut SqliteConnection, gaps: &[GapRow]) -> Result<(), Error> {
    for row in gaps {
        sqlx::query(GAP)
            .bind(row.stream)
            .bind(row.seq)
            .bind(row.gap.from.map(|t| t.0))
            .bind(row.gap.to.map(|t| t.0))
            .bind(row.gap.reason.as_str())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Stores where the streams stand now.
pub(super) async fn advance(conn: &mut SqliteConnection, moved: &[Row]) -> Result<(), Error> {
    if !moved.is_empty() {
        sqlx::query(MOVE).bind(sql::positions(moved)).execute(conn).await?;
    }
    Ok(())
}
