//! A lock store with faults between one replica and the table. It records a breach when a fence does not grow.
//! Otherwise it only passes calls and answers on.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::repeats::Repeats;
use super::rule::{Breaches, Rule};
use crate::clock::Clock;
use crate::domain::{AcquireRequest, BackendError, Claim, Fence, LockKey, LockTable, Release, Renewal, RenewalOutcome};
use crate::lab::memory::MemoryLocks;
use crate::locks::LockStore;
use crate::sync::lock;

/// The operations whose answers can be lost.
pub const OPERATIONS: [&str; 7] = [
    "acquire",
    "renew",
    "release",
    "table",
    "request_handover",
    "decline_handover",
    "delete_rows",
];

/// The largest fence under which each row was acquired by any replica.
pub type Fences = Arc<Mutex<BTreeMap<LockKey, Fence>>>;

/// The faults between a replica and the table. They last until they are changed.
#[derive(Clone, Debug, Default)]
pub struct StoreFaults {
    /// Whether calls fail at once.
    pub refused: bool,
    /// The operation of which all calls fail at once.
    pub refused_operation: Option<&'static str>,
    /// Whether calls get no answer and have no effect.
    pub silent: bool,
    /// The delay of each call: half of it before it takes effect, half of it before the answer.
    pub delay: Duration,
    /// For each operation, how many of the next calls take effect but get no answer.
    pub lost: BTreeMap<&'static str, u32>,
}

/// Controls the faults of one replica, and counts its calls. Cloning shares both.
#[derive(Clone, Debug, Default)]
pub struct StoreControl {
    faults: Arc<Mutex<StoreFaults>>,
    tally: Arc<Mutex<StoreTally>>,
}

/// The counts of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTally {
    /// Rows that were requested.
    pub requested: usize,
    /// Rows that were acquired.
    pub acquired: usize,
    /// How often the whole table was read.
    pub table_reads: usize,
}

impl StoreControl {
    /// Replaces the faults.
    pub fn set(&self, faults: StoreFaults) {
        *lock(&self.faults) = faults;
    }

    /// The counts so far.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        *lock(&self.tally)
    }

    fn get(&self) -> StoreFaults {
        lock(&self.faults).clone()
    }

    /// Whether this answer is to be lost.
    fn loses_answer(&self, operation: &'static str) -> bool {
        let mut faults = lock(&self.faults);
        let left = faults.lost.get_mut(operation).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }
}

/// The lock store of one replica.
#[derive(Debug)]
pub struct FaultyLocks {
    /// The lock store without faults.
    pub inner: MemoryLocks,
    /// The faults and the counts.
    pub control: StoreControl,
    /// The fences of all replicas.
    pub fences: Fences,
    /// The number of calls of all replicas.
    pub calls: Arc<AtomicU64>,
    /// Learns when checkpoints are stored.
    pub repeats: Repeats,
    /// Where breaches are recorded.
    pub breaches: Breaches,
}

/// How long a call without an answer takes: the deadline of a real store.
const SILENT_TIMEOUT: Duration = Duration::from_secs(3);

fn unavailable<T>(what: &str) -> Result<T, BackendError> {
    Err(BackendError::unavailable(what, ""))
}

impl FaultyLocks {
    async fn forward<T>(
        &self,
        operation: &'static str,
        statement: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let faults = self.control.get();
        if faults.silent {
            tokio::time::sleep(SILENT_TIMEOUT).await;
            return unavailable("silent");
        }
        if faults.refused || faults.refused_operation == Some(operation) {
            return unavailable("refused");
        }
        tokio::time::sleep(faults.delay / 2).await;
        let answer = statement.await;
        tokio::time::sleep(faults.delay / 2).await;
        if self.control.loses_answer(operation) {
            tokio::time::sleep(SILENT_TIMEOUT).await;
            return unavailable("the answer was lost");
        }
        answer
    }

    fn record(&self, claims: &[Claim], sent: Duration) {
        let mut fences = lock(&self.fences);
        for claim in claims {
            self.repeats.acquired(&claim.key, claim.fence, sent);
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
        let sent = Clock::tokio().now();
        let statement = async {
            let claims = self.inner.acquire(requests).await?;
            self.record(&claims, sent);
            let mut tally = lock(&self.control.tally);
            tally.requested += requests.len();
            tally.acquired += claims.len();
            Ok(claims)
        };
        self.forward("acquire", statement).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError> {
        let sent = Clock::tokio().now();
        let statement = async {
            let outcomes = self.inner.renew(renewals).await?;
            for (renewal, outcome) in renewals.iter().zip(&outcomes) {
                if *outcome == RenewalOutcome::Held {
                    self.repeats.saved(&renewal.key, renewal.fence, sent);
                }
            }
            Ok(outcomes)
        };
        self.forward("renew", statement).await
    }

    async fn release(&self, releases: &[Release]) -> Result<(), BackendError> {
        let sent = Clock::tokio().now();
        let statement = async {
            self.inner.release(releases).await?;
            for Release { claim, .. } in releases {
                self.repeats.saved(&claim.key, claim.fence, sent);
            }
            Ok(())
        };
        self.forward("release", statement).await
    }

    async fn request_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        self.forward("request_handover", self.inner.request_handover(rows))
            .await
    }

    async fn decline_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        self.forward("decline_handover", self.inner.decline_handover(rows))
            .await
    }

    async fn delete_rows(&self, keys: &[LockKey]) -> Result<u64, BackendError> {
        self.forward("delete_rows", self.inner.delete_rows(keys)).await
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.forward("force_release", self.inner.force_release(key)).await
    }

    async fn table(&self) -> Result<LockTable, BackendError> {
        let table = self.forward("table", self.inner.table()).await?;
        lock(&self.control.tally).table_reads += 1;
        Ok(table)
    }
}
