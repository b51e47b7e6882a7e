//! What the collector needs from outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::claim::Lease;
use crate::domain::{PodSet, ReplicaId};
use crate::follow::Context;
use crate::locks::LockStore;
use crate::renewer::Renewer;
use crate::status::Status;
use crate::status::health::Heartbeat;
use crate::status::ready::Condition;

/// What a collector needs from outside.
#[derive(Debug)]
pub(crate) struct Deps {
    /// This replica.
    pub me: ReplicaId,
    /// Where claims are stored.
    pub store: Arc<dyn LockStore>,
    /// Renews them.
    pub renewer: Renewer,
    /// What pod tasks share.
    pub context: Arc<Context>,
    /// The pods to collect.
    pub pods: watch::Receiver<Arc<PodSet>>,
    /// The times of claims.
    pub lease: Lease,
    /// The most pods this replica holds.
    pub max_pods: usize,
    /// How long stopping may take.
    pub grace: Duration,
    /// Where the state for the status page is published.
    pub status: watch::Sender<Arc<Status>>,
    /// Shows that the collector's loop is not stuck.
    pub heartbeat: Heartbeat,
    /// Fulfilled once the lock store has answered.
    pub store_reached: Condition,
    /// Fulfilled once all pods have been listed.
    pub listed: Condition,
}
