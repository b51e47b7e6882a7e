//! Where records go: the trait that every sink keeps, and its errors.
//!
//! A sink stores chunks. It never decides when a stream is read on: a position moves in the
//! caller's next statement after `write` returned `Ok`, so no acknowledgement exists anywhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Chunk, Fence, Origin, Position};

pub(crate) mod dedup;
mod diagnose;
mod file;
pub mod group;
pub mod json;
mod mysql;
mod open;
#[cfg(test)]
mod probe;
mod retain;
pub mod retry;
mod schema;
mod sql;
mod sqlite;
mod stdout;
mod unacked;
mod url;

pub use diagnose::{SinkNeeds, TABLES, diagnose};
pub use open::{Opened, SinkOpenError, migrate, open};
pub use retain::Retention;
pub use url::{BadSinkUrl, FILE_PARAMETERS, SinkUrl};

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
