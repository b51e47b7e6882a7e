//! What of a group of chunks is to be stored, given where the streams stand in the database: the
//! decision that makes SQL sinks exactly once. No SQL here, no clock, no I/O.
//!
//! A chunk says where it begins. The stream's row says where the stream stands. Then:
//!
//! - the row's claim number is larger: somebody else has the stream, nothing is stored;
//! - the stream stands where the chunk begins: all of it is new;
//! - the stream stands at one of the chunk's lines: an earlier try was stored and its answer lost, and
//!   only the lines after that one are new;
//! - the row knows no position: this database has nothing of the stream yet (the checkpoint came from
//!   another sink, or retention has deleted a quiet stream), so nothing can be doubled, and all is new;
//! - the stream stands elsewhere. Storing the chunk would lose or double what lies between, and
//!   rejecting it would lose the chunk and all that follow. This happens when the database has gone back
//!   in time (a failover to a server that lagged, a restored backup). The chunk is answered `Fenced`:
//!   the writer's right to append there is gone, and the stream must be opened again, which tells the
//!   true position. What the cluster still has from there on is then read again, and stored once.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::warn;

use super::sink::SinkError;
use crate::defect::{self, Defect};
use crate::domain::{Chunk, Fence, Gap, Position, StreamId};

/// A stream's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) fence: Fence,
    pub(crate) position: Option<Position>,
    /// The number of the next record.
    pub(crate) seq: i64,
}

/// The columns of a row in the order in which both dialects select them: id, fence, `time_ns`,
/// ordinal, hash, seq.
pub(crate) type Columns = (i64, i64, Option<i64>, Option<i64>, Option<i64>, i64);

impl From<Columns> for Row {
    fn from((id, fence, time, ordinal, hash, seq): Columns) -> Self {
        let position = match (time, ordinal, hash) {
            (Some(time), Some(ordinal), Some(hash)) => Some(Position {
                time: crate::domain::Time(time),
                ordinal: ordinal as u32,
                hash: hash.cast_unsigned(),
            }),
            _ => None,
        };
        let fence = Fence(fence.cast_unsigned());
        Self {
            id,
            fence,
            position,
            seq,
        }
    }
}

/// A record to insert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) stream: i64,
    pub(crate) seq: i64,
    pub(crate) time: i64,
    pub(crate) ordinal: u32,
    pub(crate) message: &'a [u8],
    pub(crate) cut: u64,
}

/// A gap to insert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GapRow {
    pub(crate) stream: i64,
    pub(crate) seq: i64,
    pub(crate) gap: Gap,
}

/// What one transaction does, and what it answers once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) records: Vec<Record<'a>>,
    pub(crate) gaps: Vec<GapRow>,
    /// Rows whose position moved, as they are afterwards, by id.
    pub(crate) moved: Vec<Row>,
    pub(crate) answers: Vec<Result<(), SinkError>>,
}

/// How a chunk relates to its stream's row.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Lines from this index on are new; the gap before them is new if the index is 0.
    New(usize),
    Fenced,
    Elsewhere,
}

fn place(row: &Row, chunk: &Chunk) -> Place {
    if row.fence > chunk.fence && !defect::on(Defect::SinkFenceUnchecked) {
        return Place::Fenced;
    }
    let Some(stands) = row.position else {
        return Place::New(0);
    };
    if chunk.begin == Some(stands) || defect::on(Defect::RepeatStored) {
        return Place::New(0);
    }
    // The first match: should a line ever occur twice, doubling it is better than losing what lies between.
    let same = chunk.lines.iter().position(|line| {
        line.time == stands.time && line.ordinal == stands.ordinal && Position::hash(chunk.message(line)) == stands.hash
    });
    match same {
        Some(line) => Place::New(line + 1),
        None => Place::Elsewhere,
    }
}

/// Decides for all chunks of a group. `rows` has the locked rows; a chunk without one is answered `Again`.
pub(crate) fn plan<'a>(rows: &mut HashMap<&'a StreamId, Row>, chunks: &'a [Arc<Chunk>], longest: usize) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut moved = std::collections::BTreeMap::new();
    for chunk in chunks {
        let Some(row) = rows.get_mut(&chunk.origin.stream) else {
            plan.answers.push(Err(SinkError::Again {
                after: None,
                why: "the stream's row went away while it was written".into(),
            }));
            continue;
        };
        match place(row, chunk) {
            Place::New(_) if row.seq.checked_add_unsigned(chunk.lines.len() as u64).is_none() => {
                let why = "the stream's seq in log_stream leaves no numbers for more records; correct it";
                plan.answers.push(Err(SinkError::Rejected(why.into())));
            }
            Place::New(from) => {
                take(&mut plan, row, chunk, from, longest);
                moved.insert(row.id, *row);
                plan.answers.push(Ok(()));
            }
            Place::Fenced => plan.answers.push(Err(SinkError::Fenced)),
            Place::Elsewhere => {
                warn!(
                    namespace = %chunk.origin.namespace, pod = %chunk.origin.pod, container = %chunk.origin.stream.container,
                    stored = ?row.position, begin = ?chunk.begin,
                    "the database holds the stream at another place than the one being written; it must be opened again"
                );
                plan.answers.push(Err(SinkError::Fenced));
            }
        }
    }
    plan.moved = moved.into_values().collect();
    plan
}

/// Adds the chunk's lines from `from` on and moves the row behind them.
fn take<'a>(plan: &mut Plan<'a>, row: &mut Row, chunk: &'a Chunk, from: usize, longest: usize) {
    if let Some(gap) = chunk.gap.filter(|_| from == 0) {
        let (stream, seq) = (row.id, row.seq);
        plan.gaps.push(GapRow { stream, seq, gap });
    }
    for line in chunk.lines.iter().skip(from) {
        let message = chunk.message(line);
        let kept = &message[..message.len().min(longest)];
        plan.records.push(Record {
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
    use crate::sinks::probe::{chunk, origin};

    fn row(position: Option<Position>) -> Row {
        Row {
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
        let time = crate::domain::Time(time);
        Position { time, ordinal, hash }
    }

    #[test]
    fn a_chunk_is_new_from_where_the_stream_stands() {
        for (stands, expected) in [
            (None, Place::New(0)),
            (Some(at(10, 0, "a")), Place::New(0)),
            (Some(at(20, 0, "b")), Place::New(1)),
            (Some(at(20, 1, "b")), Place::New(2)),
            (Some(at(5, 0, "c")), Place::New(3)),
            (Some(at(20, 0, "other text")), Place::Elsewhere),
            (Some(at(4, 0, "before the chunk")), Place::Elsewhere),
            (Some(at(99, 0, "after the chunk")), Place::Elsewhere),
        ] {
            assert_eq!(place(&row(stands), &lines(3)), expected, "{stands:?}");
        }
        assert_eq!(place(&row(None), &lines(2)), Place::Fenced);
        assert_eq!(place(&row(None), &lines(4)), Place::New(0));
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
    fn a_message_too_long_for_the_database_is_cut_and_says_so() {
        let chunks = [Arc::new(chunk(&origin("u", "c"), 3, &[(1, b"12345")]))];
        let mut rows = [(&chunks[0].origin.stream, row(None))].into();
        let plan = plan(&mut rows, &chunks, 3);
        assert_eq!((plan.records[0].message, plan.records[0].cut), (&b"123"[..], 2));
    }
}
