//! Every statement of the MySQL sink, and nothing else. Each is understood by MySQL 8 and later and by
//! MariaDB 10.6 and later, and there are few texts: closing a prepared statement stalls the connection.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Error, Executor};

use crate::domain::{Fence, Origin, StreamId};
use crate::sinks::SinkError;
use crate::sinks::dedup::{Columns, GapRow, Record, Row};
use crate::sinks::sql::{self, labels};

/// Waiting for a row lock ends before the whole attempt does, so that the connection survives.
/// READ COMMITTED takes no locks on gaps between rows, so that writers of different streams never meet.
pub(super) const SESSION: [&str; 2] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 3",
];

const CIPHER: &str = "SHOW SESSION STATUS LIKE 'Ssl_cipher'";
const PACKET: &str = "SELECT CAST(@@max_allowed_packet AS SIGNED)";

const FIND: &str = "SELECT id, fence, time_ns, ordinal, hash, seq FROM log_stream \
    WHERE uid = ? AND container = ? AND container_id = ? FOR UPDATE";

const CREATE: &str = "INSERT INTO log_stream \
    (fence, labels, node, uid, container, container_id, namespace, pod, restart, created_at, updated_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))";

const RAISE: &str = "UPDATE log_stream SET fence = ?, labels = ?, node = ?, updated_at = UTC_TIMESTAMP(6) WHERE id = ?";

const GAP: &str = "INSERT INTO log_gap (stream, seq, from_ns, to_ns, reason) VALUES (?, ?, ?, ?, ?) \
    ON DUPLICATE KEY UPDATE to_ns = VALUES(to_ns), reason = VALUES(reason)";

/// One statement for all streams of a group. The join is told its order: reading the whole of
/// `log_stream` instead would lock rows of other writers.
const MOVE: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS ( \
        id BIGINT PATH '$[0]', fence BIGINT PATH '$[1]', time_ns BIGINT PATH '$[2]', \
        ordinal BIGINT PATH '$[3]', hash BIGINT PATH '$[4]', seq BIGINT PATH '$[5]')) AS now \
    STRAIGHT_JOIN log_stream s ON s.id = now.id \
    SET s.fence = now.fence, s.time_ns = now.time_ns, s.ordinal = now.ordinal, s.hash = now.hash, s.seq = now.seq, \
        s.updated_at = UTC_TIMESTAMP(6)";

/// Rows are locked in the order of their ids, so that two groups cannot wait for each other. Short
/// lists are filled up by repeating the last id.
static LOCK: LazyLock<[(usize, String); 4]> = LazyLock::new(|| {
    [1, 8, 64, 512].map(|size| {
        let marks = vec!["?"; size].join(",");
        let text = format!(
            "SELECT id, fence, time_ns, ordinal, hash, seq, uid, container, container_id \
             FROM log_stream FORCE INDEX (PRIMARY) WHERE id IN ({marks}) ORDER BY id FOR UPDATE"
        );
        (size, text)
    })
});

static INSERT: LazyLock<Vec<String>> =
    LazyLock::new(|| sql::inserts("INSERT INTO log_record (stream, seq, time_ns, ordinal, message, cut) VALUES "));

/// Bytes of one statement. The client's sockets wait for an acknowledgement before they send a second
/// small packet (Nagle's algorithm; sqlx 0.9.0 does not turn it off), and the server delays that by 40 ms.
/// Over TLS each record of 16 KiB is a packet of its own, so there a statement is to fit into one:
/// measured 5,200 lines/s with large statements, 60,000 with these. Without TLS a statement is one packet.
const PLAIN_BYTES: usize = 1 << 20;
const TLS_BYTES: usize = 15 << 10;

/// What the server allows and the connection takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// The largest statement the server accepts, bytes.
    pub(super) packet: usize,
    /// Statements of several rows are kept below this, bytes.
    pub(super) statement: usize,
}

/// Asks the server.
pub(super) async fn sizes(conn: &mut MySqlConnection) -> Result<Sizes, Error> {
    let packet: i64 = sqlx::query_scalar(PACKET).fetch_one(&mut *conn).await?;
    let packet = usize::try_from(packet).unwrap_or(usize::MAX);
    let cipher: Option<(String, String)> = sqlx::query_as(CIPHER).fetch_optional(conn).await?;
    let plain = cipher.is_none_or(|(_, cipher)| cipher.is_empty());
    let statement = packet.min(if plain { PLAIN_BYTES } else { TLS_BYTES });
    Ok(Sizes { packet, statement })
}

/// Lets the server drop the connection when nothing has come for so long, between statements or within one.
pub(super) async fn limit_silence(conn: &mut MySqlConnection, longest: Duration) -> Result<(), Error> {
    let seconds = longest.as_secs().max(1);
    // As text, which takes one exchange; a prepared statement takes two.
    let set = format!("SET SESSION wait_timeout = {seconds}, net_read_timeout = {seconds}");
    conn.execute(AssertSqlSafe(set)).await.map(drop)
}

