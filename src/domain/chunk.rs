//! Lines on their way to a sink: consecutive lines of one stream, and the position after them.
//!
//! A chunk is stored as a whole or not at all. The text of all its lines is in one buffer, so that a line costs no
//! allocation. Values only: nothing here reads or writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::Deadline;
use super::id::{Fence, StreamId};
use super::position::Position;
use super::time::Time;

/// Where lines come from. All chunks of a stream share it.
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
    /// Number of instances of the container before this one.
    pub restart_count: u32,
    /// The pod's labels when the stream was opened.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// One line of a chunk. Its bytes are `text[start..start + len]` of the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The runtime's timestamp.
    pub time: Time,
    /// Number of lines with the same timestamp that come before it in the stream.
    pub ordinal: u32,
    /// Index of its first byte in the chunk's text.
    pub start: u32,
    /// Number of its bytes.
    pub len: u32,
    /// Number of bytes that were cut off because the line is longer than the limit; mostly 0.
    pub cut: u64,
}

/// A part of a stream in which lines may be missing, because the API no longer serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Timestamp of the last line stored before it; `None` when none is.
    pub from: Option<Time>,
    /// Timestamp of the first line after it; `None` when the stream has ended.
    pub to: Option<Time>,
    /// Why the lines can no longer be read.
    pub reason: GapReason,
}

/// Why lines can no longer be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The log file was rotated and removed before it was read to its end.
    Rotated,
    /// The container was restarted more than once before its log was read to its end.
    Restarted,
    /// The pod object was deleted before its log was read to its end.
    Deleted,
    /// The kubelet no longer has the instance, or does not have its log.
    Unavailable,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Rotated, Self::Restarted, Self::Deleted, Self::Unavailable];

    /// The name used in records, metrics and log fields.
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

/// Consecutive lines of one stream, and the position after them.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where the lines come from.
    pub origin: Arc<Origin>,
    /// The fence of the claim under which they were read.
    pub fence: Fence,
    /// Until when they may be written.
    pub deadline: Deadline,
    /// A gap before the lines.
    pub gap: Option<Gap>,
    /// The bytes of all lines, one after another, without line ends.
    pub text: Vec<u8>,
    /// The lines, in the order of the stream.
    pub lines: Vec<Line>,
    /// The position of the stream before the first line.
    pub begin: Option<Position>,
    /// The position of the stream after the last line.
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
