//! Trying again: a write that may succeed later is repeated for as long as the caller waits and the claim is good.
//!
//! Only chunks that were answered with `Again` are sent again; rejected and fenced ones are not. A series of failures is
//! logged when it begins and when it ends, not for each attempt and not for each stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tracing::{info, warn};

use super::sink::{Sink, SinkError, WriteResults};
use crate::clock::Clock;
use crate::domain::backoff::Backoff;
use crate::domain::{Chunk, Fence, Origin, Position};
use crate::metrics::Metrics;
use crate::sync::lock;

/// The first pause: after it a lost connection is replaced and a deadlock is over.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: how late it may be noticed that the sink works again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An outage that begins sooner than this after the last logged one is logged only if it lasts until then.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A sink that never answers `Again`. Dropping the call ends the attempts.
#[derive(Debug)]
pub struct Retrying<S> {
    inner: S,
    clock: Clock,
    metrics: Metrics,
    outage: Mutex<Outage>,
}

/// The failures of all writers together.
#[derive(Debug, Default)]
struct Outage {
    /// Writers whose last attempt failed.
    writers: usize,
    /// Boot-clock time of the first failure, and whether it was logged.
    begun: Option<(Duration, bool)>,
    /// Boot-clock time at which the begin of an outage was last logged.
    logged: Option<Duration>,
    /// Failed attempts since it began.
    attempts: u64,
}

impl<S: Sink> Retrying<S> {
    /// A sink that tries again.
    #[must_use]
    pub fn new(inner: S, clock: Clock, metrics: Metrics) -> Self {
        let outage = Mutex::default();
        Self {
            inner,
            clock,
            metrics,
            outage,
        }
    }
}

impl<S> Retrying<S> {
    /// Records a failed attempt; `first` is whether the writer's attempt before it did not fail.
    fn record_failure(&self, first: bool, why: &str) {
        let now = self.clock.now();
        let mut outage = lock(&self.outage);
        outage.attempts += 1;
        outage.writers += usize::from(first);
        let (begun, logged) = *outage.begun.get_or_insert((now, false));
        if !logged && outage.logged.is_none_or(|at| now.saturating_sub(at) >= LOG_INTERVAL) {
            outage.begun = Some((begun, true));
            outage.logged = Some(now);
            warn!(why, "the sink takes no records for now; trying again");
        }
    }

    /// Records that a writer no longer waits for its next attempt.
    fn record_end(&self) {
        let mut outage = lock(&self.outage);
        outage.writers = outage.writers.saturating_sub(1);
        if outage.writers > 0 {
            return;
        }
        let attempts = std::mem::take(&mut outage.attempts);
        if let Some((begun, true)) = outage.begun.take() {
            let lasted = self.clock.now().saturating_sub(begun);
            info!(
                attempts,
                lasted_ms = lasted.as_millis() as u64,
                "no write to the sink fails any more"
            );
        }
    }
}

#[async_trait]
impl<S: Sink> Sink for Retrying<S> {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        let mut failures = Failures::new(self);
        loop {
            match self.inner.open(origin, fence).await {
                Err(SinkError::Again { after, why }) => failures.pause(after, &why).await,
                result => return result,
            }
        }
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> WriteResults {
        let mut results = self.inner.write(chunks).await;
        let mut failures = Failures::new(self);
        loop {
            let Some((after, why)) = longest_pause(&results) else {
                return results;
            };
            failures.pause(after, &why).await;
            let now = self.clock.now();
            let (mut repeated, mut indexes) = (Vec::new(), Vec::new());
            for (index, (result, chunk)) in results.iter_mut().zip(chunks).enumerate() {
                if !matches!(result, Err(SinkError::Again { .. })) {
                    continue;
                }
                if chunk.deadline.allows(now, Duration::ZERO) {
                    repeated.push(chunk.clone());
                    indexes.push(index);
                } else {
                    *result = Err(SinkError::Fenced);
                }
            }
            if repeated.is_empty() {
                continue;
            }
            for (index, result) in indexes.into_iter().zip(self.inner.write(&repeated).await) {
                results[index] = result;
            }
        }
    }
}

/// The longest pause that was asked for, and a reason, if a chunk is to be tried again.
fn longest_pause(results: &[Result<(), SinkError>]) -> Option<(Option<Duration>, Arc<str>)> {
    let mut longest: Option<(Option<Duration>, Arc<str>)> = None;
    for result in results {
        if let Err(SinkError::Again { after, why }) = result {
            let before = longest.as_ref().and_then(|(before, _)| *before);
            longest = Some((before.max(*after), why.clone()));
        }
    }
    longest
}

/// The failed attempts of one call in a row; dropping it ends them.
struct Failures<'a, S> {
    sink: &'a Retrying<S>,
    backoff: Backoff,
    begun: bool,
}

impl<'a, S> Failures<'a, S> {
    fn new(sink: &'a Retrying<S>) -> Self {
        Self {
            sink,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            begun: false,
        }
    }

    /// Records a failure and waits until the next attempt.
    async fn pause(&mut self, after: Option<Duration>, why: &str) {
        self.sink.metrics.write_retries.inc();
        self.sink.record_failure(!self.begun, why);
        self.begun = true;
        let pause = self.backoff.next_wait(fastrand::f64()).max(after.unwrap_or_default());
        tokio::time::sleep(pause).await;
    }
}

impl<S> Drop for Failures<'_, S> {
    fn drop(&mut self) {
        if self.begun {
            self.sink.record_end();
        }
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
