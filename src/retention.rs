//! Deletes records that are older than the retention, in small batches, by one replica at a time.
//!
//! The right to do so is a claim like any other, kept by the renewer. It never touches a record
//! that is younger, and never deletes without the claim.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};
use crate::domain::claim::Lease;
use crate::domain::{About, AfterRelease, Deadline, LockKey, Release, Want};
use crate::grant::Grant;
use crate::locks::{self, CALL_DEADLINE, LockStore};
use crate::metrics::Metrics;
use crate::renewer::Renewer;
use crate::sinks::Retention;

/// Records deleted by one statement: a few milliseconds of locks.
const BATCH: u32 = 1000;

/// Between two batches, so that writers get their turn: at most 10 000 records a second.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two looks for old records.
const EVERY: Duration = Duration::from_mins(1);

/// What is needed to delete old records.
#[derive(Debug)]
pub struct Cleaner {
    /// The sink's side of it.
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
    /// Cleans once a minute until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let pause = EVERY.mul_f64(0.8 + 0.4 * fastrand::f64());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => self.clean(&stop).await,
            }
        }
    }

    /// Cleans once, if no other replica does.
    async fn clean(&self, stop: &CancellationToken) {
        let key = LockKey::Duty("retention".into());
        let sent = self.clock.now();
        let wants = [Want {
            key: key.clone(),
            about: About::default(),
        }];
        let claim = match locks::call(&self.metrics, "acquire", CALL_DEADLINE, self.store.acquire(&wants)).await {
            Ok(mut claims) => claims.pop(),
            Err(error) => {
                return tracing::debug!(%error, "cannot claim the deleting of old records; trying again later");
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
                tracing::debug!(%error, "the claim to delete old records expires by itself");
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
                Err(error) => return tracing::warn!(%error, "old records cannot be deleted; trying again in a minute"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
