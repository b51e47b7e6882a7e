//! Chunks that were written after their attempt had timed out, so that their result was lost.
//!
//! A write that blocks in the operating system cannot be cancelled when its attempt times out. If it succeeds later, its
//! chunk is remembered here, so that the next attempt does not write it again. The memory ends with the process: after a
//! crash the chunk is written a second time, with the same ids.

use std::collections::HashMap;

use crate::domain::{Chunk, Deadline, Gap, Position, StreamId};

/// The encoded records of a chunk, and what is needed to write them without the chunk.
#[derive(Debug)]
pub(crate) struct EncodedChunk {
    pub(crate) stream: StreamId,
    pub(crate) deadline: Deadline,
    /// Its records are `buffer[start..end]`.
    pub(crate) start: usize,
    pub(crate) end: usize,
    key: ChunkKey,
}

/// Distinguishes a chunk from the others of its stream.
#[derive(Clone, Debug, PartialEq)]
struct ChunkKey {
    begin: Option<Position>,
    end: Option<Position>,
    gap: Option<Gap>,
    lines: usize,
}

impl EncodedChunk {
    pub(crate) fn new(chunk: &Chunk, start: usize, end: usize) -> Self {
        let key = ChunkKey {
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
            key,
        }
    }
}

/// Of each stream the last chunk that was written, until its result is received.
#[derive(Debug, Default)]
pub(crate) struct Unacked(HashMap<StreamId, ChunkKey>);

impl Unacked {
    /// Whether an earlier attempt has written this chunk.
    pub(crate) fn contains(&self, chunk: &EncodedChunk) -> bool {
        self.0.get(&chunk.stream) == Some(&chunk.key)
    }

    /// Remembers that a chunk was written.
    pub(crate) fn insert(&mut self, chunk: &EncodedChunk) {
        self.0.insert(chunk.stream.clone(), chunk.key.clone());
    }

    /// Forgets chunks whose results are received: they are not tried again.
    pub(crate) fn acknowledge<'a>(&mut self, chunks: impl IntoIterator<Item = &'a EncodedChunk>) {
        for chunk in chunks {
            self.0.remove(&chunk.stream);
        }
    }
}
