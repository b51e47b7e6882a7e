//! What a sink is: the trait, its errors, and the trait of sinks that can delete old records.
//!
//! A sink stores chunks. It never decides when a stream is read on: a position moves in the
//! caller's next statement after `write` returned `Ok`, so no acknowledgement exists anywhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Chunk, Fence, Origin, Position, Time};

/// A place for records. Writers call it concurrently.
#[async_trait]
pub trait Sink: Send + Sync + fmt::Debug {
    /// Announces that a stream is from now on written under `fence`, and asks where it stands.
    /// `None` means that the sink does not know and the checkpoint counts. A sink that does know
    /// refuses every later write under a smaller fence with [`SinkError::Fenced`].
    async fn open(&self, _origin: &Arc<Origin>, _fence: Fence) -> Result<Option<Position>, SinkError> {
        Ok(None)
    }

    /// Stores chunks, each wholly or not at all; one answer per chunk, in order. When a chunk is not
    /// stored, later ones of its stream in the same call are not stored either.
    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>>;
}

/// Why something was not stored. Variants are named by what the caller does about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// Not stored, or not known to be: try again, not before `after`.
    #[error("{why}")]
    Again {
        /// How long the sink asks to be left alone, when it says so.
        after: Option<Duration>,
        /// What happened, for people.
        why: Arc<str>,
    },
    /// The sink will never take this chunk. Counted and passed over.
    #[error("{0}")]
    Rejected(Arc<str>),
    /// The claim is no longer good, or somebody holds the stream under a larger fence, or the sink holds
    /// the stream at another place than the chunk (its database went back in time). Nothing was stored;
    /// the stream must be opened again before it is written.
    #[error("the claim on the pod is no longer good")]
    Fenced,
}

/// A sink whose old records can be deleted.
#[async_trait]
pub trait Retention: Send + Sync + fmt::Debug {
    /// Deletes at most `limit` records from the old ends of streams: those older than `older_than` up to
    /// the first that is not, so that a stream never gets a hole. Also the rows of streams that have no
    /// record left, were neither opened nor written since `older_than`, and for at least a day; such a
    /// stream, should it speak again, begins anew after its checkpoint. Gaps go with the records after
    /// them. Answers how many records went; less than `limit` means that no more are old.
    async fn purge(&self, older_than: Time, limit: u32) -> Result<u64, SinkError>;
}
