//! Which lines of a group of chunks are new, given the positions of their streams in the database. This decision makes
//! SQL sinks store each line exactly once. No SQL here, no clock, no I/O.
//!
//! A chunk says at which position it begins. The stream's row has the position of the last stored line. Then:
//!
//! - The row's fence is larger: another replica has the stream. Nothing is stored.
//! - The row's position is where the chunk begins: all lines are new.
//! - The row's position is one of the chunk's lines: an earlier attempt stored it and its answer was lost. Only the lines
//!   after it are new.
//! - The row has no position: this database has no line of the stream yet (the checkpoint comes from another sink, or
//!   retention has deleted a quiet stream). No line can be stored twice, so all are new.
//! - The row has another position. Storing the chunk would lose or repeat the lines in between; rejecting it would lose
//!   the chunk and all later ones. This happens when the database went back in time (a failover to a server that
//!   lagged, a restored backup). The chunk is answered with `Fenced`: the stream must be opened again, which returns the
//!   true position. What the cluster still has after it is read again, and stored once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tracing::warn;

use super::sink::{SinkError, WriteResults};
use crate::defect::{self, Defect};
use crate::domain::{Chunk, Fence, Gap, Position, StreamId};

/// A stream's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRow {
    pub(crate) id: i64,
    pub(crate) fence: Fence,
    pub(crate) position: Option<Position>,
    /// The number of the next record.
    pub(crate) seq: i64,
}

/// A record to insert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(crate) stream: i64,
    pub(crate) seq: i64,
    pub(crate) time: i64,
    pub(crate) ordinal: u32,
    pub(crate) message: &'a [u8],
    /// Bytes that were cut off the message.
    pub(crate) cut: u64,
}

/// A gap to insert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewGap {
    pub(crate) stream: i64,
    /// The number of the record after the gap.
    pub(crate) seq: i64,
    pub(crate) gap: Gap,
}

/// What one transaction stores, and the results of the write once it is committed.
#[derive(Debug, Default)]
pub(crate) struct WritePlan<'a> {
    pub(crate) records: Vec<NewRecord<'a>>,
    pub(crate) gaps: Vec<NewGap>,
    /// Rows whose position moves, with their new values, by id.
    pub(crate) moved: Vec<StreamRow>,
    pub(crate) results: WriteResults,
}

/// How a chunk continues what is stored of its stream.
#[derive(Debug, PartialEq, Eq)]
enum Continuation {
    /// Lines from this index on are new. The gap before the lines is new if the index is 0.
    NewFrom(usize),
    /// Another replica has opened the stream.
    Fenced,
    /// The database has another position.
    Diverged,
}

fn continuation(row: &StreamRow, chunk: &Chunk) -> Continuation {
    if row.fence > chunk.fence && !defect::on(Defect::SinkFenceUnchecked) {
        return Continuation::Fenced;
    }
    let Some(stored) = row.position else {
        return Continuation::NewFrom(0);
    };
    if chunk.begin == Some(stored) || defect::on(Defect::RepeatStored) {
        return Continuation::NewFrom(0);
    }
    // The first match: if a line ever occurs twice, repeating it is better than losing the lines in between.
    let same = chunk.lines.iter().position(|line| {
        line.time == stored.time && line.ordinal == stored.ordinal && Position::hash(chunk.message(line)) == stored.hash
    });
    match same {
        Some(line) => Continuation::NewFrom(line + 1),
        None => Continuation::Diverged,
    }
}

/// Decides for all chunks of a group. `rows` has the locked rows; a chunk without one is answered with `Again`. Messages
/// are cut to `longest` bytes.
pub(crate) fn plan<'a>(
    rows: &mut HashMap<&'a StreamId, StreamRow>,
    chunks: &'a [Arc<Chunk>],
    longest: usize,
) -> WritePlan<'a> {
    let mut plan = WritePlan::default();
    let mut moved = BTreeMap::new();
    for chunk in chunks {
        let Some(row) = rows.get_mut(&chunk.origin.stream) else {
            plan.results.push(Err(SinkError::Again {
                after: None,
                why: "the stream's row was deleted while it was written".into(),
            }));
            continue;
        };
        match continuation(row, chunk) {
            Continuation::NewFrom(_) if row.seq.checked_add_unsigned(chunk.lines.len() as u64).is_none() => {
                let why = "the stream's seq in log_stream is too large for more records; set it to the seq of the stream's last record plus one";
                plan.results.push(Err(SinkError::Rejected(why.into())));
            }
            Continuation::NewFrom(first) => {
                append(&mut plan, row, chunk, first, longest);
                moved.insert(row.id, *row);
                plan.results.push(Ok(()));
            }
            Continuation::Fenced => plan.results.push(Err(SinkError::Fenced)),
            Continuation::Diverged => {
                warn!(
                    namespace = %chunk.origin.namespace, pod = %chunk.origin.pod, container = %chunk.origin.stream.container,
                    stored = ?row.position, begin = ?chunk.begin,
                    "the database has another position of the stream than expected (after a failover, or restored from a backup?); the stream is opened again at the position in the database"
                );
                plan.results.push(Err(SinkError::Fenced));
            }
        }
    }
    plan.moved = moved.into_values().collect();
    plan
}

