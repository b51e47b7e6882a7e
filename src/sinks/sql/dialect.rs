//! What differs between the databases that records are stored in: the texts of the statements, and what the
//! server allows.
//!
//! Each database implements [`SqlDialect`] in a file of its own; CONTRIBUTING.md ("Add a database") lists what else it needs.
//! What is stored, and when, is decided outside: in `dedup`, `records` and `retention`.

use std::time::Duration;

use sqlx::Error;

use crate::db::database::DatabaseKind;
use crate::db::statement::Execute;
use crate::domain::{Fence, Position, StreamId, Time};
use crate::sinks::dedup::StreamRow;

/// A database that stores records.
pub(in crate::sinks) trait SqlDialect: DatabaseKind + Execute {
    /// Connections at most.
    const CONNECTIONS: u32;
    /// Groups of chunks that are written at the same time.
    const IN_FLIGHT: usize;
    /// The texts of the statements.
    const STATEMENTS: Statements;
    /// Why a database of this kind does not answer in time, for people.
    const SLOW: &'static str;

    /// How long connecting and statements wait, if an attempt to write may take `attempt`.
    fn connection_limits(attempt: Duration) -> Self::Limits;

    /// How long a connection is kept that nobody uses, if an attempt to write may take `attempt`.
    fn idle_limit(attempt: Duration) -> Duration;

    /// Whether a value is longer than its column: no later attempt can help.
    fn is_too_long(error: &Error) -> bool;

    /// What the server and the connection allow.
    fn limits(conn: &mut Self::Connection) -> impl Future<Output = Result<StatementLimits, Error>> + Send;

    /// The rows of `log_stream` that a query returns.
    fn stream_rows(
        conn: &mut Self::Connection,
        text: &'static str,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Vec<LockedRow>, Error>> + Send;

    /// Executes [`Statements::create`] and returns the id of the new row.
    fn create(
        conn: &mut Self::Connection,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<i64, Error>> + Send;

    /// The rows of these ids, which are sorted and differ, locked until the transaction ends. Rows that do not exist
    /// are left out.
    fn lock(conn: &mut Self::Connection, ids: &[i64]) -> impl Future<Output = Result<Vec<LockedRow>, Error>> + Send;

    /// The statements of [`batch::inserts`](super::batch::inserts).
    fn inserts() -> &'static [String];

    /// A time as `log_stream.updated_at` is compared with it by [`Statements::empty_streams`].
    fn updated_at(time: Time) -> i64;
}

/// The texts of the statements of one database. The values of each are listed in their order.
#[derive(Debug)]
pub(in crate::sinks) struct Statements {
    /// The row of a stream, locked until the transaction ends: uid, container, container id.
    pub(in crate::sinks) find: &'static str,
    /// Creates the row of a stream: fence, labels, node, uid, container, container id, namespace, pod, restart count.
    pub(in crate::sinks) create: &'static str,
    /// Sets a row's fence, and its labels and node as they are now: fence, labels, node, id.
    pub(in crate::sinks) reopen: &'static str,
    /// Inserts a gap, or replaces the end and the reason of the gap that is already there: stream, seq, from, to,
    /// reason.
    pub(in crate::sinks) insert_gap: &'static str,
    /// Stores fence, position and seq of rows: a JSON array of arrays of id, fence, time, ordinal, hash, seq.
    pub(in crate::sinks) advance: &'static str,
    /// Streams whose first record is old: ids above a stream, older than a time (nanoseconds), how many at most.
    pub(in crate::sinks) old_streams: &'static str,
    /// The end of the old records among the first ones of a stream, as the seq of the record after them: the
    /// time (nanoseconds), the stream, how many records at most.
    pub(in crate::sinks) old_end: &'static str,
    /// Deletes records: the stream, the seq of the first one that stays.
    pub(in crate::sinks) delete_records: &'static str,
    /// Deletes gaps: the stream, the seq of the first one that stays.
    pub(in crate::sinks) delete_gaps: &'static str,
    /// Streams that have no record, and were neither opened nor written since a time
    /// ([`SqlDialect::updated_at`]) and for a day: the time, how many at most.
    pub(in crate::sinks) empty_streams: &'static str,
    /// Deletes the row of a stream if it is still one of those: the stream.
    pub(in crate::sinks) delete_stream: &'static str,
}

/// How much a database takes at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::sinks) struct StatementLimits {
    /// Bytes of a message at most; longer ones are cut.
    pub(in crate::sinks) message: usize,
    /// Bytes of a statement of several records at most.
    pub(in crate::sinks) statement: usize,
}

/// A row of `log_stream`, locked until the transaction ends.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::sinks) struct LockedRow {
    pub(in crate::sinks) id: i64,
    fence: i64,
    time_ns: Option<i64>,
    ordinal: Option<i64>,
    hash: Option<i64>,
    seq: i64,
    // The stream that the row belongs to.
    uid: Vec<u8>,
    container: Vec<u8>,
    container_id: Vec<u8>,
}

impl From<&LockedRow> for StreamRow {
    fn from(row: &LockedRow) -> Self {
        let position = match (row.time_ns, row.ordinal, row.hash) {
            (Some(time), Some(ordinal), Some(hash)) => Some(Position {
                time: Time(time),
                ordinal: ordinal as u32,
                hash: hash.cast_unsigned(),
            }),
            _ => None,
        };
        Self {
            id: row.id,
            fence: Fence(row.fence.cast_unsigned()),
            position,
            seq: row.seq,
        }
    }
}

impl LockedRow {
    /// The row, if it is this stream's. A server that was failed over to, or restored from a backup, may have given
    /// the id that is remembered to another stream.
    pub(in crate::sinks) fn if_of(&self, stream: &StreamId) -> Option<StreamRow> {
        let same = self.uid == stream.uid.as_str().as_bytes()
            && self.container == stream.container.as_bytes()
            && self.container_id == stream.container_id.as_str().as_bytes();
        same.then(|| self.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixtures::origin;

    #[test]
    fn a_row_that_belongs_to_another_stream_now_is_not_used() {
        let stream = &origin("u1", "app").stream;
        let row = |uid: &[u8]| LockedRow {
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
        assert_eq!(row(b"u1").if_of(stream).map(|row| row.id), Some(7));
        assert_eq!(row(b"u2").if_of(stream), None);
    }
}
