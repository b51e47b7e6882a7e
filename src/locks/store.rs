//! The trait that every lock store implements, and how its calls are limited and counted.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    BackendError, Claim, Fence, LockKey, LockTable, Release, Renewal, RenewalOutcome, ReplicaId, Want,
};
use crate::metrics::{LockCall, Metrics};

/// On whose behalf a store acts, and the times it writes.
#[derive(Clone, Debug)]
pub struct Holder {
    /// This replica.
    pub replica: ReplicaId,
    /// The cluster whose rows are seen and written; rows of other clusters in the table are not touched.
    pub cluster: String,
    /// How long a claim lasts without renewal.
    pub ttl: Duration,
    /// How long after its expiry a claim of another replica may be taken.
    pub takeover_grace: Duration,
}

impl Holder {
    /// One that reads the table and claims nothing, so that its times are never used.
    #[must_use]
    pub fn onlooker(name: &str, cluster: String) -> Self {
        Self {
            replica: name.into(),
            cluster,
            ttl: Duration::ZERO,
            takeover_grace: Duration::ZERO,
        }
    }
}

/// A table of claims. Every method takes a batch of any size, sorts it and cuts it as the store
/// needs; every job of a batch is done within [`STATEMENT_DEADLINE`] or fails. See [`call`] for all of a call.
#[async_trait]
pub trait LockStore: Send + Sync + fmt::Debug {
    /// Claims the rows that are absent, free, expired for longer than the grace, or handed to this
    /// replica, and returns those that were won; the others are held by another replica or finished.
    /// The caller holds none of them. Each won claim has a larger fence than any before it.
    async fn acquire(&self, wants: &[Want]) -> Result<Vec<Claim>, BackendError>;

    /// Extends claims by one ttl from now and stores their checkpoints, each only if it is still
    /// held under its fence and unexpired. One outcome per renewal, in order.
    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError>;

    /// Gives claims back with their final checkpoints. A claim that was lost meanwhile is passed over.
    /// After an error the rows are as they were or released; they expire by themselves.
    async fn release(&self, releases: &[Release]) -> Result<(), BackendError>;

    /// Asks the holders of these rows to hand them to this replica, unless another replica asked before or
    /// the fence has changed.
    async fn ask(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError>;

    /// Takes back the requests of others for rows that this replica holds under these fences and
    /// could not hand over.
    async fn refuse(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError>;

    /// Deletes rows that nobody holds and that are finished, or belong to a replica that has been
    /// dead for a minute. Rows that are held, or unfinished, stay. Returns how many were deleted.
    async fn forget(&self, keys: &[LockKey]) -> Result<u64, BackendError>;

    /// Takes a row from whoever holds it, with a new fence; the checkpoint stays. It belongs to
    /// [`EVICTED`](crate::domain::claim::EVICTED) until the claim would have expired, because its
    /// holder, which is not asked, may act that long. A row that nobody holds stays free. For people,
    /// not for replicas. Returns whether there was such a row.
    async fn evict(&self, key: &LockKey) -> Result<bool, BackendError>;

    /// All rows of the cluster.
    async fn table(&self) -> Result<LockTable, BackendError>;
}

/// How long one statement, or one call that renews a batch, may take before it counts as failed. The
/// times of a claim are judged with it (`config/checks.rs`).
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(3);

/// How long another call may take: it is up to three jobs.
pub const CALL_DEADLINE: Duration = Duration::from_secs(6);

/// How long a replica's row must have been expired before it may be forgotten: long enough that no
/// peer still needs to see who died.
pub const DEAD: Duration = Duration::from_mins(1);

/// Makes one call to a store, which fails after `limit`, and counts it.
pub async fn call<T>(
    metrics: &Metrics,
    operation: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let late = || {
        Err(BackendError::unavailable(
            format!("the lock store did not answer within {} s", limit.as_secs()),
            "check whether it is overloaded, or the network down",
        ))
    };
    let answer = tokio::time::timeout(limit, call).await.unwrap_or_else(|_| late());
    let result = if answer.is_ok() { "ok" } else { "error" };
    metrics.lock_calls.get_or_create(&LockCall { operation, result }).inc();
    answer
}
