//! Lines on their way to a sink: a run of one stream's lines and the place after them.
//!
//! A chunk is the unit that is stored or not stored. The text of all its lines lies in one
//! buffer, so that a line costs no allocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::Deadline;
use super::id::{Fence, StreamId};
use super::position::Position;
use super::time::Time;

/// Where lines come from; shared by all chunks of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The stream's identity.
    pub stream: StreamId,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The node, when known.
    pub node: Option<Arc<str>>,
    /// How many instances of the container came before this one.
    pub restart: u32,
    /// The pod's labels when the stream was opened.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// One line of a chunk. Its bytes are `text[start..start + len]` of the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The runtime's timestamp.
    pub time: Time,
    /// How many lines of the stream with the same timestamp came before it.
    pub ordinal: u32,
    /// Where its bytes begin in the chunk's text.
    pub start: u32,
    /// How many bytes it has.
    pub len: u32,
    /// How many bytes were cut off because the line is longer than the cap; mostly 0.
    pub cut: u64,
}

/// A range of a stream that the API no longer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last line that was stored before it; `None` when nothing was.
    pub from: Option<Time>,
    /// The first line after it; `None` when the stream has ended.
    pub to: Option<Time>,
    /// Why the lines cannot be had.
    pub reason: GapReason,
}

/// Why lines cannot be had any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The log file was rotated before it was read to its end.
    Rotated,
    /// The container was restarted more than once before its log was read to its end.
    Restarted,
    /// The pod object was deleted before its log was read to its end.
    Deleted,
    /// The kubelet has the instance no more, or not its log.
    Unavailable,
}

impl GapReason {
    /// Every reason there is.
    pub const ALL: [Self; 4] = [Self::Rotated, Self::Restarted, Self::Deleted, Self::Unavailable];

    /// The word used in records, metrics and log fields.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Restarted => "restarted",
            Self::Deleted => "deleted",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Lines of one stream and the position after them.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where the lines come from.
    pub origin: Arc<Origin>,
    /// The number of the claim under which they were read.
    pub fence: Fence,
    /// Until when they may be written.
    pub deadline: Deadline,
    /// A gap that comes before the lines.
    pub gap: Option<Gap>,
    /// The bytes of all lines, one after another, without line ends.
    pub text: Vec<u8>,
    /// The lines, in the order of the stream.
    pub lines: Vec<Line>,
    /// Where the stream stands before the first line.
    pub begin: Option<Position>,
    /// Where the stream stands after the last line.
    pub end: Option<Position>,
}

impl Chunk {
    /// The bytes of one line.
    #[must_use]
    pub fn message(&self, line: &Line) -> &[u8] {
        let start = line.start as usize;
        self.text.get(start..start + line.len as usize).unwrap_or_default()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.gap.is_none()
    }
}
