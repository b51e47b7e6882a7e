//! Chunks that were written although nobody waited for the answer any more.
//!
//! A write that blocks in the system cannot be taken back when its attempt is given up. If it succeeds
//! after all, its chunk is remembered here, so that the next try of the same chunk is not written again.
//! Memory of this process only: after a crash the chunk is written a second time, with the same ids.

use std::collections::HashMap;

use crate::domain::{Chunk, Deadline, Gap, Position, StreamId};

/// A chunk's encoded records and what is needed to write them later, without the chunk.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) stream: StreamId,
    pub(super) deadline: Deadline,
    /// Its records are `buffer[start..end]`.
    pub(super) start: usize,
    pub(super) end: usize,
    name: Name,
}

/// What tells a chunk from the others of its stream.
#[derive(Clone, Debug, PartialEq)]
struct Name {
    begin: Option<Position>,
    end: Option<Position>,
    gap: Option<Gap>,
    lines: usize,
}

impl Part {
    pub(super) fn new(chunk: &Chunk, start: usize, end: usize) -> Self {
        let name = Name {
            begin: chunk.begin,
            end: chunk.end,
            gap: chunk.gap,
            lines: chunk.lines.len(),
        };
        Self {
            stream: chunk.origin.stream.clone(),
            deadline: chunk.deadline.clone(),
            start,
            end,
            name,
        }
    }
}

/// The last written chunk of each stream whose answer was not taken.
#[derive(Debug, Default)]
pub(super) struct Unacked(HashMap<StreamId, Name>);

impl Unacked {
    /// Whether this chunk was written in an earlier try.
    pub(super) fn has(&self, part: &Part) -> bool {
        self.0.get(&part.stream) == Some(&part.name)
    }

    /// Notes that a chunk was written.
    pub(super) fn put(&mut self, part: &Part) {
        self.0.insert(part.stream.clone(), part.name.clone());
    }

    /// The answers were taken, or will be: nothing of these streams can come again.
    pub(super) fn answered<'a>(&mut self, parts: impl IntoIterator<Item = &'a Part>) {
        for part in parts {
            self.0.remove(&part.stream);
        }
    }
}
