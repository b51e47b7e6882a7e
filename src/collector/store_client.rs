//! Calls to the lock store: each under a deadline, counted, and with a log line when calls begin to fail or succeed
//! again. It decides nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{AcquireRequest, BackendError, Claim, Fence, LockKey, LockTable, Release};
use crate::locks::{self, CALL_DEADLINE, LockStore};
use crate::metrics::Metrics;
use crate::status::health::Heartbeat;

/// The lock store as the collector uses it. A call that fails returns nothing: the next reconciliation tries again.
#[derive(Debug)]
pub(super) struct StoreClient {
    store: Arc<dyn LockStore>,
    metrics: Metrics,
    /// Shows that the collector's loop is not stuck. Recorded after each call, since slow calls make a
    /// reconciliation long.
    pub(super) heartbeat: Heartbeat,
    /// Since when calls fail, and why the first one did. A failure is logged when it begins, not at each call.
    failing: Option<(Instant, String)>,
}

impl StoreClient {
    pub(super) fn new(store: Arc<dyn LockStore>, metrics: Metrics, heartbeat: Heartbeat) -> Self {
        Self {
            store,
            metrics,
            heartbeat,
            failing: None,
        }
    }

    /// Whether the latest call failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// For how long calls have failed, and why the first one did.
    pub(super) fn outage(&self) -> Option<(Duration, &str)> {
        let (since, why) = self.failing.as_ref()?;
        Some((since.elapsed(), why))
    }

    /// All rows.
    pub(super) async fn table(&mut self) -> Option<LockTable> {
        let answer = self.call("table", self.store.table()).await;
        self.record_outcome(answer)
    }

    /// Acquires rows; returns the claims.
    pub(super) async fn acquire(&mut self, requests: &[AcquireRequest]) -> Option<Vec<Claim>> {
        let answer = self.call("acquire", self.store.acquire(requests)).await;
        self.record_outcome(answer)
    }

    /// Releases claims. Returns whether the store has confirmed it.
    pub(super) async fn release(&mut self, releases: &[Release]) -> bool {
        let answer = self.call("release", self.store.release(releases)).await;
        self.record_outcome(answer).is_some()
    }

    /// Requests rows of other replicas.
    pub(super) async fn request_handover(&mut self, rows: &[(LockKey, Fence)]) {
        let answer = self.call("request_handover", self.store.request_handover(rows)).await;
        self.record_outcome(answer);
    }

    /// Declines the requests of others for rows of this replica.
    pub(super) async fn decline_handover(&mut self, rows: &[(LockKey, Fence)]) {
        let answer = self.call("decline_handover", self.store.decline_handover(rows)).await;
        self.record_outcome(answer);
    }

    /// Deletes rows that are finished, and rows of dead replicas.
    pub(super) async fn delete_rows(&mut self, keys: &[LockKey]) {
        let answer = self.call("delete_rows", self.store.delete_rows(keys)).await;
        self.record_outcome(answer);
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let answer = locks::call(&self.metrics, operation, CALL_DEADLINE, call).await;
        self.heartbeat.record();
        answer
    }

    fn record_outcome<T>(&mut self, answer: Result<T, BackendError>) -> Option<T> {
        match answer {
            Ok(value) => {
                if let Some((since, _)) = self.failing.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(seconds, "calls to the lock store succeed again");
                }
                Some(value)
            }
            Err(error) => {
                if self.failing.is_none() {
                    tracing::error!(%error, "a call to the lock store failed; no pod is claimed until calls succeed");
                    self.failing = Some((Instant::now(), error.to_string()));
                }
                None
            }
        }
    }
}
