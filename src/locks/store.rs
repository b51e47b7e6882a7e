//! The trait that every lock store implements, and how its calls are limited and counted.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    AcquireRequest, BackendError, Claim, Fence, LockKey, LockTable, Release, Renewal, RenewalOutcome, ReplicaId,
};
use crate::metrics::{LockCall, Metrics};

/// The replica for which a store acts, and the times that it writes.
#[derive(Clone, Debug)]
pub struct Holder {
    /// This replica.
    pub replica: ReplicaId,
    /// The cluster whose rows are read and written. Rows of other clusters in the table stay as they are.
    pub cluster: String,
    /// How long a claim lasts without renewal.
    pub ttl: Duration,
    /// How long after its expiry a claim of another replica may be acquired.
    pub takeover_grace: Duration,
}

impl Holder {
    /// A holder that acquires nothing, so that its times are never used.
    #[must_use]
    pub fn without_claims(name: &str, cluster: String) -> Self {
        Self {
            replica: name.into(),
            cluster,
            ttl: Duration::ZERO,
            takeover_grace: Duration::ZERO,
        }
    }
}

/// A table of claims. Every method takes any number of rows, and sorts and splits them as the store needs. Each job is
/// done within [`STATEMENT_DEADLINE`] or fails; [`call`] limits a whole call.
#[async_trait]
pub trait LockStore: Send + Sync + fmt::Debug {
    /// Acquires the rows that are absent, free, expired for longer than the grace, or handed to this replica, and
    /// returns their claims. The other rows are held by another replica or finished. The caller holds none of the rows.
    /// Each claim has a larger fence than any claim of its row before.
    async fn acquire(&self, requests: &[AcquireRequest]) -> Result<Vec<Claim>, BackendError>;

    /// Extends claims by one ttl from now and stores their checkpoints, each only if it is still
    /// held under its fence and unexpired. One outcome per renewal, in order.
    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError>;

    /// Releases claims with their final checkpoints. A claim that was lost meanwhile is passed over.
    /// After an error the rows are as they were or released; they expire by themselves.
    async fn release(&self, releases: &[Release]) -> Result<(), BackendError>;

    /// Requests that the holders of these rows hand them over to this replica, unless another replica has requested a
    /// row before or its fence has changed.
    async fn request_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError>;

    /// Declines the requests of others for rows that this replica holds under these fences and does not hand over.
    async fn decline_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError>;

    /// Deletes those of these rows that are finished, and those of replicas that have been dead for
    /// [`DEAD_REPLICA_TTL`]. Returns how many were deleted.
    async fn delete_rows(&self, keys: &[LockKey]) -> Result<u64, BackendError>;

    /// Releases a row whoever holds it, with a new fence; the checkpoint stays. Its owner is
    /// [`FORCE_RELEASED`](crate::domain::claim::FORCE_RELEASED) until the claim would have expired, because the
    /// holder, which is not told, may act until then. A row that nobody holds stays free. For people, not for
    /// replicas. Returns whether there was such a row.
    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError>;

    /// All rows of the cluster.
    async fn table(&self) -> Result<LockTable, BackendError>;
}

/// How long one statement, or one call that renews a batch, may take before it counts as failed. `config/checks.rs`
/// checks the times of a claim with it.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(3);

/// How long a call that does not renew may take: it has up to three jobs.
pub const CALL_DEADLINE: Duration = Duration::from_secs(6);

/// The value of `distributed_lock.state` of a row whose pod is collected to its end.
pub(super) const STATE_FINISHED: u8 = state_finished!();

/// How long the row of a replica must have been expired before it may be deleted: long enough that no peer still needs
/// to see which replica died.
pub const DEAD_REPLICA_TTL: Duration = Duration::from_mins(1);

/// Makes one call to a store, which fails after `limit`, and counts it.
pub async fn call<T>(
    metrics: &Metrics,
    operation: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let timed_out = || {
        Err(BackendError::unavailable(
            format!("the lock store did not answer within {} s", limit.as_secs()),
            "check whether it is overloaded, or the network down",
        ))
    };
    let answer = tokio::time::timeout(limit, call).await.unwrap_or_else(|_| timed_out());
    let result = if answer.is_ok() { "ok" } else { "error" };
    metrics.lock_calls.get_or_create(&LockCall { operation, result }).inc();
    answer
}
