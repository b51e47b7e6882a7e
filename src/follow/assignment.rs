//! What a task that follows one pod is given, and how it ends.
//!
//! Values only: the collector creates the task and decides what its end means for the claim.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::{Checkpoint, Pod};
use crate::grant::Grant;

/// What the task of one pod is given.
#[derive(Debug)]
pub struct PodAssignment {
    /// The pod; the collector updates it.
    pub pod: watch::Receiver<Arc<Pod>>,
    /// The permission to act under the claim.
    pub grant: Grant,
    /// How far the pod is stored. It starts with the stored checkpoint. `writer` moves it on, and the renewer stores
    /// it.
    pub progress: watch::Sender<Checkpoint>,
    /// When cancelled, the task writes what it has read and ends.
    pub stop: CancellationToken,
}

/// Why the task of a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// Everything is stored, and no container will run again.
    Finished,
    /// The pod is deleted. What could be read is stored, and the rest is reported as gaps.
    PodDeleted,
    /// The task was asked to stop, and has written what it had read.
    Stopped,
    /// The claim has expired or was revoked.
    ClaimLost,
    /// The sink refuses to store under this claim: the stream has a larger fence there, or is at another position than
    /// expected.
    Fenced,
}

/// Why the reading of one container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerEnd {
    /// Nothing of it is left to read.
    Done,
    /// The task was asked to stop.
    Stopped,
    /// The sink refuses to store under this claim.
    Fenced,
}