/// Adds the chunk's lines from `first` on, and moves the row behind them.
fn append<'a>(plan: &mut WritePlan<'a>, row: &mut StreamRow, chunk: &'a Chunk, first: usize, longest: usize) {
    if let Some(gap) = chunk.gap.filter(|_| first == 0) {
        let (stream, seq) = (row.id, row.seq);
        plan.gaps.push(NewGap { stream, seq, gap });
    }
    for line in chunk.lines.iter().skip(first) {
        let message = chunk.message(line);
        let kept = &message[..message.len().min(longest)];
        plan.records.push(NewRecord {
            stream: row.id,
            seq: row.seq,
            time: line.time.0,
            ordinal: line.ordinal,
            message: kept,
            cut: line.cut + (message.len() - kept.len()) as u64,
        });
        row.seq += 1;
    }
    row.position = chunk.end.or(row.position);
    row.fence = row.fence.max(chunk.fence);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Time;
    use crate::sinks::fixtures::{chunk, origin};

    fn row(position: Option<Position>) -> StreamRow {
        StreamRow {
            id: 1,
            fence: Fence(3),
            position,
            seq: 10,
        }
    }

    /// Three lines after `begin`: b, b (again, one later), c.
    fn lines(fence: u64) -> Chunk {
        let mut lines = chunk(&origin("u", "c"), fence, &[(20, b"b"), (20, b"b"), (5, b"c")]);
        lines.lines[1].ordinal = 1;
        lines.begin = Some(at(10, 0, "a"));
        lines
    }

    fn at(time: i64, ordinal: u32, text: &str) -> Position {
        let hash = Position::hash(text.as_bytes());
        let time = Time(time);
        Position { time, ordinal, hash }
    }

    #[test]
    fn the_lines_after_the_stored_position_are_new() {
        for (stored, expected) in [
            (None, Continuation::NewFrom(0)),
            (Some(at(10, 0, "a")), Continuation::NewFrom(0)),
            (Some(at(20, 0, "b")), Continuation::NewFrom(1)),
            (Some(at(20, 1, "b")), Continuation::NewFrom(2)),
            (Some(at(5, 0, "c")), Continuation::NewFrom(3)),
            (Some(at(20, 0, "other text")), Continuation::Diverged),
            (Some(at(4, 0, "before the chunk")), Continuation::Diverged),
            (Some(at(99, 0, "after the chunk")), Continuation::Diverged),
        ] {
            assert_eq!(continuation(&row(stored), &lines(3)), expected, "{stored:?}");
        }
        assert_eq!(continuation(&row(None), &lines(2)), Continuation::Fenced);
        assert_eq!(continuation(&row(None), &lines(4)), Continuation::NewFrom(0));
    }

    #[test]
    fn two_chunks_of_a_stream_follow_each_other_in_one_plan() {
        let first = lines(3);
        let mut second = chunk(&first.origin, 3, &[(30, b"d")]);
        second.begin = first.end;
        let chunks = [first, second].map(Arc::new);
        let mut rows = [(&chunks[0].origin.stream, row(None))].into();
        let plan = plan(&mut rows, &chunks, usize::MAX);
        assert_eq!(plan.records.iter().map(|r| r.seq).collect::<Vec<_>>(), [10, 11, 12, 13]);
        assert_eq!(plan.moved.len(), 1);
        assert_eq!((plan.moved[0].seq, plan.moved[0].position), (14, chunks[1].end));
    }

    #[test]
    fn a_message_too_long_for_the_database_is_truncated_and_marked() {
        let chunks = [Arc::new(chunk(&origin("u", "c"), 3, &[(1, b"12345")]))];
        let mut rows = [(&chunks[0].origin.stream, row(None))].into();
        let plan = plan(&mut rows, &chunks, 3);
        assert_eq!((plan.records[0].message, plan.records[0].cut), (&b"123"[..], 2));
    }
}
