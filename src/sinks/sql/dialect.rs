//! What differs between the databases that records are stored in: the statements, and what the server allows.
//!
//! To support another database, implement [`SqlDialect`] for its driver in a file of its own. What is stored, and when, is
//! decided outside: in `dedup`, `records` and `retention`.

use sqlx::Error;

use crate::db::database::Database;
use crate::domain::{BackendError, Fence, Origin, StreamId, Time};
use crate::sinks::dedup::{NewGap, NewRecord, StreamRow};

/// The statements of one database. They run on a connection that is in a transaction, unless they only read.
pub(in crate::sinks) trait SqlDialect: sqlx::Database {
    /// Begins a transaction that writes.
    const BEGIN: &'static str;
    /// The statements that delete old records.
    const PURGE: Purge;
    /// Why a database of this kind does not answer in time, for people.
    const SLOW: &'static str;

    /// The failure and its remedy, for people.
    fn explain(db: &Database, error: &Error) -> BackendError;

    /// Whether a value is longer than its column: no later attempt can help.
    fn is_too_long(error: &Error) -> bool;

    /// What the server and the connection allow.
    fn limits(conn: &mut Self::Connection) -> impl Future<Output = Result<StatementLimits, Error>> + Send;

    /// The stream's row, locked until the transaction ends.
    fn find(
        conn: &mut Self::Connection,
        stream: &StreamId,
    ) -> impl Future<Output = Result<Option<StreamRow>, Error>> + Send;

    /// Creates the stream's row and returns its id.
    fn create(
        conn: &mut Self::Connection,
        origin: &Origin,
        fence: Fence,
    ) -> impl Future<Output = Result<i64, Error>> + Send;

    /// Sets the row's fence, and its labels and node as they are now.
    fn reopen(
        conn: &mut Self::Connection,
        id: i64,
        origin: &Origin,
        fence: Fence,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The rows of these ids, which are sorted and differ, locked until the transaction ends. Rows that do not exist
    /// are left out.
    fn lock(conn: &mut Self::Connection, ids: &[i64]) -> impl Future<Output = Result<Vec<LockedRow>, Error>> + Send;

    /// Inserts records; as many as [`batch::size`](super::batch::size) returns.
    fn insert(conn: &mut Self::Connection, records: &[NewRecord<'_>])
    -> impl Future<Output = Result<(), Error>> + Send;

    /// Inserts a gap, or replaces the end and the reason of the gap that is already there.
    fn insert_gap(conn: &mut Self::Connection, row: &NewGap) -> impl Future<Output = Result<(), Error>> + Send;

    /// Stores fence, position and seq of these rows.
    fn advance(conn: &mut Self::Connection, rows: &[StreamRow]) -> impl Future<Output = Result<(), Error>> + Send;

    /// The first column of a statement of [`SqlDialect::PURGE`] that reads.
    fn numbers(
        conn: &mut Self::Connection,
        statement: &'static str,
        parameters: &[i64],
    ) -> impl Future<Output = Result<Vec<i64>, Error>> + Send;

    /// Runs a statement of [`SqlDialect::PURGE`] that deletes. Returns the number of deleted rows.
    fn delete(
        conn: &mut Self::Connection,
        statement: &'static str,
        parameters: &[i64],
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// A time as `log_stream.updated_at` is compared with it by [`Purge::empty_streams`].
    fn updated_at(time: Time) -> i64;
}

/// How much a database takes at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::sinks) struct StatementLimits {
    /// Bytes of a message at most; longer ones are cut.
    pub(in crate::sinks) message: usize,
    /// Bytes of a statement of several records at most.
    pub(in crate::sinks) statement: usize,
}

/// The statements that delete old records, and their parameters in order.
#[derive(Debug)]
pub(in crate::sinks) struct Purge {
    /// Streams whose first record is old: ids above a stream, older than a time (nanoseconds), how many at most.
    pub(in crate::sinks) old_streams: &'static str,
    /// The end of the old records among the first ones of a stream, as the seq of the record after them: the
    /// time (nanoseconds), the stream, how many records at most.
    pub(in crate::sinks) old_end: &'static str,
    /// Deletes records: the stream, the seq of the first one that stays.
    pub(in crate::sinks) records: &'static str,
    /// Deletes gaps: the stream, the seq of the first one that stays.
    pub(in crate::sinks) gaps: &'static str,
    /// Streams that have no record, and were neither opened nor written since a time
    /// ([`SqlDialect::updated_at`]) and for a day: the time, how many at most.
    pub(in crate::sinks) empty_streams: &'static str,
    /// Deletes the row of a stream if it is still one of those: the stream.
    pub(in crate::sinks) stream: &'static str,
}

/// A stream's row, and the stream it belongs to.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::sinks) struct LockedRow {
    id: i64,
    fence: i64,
    time_ns: Option<i64>,
    ordinal: Option<i64>,
    hash: Option<i64>,
    seq: i64,
    uid: Vec<u8>,
    container: Vec<u8>,
    container_id: Vec<u8>,
}

impl LockedRow {
    /// The row, if it is this stream's. A server that was failed over to, or restored from a backup, may have given
    /// the id that is remembered to another stream.
    pub(in crate::sinks) fn of(&self, stream: &StreamId) -> Option<StreamRow> {
        let same = self.uid == stream.uid.as_str().as_bytes()
            && self.container == stream.container.as_bytes()
            && self.container_id == stream.container_id.as_str().as_bytes();
        same.then(|| (self.id, self.fence, self.time_ns, self.ordinal, self.hash, self.seq).into())
    }

    /// The row's id.
    pub(in crate::sinks) fn id(&self) -> i64 {
        self.id
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
        assert_eq!(row(b"u1").of(stream).map(|row| row.id), Some(7));
        assert_eq!(row(b"u2").of(stream), None);
    }
}