/// Creates the stream's row or raises its fence; one transaction, so that a writer under an older
/// claim has either finished or is refused.
pub(super) async fn open(
    conn: &mut MySqlConnection,
    origin: &Origin,
    fence: Fence,
) -> Result<Result<Row, SinkError>, Error> {
    let mut tx = conn.begin().await?;
    let stream = &origin.stream;
    let found: Option<Columns> = sqlx::query_as(FIND)
        .bind(stream.uid.as_str().as_bytes())
        .bind(stream.container.as_bytes())
        .bind(stream.container_id.as_str().as_bytes())
        .fetch_optional(&mut *tx)
        .await?;
    let row = match found.map(Row::from) {
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

async fn create(conn: &mut MySqlConnection, origin: &Origin, fence: Fence) -> Result<Row, Error> {
    let StreamId {
        uid,
        container,
        container_id,
    } = &origin.stream;
    let done = sqlx::query(CREATE)
        .bind(fence.0.cast_signed())
        .bind(labels(origin))
        .bind(origin.node.as_deref())
        .bind(uid.as_str().as_bytes())
        .bind(container.as_bytes())
        .bind(container_id.as_str().as_bytes())
        .bind(&*origin.namespace)
        .bind(&*origin.pod)
        .bind(origin.restart)
        .execute(conn)
        .await?;
    Ok(Row {
        id: done.last_insert_id().cast_signed(),
        fence,
        position: None,
        seq: 0,
    })
}

/// A row that is locked, and the instance that it is of.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Locked {
    pub(super) id: i64,
    fence: i64,
    time_ns: Option<i64>,
    ordinal: Option<i64>,
    hash: Option<i64>,
    seq: i64,
    uid: Vec<u8>,
    container: Vec<u8>,
    container_id: Vec<u8>,
}

impl Locked {
    /// The row, if it is this stream's. A server that was failed over to, or restored, may have given the id that is
    /// remembered to another stream.
    pub(super) fn of(&self, stream: &StreamId) -> Option<Row> {
        let same = self.uid == stream.uid.as_str().as_bytes()
            && self.container == stream.container.as_bytes()
            && self.container_id == stream.container_id.as_str().as_bytes();
        same.then(|| (self.id, self.fence, self.time_ns, self.ordinal, self.hash, self.seq).into())
    }
}

/// Locks the rows of these ids, which are sorted and differ. Rows that are gone are left out.
pub(super) async fn lock(conn: &mut MySqlConnection, ids: &[i64]) -> Result<Vec<Locked>, Error> {
    let mut rows = Vec::with_capacity(ids.len());
    for part in ids.chunks(512) {
        let (size, text) = LOCK.iter().find(|(size, _)| part.len() <= *size).unwrap_or(&LOCK[3]);
        let mut query = sqlx::query_as::<_, Locked>(text.as_str());
        for place in 0..*size {
            query = query.bind(part.get(place).or(part.last()));
        }
        rows.extend(query.fetch_all(&mut *conn).await?);
    }
    Ok(rows)
}

/// Inserts records, as many in one statement as `limit` bytes allow, and at least one.
pub(super) async fn insert(conn: &mut MySqlConnection, records: &[Record<'_>], limit: usize) -> Result<(), Error> {
    let mut rest = records;
    while !rest.is_empty() {
        let power = sql::batch(rest, limit);
        let (batch, after) = rest.split_at(1 << power);
        let mut query = sqlx::query(INSERT[power].as_str());
        for record in batch {
            query = query
                .bind(record.stream)
                .bind(record.seq)
                .bind(record.time)
                .bind(record.ordinal)
                .bind(record.message)
                .bind(record.cut.cast_signed());
        }
        query.execute(&mut *conn).await?;
        rest = after;
    }
    Ok(())
}

/// Inserts gaps. One that is there already is the same again, or becomes one that ends where the new one does.
pub(super) async fn insert_gaps(conn: &mut MySqlConnection, gaps: &[GapRow]) -> Result<(), Error> {
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
pub(super) async fn advance(conn: &mut MySqlConnection, moved: &[Row]) -> Result<(), Error> {
    if !moved.is_empty() {
        sqlx::query(MOVE).bind(sql::positions(moved)).execute(conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::probe::origin;

    #[test]
    fn a_row_that_has_become_another_streams_is_not_written_to() {
        let stream = &origin("u1", "app").stream;
        let row = |uid: &[u8]| Locked {
            id: 7,
            fence: 3,
            time_ns: None,
            ordinal: None,
            hash: None,
            seq: 0,
            uid: uid.to_vec(),
            container: stream.container.as_bytes().to_vec(),
            container_id: stream.container_id.as_str().as_bytes().to_vec(),
        };
        assert_eq!(row(b"u1").of(stream).map(|row| row.id), Some(7));
        assert_eq!(row(b"u2").of(stream), None);
    }
}
