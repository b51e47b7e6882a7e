//! A lock store with faults between it and one replica. It passes on the answers of the table and records a breach when
//! a fence does not grow.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::rule::{Breaches, Rule};
use crate::domain::{AcquireRequest, BackendError, Claim, Fence, LockKey, LockTable, Release, Renewal, RenewalOutcome};
use crate::lab::memory::MemoryLocks;
use crate::locks::LockStore;
use crate::sync::lock;

/// The kinds of statement whose answers can be lost.
pub const STATEMENTS: [&str; 7] = [
    "acquire",
    "renew",
    "release",
    "table",
    "request_handover",
    "decline_handover",
    "delete_rows",
];

/// The largest fence each row was claimed under, over all replicas.
pub type Fences = Arc<Mutex<BTreeMap<LockKey, Fence>>>;

/// The faults between a replica and the table, until they are changed.
#[derive(Clone, Debug, Default)]
pub struct StoreFaults {
    /// Refused at once.
    pub refused: bool,
    /// No answer, and nothing happens at the table.
    pub silent: bool,
    /// Delay of each call: half of it on the way to the table, half on the way back.
    pub delay: Duration,
    /// How many answers to a statement of this kind are lost after it took effect.
    pub lost: BTreeMap<&'static str, u32>,
}

/// Controls the faults of one replica and counts its calls.
#[derive(Clone, Debug, Default)]
pub struct StoreControl(Arc<Mutex<StoreFaults>>, Arc<Mutex<StoreTally>>);

/// Counts of a replica's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTally {
    /// Rows that were requested.
    pub requested: usize,
    /// Rows that were acquired.
    pub acquired: usize,
    /// How often the whole table was read.
    pub looks: usize,
}

impl StoreControl {
    /// Replaces the present faults by these.
    pub fn set(&self, faults: StoreFaults) {
        *lock(&self.0) = faults;
    }

    /// The counts so far.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        *lock(&self.1)
    }

    fn get(&self) -> StoreFaults {
        lock(&self.0).clone()
    }

    /// Whether this answer is to be lost.
    fn loses(&self, kind: &'static str) -> bool {
        let mut faults = lock(&self.0);
        let left = faults.lost.get_mut(kind).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }
}

/// One replica's way to the table.
#[derive(Debug)]
pub struct FaultyLocks {
    /// The table, on behalf of the replica.
    pub inner: MemoryLocks,
    /// What goes wrong on the way.
    pub control: StoreControl,
    /// The fences of all replicas.
    pub fences: Fences,
    /// Counts what all replicas ask of the table.
    pub calls: Arc<AtomicU64>,
    /// Where breaches are recorded.
    pub breaches: Breaches,
}

/// As long as a store lets its callers wait.
const SILENCE: Duration = Duration::from_secs(3);

fn unavailable<T>(what: &str) -> Result<T, BackendError> {
    Err(BackendError::unavailable(what, ""))
}

impl FaultyLocks {
    async fn pass<T>(
        &self,
        kind: &'static str,
        statement: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let faults = self.control.get();
        if faults.silent {
            tokio::time::sleep(SILENCE).await;
            return unavailable("silent");
        }
        if faults.refused {
            return unavailable("refused");
        }
        tokio::time::sleep(faults.delay / 2).await;
        let answer = statement.await;
        tokio::time::sleep(faults.delay / 2).await;
        if self.control.loses(kind) {
            tokio::time::sleep(SILENCE).await;
            return unavailable("the answer was lost");
        }
        answer
    }

    fn record(&self, claims: &[Claim]) {
        let mut fences = lock(&self.fences);
        for claim in claims {
            let before = fences.insert(claim.key.clone(), claim.fence);
            if before.is_some_and(|before| before >= claim.fence) {
                let what = format!("the fence of {} did not grow: {}", claim.key, claim.fence);
                self.breaches.record(Rule::FencesGrow, what);
            }
        }
    }
}

#[async_trait]
impl LockStore for FaultyLocks {
    async fn acquire(&self, requests: &[AcquireRequest]) -> Result<Vec<Claim>, BackendError> {
        let statement = async {
            let claims = self.inner.acquire(requests).await?;
            self.record(&claims);
            let mut tally = lock(&self.control.1);
            tally.requested += requests.len();
            tally.acquired += claims.len();
            Ok(claims)
        };
        self.pass("acquire", statement).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError> {
        self.pass("renew", self.inner.renew(renewals)).await
    }

    async fn release(&self, releases: &[Release]) -> Result<(), BackendError> {
        self.pass("release", self.inner.release(releases)).await
    }

    async fn request_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        self.pass("request_handover", self.inner.request_handover(rows)).await
    }

    async fn decline_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        self.pass("decline_handover", self.inner.decline_handover(rows)).await
    }

    async fn delete_rows(&self, keys: &[LockKey]) -> Result<u64, BackendError> {
        self.pass("delete_rows", self.inner.delete_rows(keys)).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.pass("force_release", self.inner.force_release(key)).await
    }

    async fn table(&self) -> Result<LockTable, BackendError> {
        let table = self.pass("table", self.inner.table()).await?;
        lock(&self.control.1).looks += 1;
        Ok(table)
    }
}
