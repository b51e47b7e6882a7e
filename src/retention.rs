//! Deletes records that are older than the retention: in small batches, and by one replica at a time.
//!
//! The right to delete is a claim, renewed like the claims of pods. Nothing is deleted without the claim, and no record
//! that is younger.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};
use crate::domain::claim::Lease;
use crate::domain::{AcquireRequest, AfterRelease, Deadline, LockKey, PodRef, Release};
use crate::grant::Grant;
use crate::locks::{self, CALL_DEADLINE, LockStore};
use crate::metrics::Metrics;
use crate::renewer::Renewer;
use crate::sinks::Retention;

/// Records deleted by one statement: a few milliseconds of locks.
const BATCH: u32 = 1000;

/// Pause between two batches, so that writers are not held up: at most 1000 / 0.1 s = 10 000 records a second.
const PAUSE: Duration = Duration::from_millis(100);

/// Time between two searches for old records.
const INTERVAL: Duration = Duration::from_mins(1);

/// Deletes old records.
#[derive(Debug)]
pub(crate) struct Cleaner {
    /// The sink that deletes its records.
    pub sink: Arc<dyn Retention>,
    /// Where the claim is stored.
    pub store: Arc<dyn LockStore>,
    /// Renews it.
    pub renewer: Renewer,
    /// The times of claims.
    pub lease: Lease,
    /// The clock of the claim.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// The age at which a record is deleted.
    pub age: Duration,
}

impl Cleaner {
    /// Deletes old records once a minute until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let pause = INTERVAL.mul_f64(0.8 + 0.4 * fastrand::f64());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => self.clean(&stop).await,
            }
        }
    }

    /// Deletes what is old now, unless another replica does.
    async fn clean(&self, stop: &CancellationToken) {
        let key = LockKey::Duty("retention".into());
        let sent = self.clock.now();
        let requests = [AcquireRequest {
            key: key.clone(),
            pod_ref: PodRef::default(),
        }];
        let claim = match locks::call(&self.metrics, "acquire", CALL_DEADLINE, self.store.acquire(&requests)).await {
            Ok(mut claims) => claims.pop(),
            Err(error) => {
                return tracing::debug!(%error, "the right to delete old records cannot be claimed; trying again in a minute");
            }
        };
        let Some(claim) = claim else { return };
        let grant = Grant::new(claim.fence, Deadline::new(self.lease.deadline(sent)), self.clock);
        self.renewer.add(claim, grant.clone(), None);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = grant.lost() => {}
            () = self.purge() => {}
        }
        if let Some(claim) = self.renewer.remove(&key).await.claim {
            let release = Release {
                claim,
                checkpoint: None,
                after: AfterRelease::Free,
            };
            let released = [release];
            let release = self.store.release(&released);
            if let Err(error) = locks::call(&self.metrics, "release", CALL_DEADLINE, release).await {
                tracing::debug!(%error, "the claim to delete old records could not be released; it expires by itself");
            }
        }
    }

    async fn purge(&self) {
        let age = i64::try_from(self.age.as_nanos()).unwrap_or(i64::MAX);
        let oldest = clock::wall().plus_nanos(-age);
        loop {
            match self.sink.purge(oldest, BATCH).await {
                Ok(deleted) => {
                    self.metrics.retention_deleted.inc_by(deleted);
                    if deleted < u64::from(BATCH) {
                        return;
                    }
                }
                Err(error) => {
                    return tracing::warn!(%error, "old records cannot be deleted now; trying again in a minute");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
