//! What a sink is: the trait [`Sink`], its errors, and the trait of sinks that can delete old records.
//!
//! A sink stores chunks. It does not decide when a stream is read further: the position moves in the caller's next
//! statement after `write` returned `Ok`, or `Rejected` for lines that it can never store. There is no other
//! acknowledgement.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Chunk, Fence, Origin, Position, Time};

/// One result for each chunk of a write, in order.
pub type WriteResults = Vec<Result<(), SinkError>>;

/// A place where records are stored. Writers call it concurrently.
#[async_trait]
pub trait Sink: Send + Sync + fmt::Debug {
    /// Announces that a stream is written under `fence` from now on, and returns the stream's position. `None` means
    /// that the sink does not know it, and the checkpoint counts. A sink that knows positions refuses every later write
    /// under a smaller fence with [`SinkError::Fenced`].
    async fn open(&self, _origin: &Arc<Origin>, _fence: Fence) -> Result<Option<Position>, SinkError> {
        Ok(None)
    }

    /// Stores chunks, each as a whole or not at all. When a chunk is not stored, later chunks of its stream in the same
    /// call are not stored either.
    async fn write(&self, chunks: &[Arc<Chunk>]) -> WriteResults;
}

/// Why a chunk was not stored. The variants are named after what the caller does.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// Not stored, or not known to be: try again, not before `after`.
    #[error("{why}")]
    Again {
        /// The pause that the sink asks for, if it does.
        after: Option<Duration>,
        /// What happened, for people.
        why: Arc<str>,
    },
    /// The sink will never take this chunk. It is counted and skipped.
    #[error("{0}")]
    Rejected(Arc<str>),
    /// The claim is no longer good, or another replica has opened the stream under a larger fence, or the sink has
    /// another position of the stream (its database went back in time). Nothing was stored. The stream must be opened
    /// again before it is written.
    #[error("the claim on the pod is no longer good")]
    Fenced,
}

/// A sink whose old records can be deleted.
#[async_trait]
pub trait Retention: Send + Sync + fmt::Debug {
    /// Deletes at most `limit` records and returns how many it deleted; less than `limit` means that no more are old.
    ///
    /// Of each stream it deletes the first records up to the first that is not older than `older_than`, so that no
    /// stream gets a hole. A gap is deleted with the record after it. It also deletes the rows of streams that have no
    /// record and were neither opened nor written since `older_than` and for at least a day. If such a stream is written
    /// again, it continues after its checkpoint.
    async fn purge(&self, older_than: Time, limit: u32) -> Result<u64, SinkError>;
}
