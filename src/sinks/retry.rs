//! Tries again what a sink could not store for now, for as long as the caller waits.
//!
//! Only chunks that answered `Again` are sent again; what was rejected or fenced is never touched.
//! A series of failures is logged when it begins and when it ends, not per try and not per stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tracing::{info, warn};

use super::sink::{Sink, SinkError};
use crate::clock::Clock;
use crate::domain::backoff::Backoff;
use crate::domain::{Chunk, Fence, Origin, Position};
use crate::metrics::Metrics;

/// The first wait: a lost connection or a deadlock is gone by then.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait: how late a sink's recovery may be noticed.
const LIMIT: Duration = Duration::from_secs(30);
/// A trouble that begins sooner than this after the last one that was logged is logged only if it lasts until then.
const QUIET: Duration = Duration::from_secs(30);

/// A sink that never answers `Again`. Dropping the call ends the tries.
#[derive(Debug)]
pub struct Retrying<S> {
    inner: S,
    clock: Clock,
    metrics: Metrics,
    trouble: Mutex<Trouble>,
}

/// What is known of the failures of all writers together.
#[derive(Debug, Default)]
struct Trouble {
    /// Writers that are in a series of failures.
    writers: usize,
    /// When the trouble began and whether that was logged.
    begun: Option<(Duration, bool)>,
    /// When a beginning was last logged.
    logged: Option<Duration>,
    /// Failed tries since it began.
    tries: u64,
}

impl<S: Sink> Retrying<S> {
    /// A sink that tries again.
    #[must_use]
    pub fn new(inner: S, clock: Clock, metrics: Metrics) -> Self {
        let trouble = Mutex::default();
        Self {
            inner,
            clock,
            metrics,
            trouble,
        }
    }
}

#[async_trait]
impl<S: Sink> Sink for Retrying<S> {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        let mut series = Series::new(self);
        loop {
            match self.inner.open(origin, fence).await {
                Err(SinkError::Again { after, why }) => series.wait(after, &why).await,
                answer => return answer,
            }
        }
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        let mut answers = self.inner.write(chunks).await;
        let mut series = Series::new(self);
        loop {
            let Some((after, why)) = worst(&answers) else {
                return answers;
            };
            series.wait(after, &why).await;
            let now = self.clock.now();
            let mut places = Vec::new();
            for (place, (answer, chunk)) in answers.iter_mut().zip(chunks).enumerate() {
                if !matches!(answer, Err(SinkError::Again { .. })) {
                    continue;
                }
                if chunk.deadline.allows(now, Duration::ZERO) {
                    places.push(place);
                } else {
                    *answer = Err(SinkError::Fenced);
                }
            }
            let again = if places.len() == chunks.len() {
                self.inner.write(chunks).await
            } else if places.is_empty() {
                Vec::new()
            } else {
                let some: Vec<Arc<Chunk>> = places.iter().map(|&place| chunks[place].clone()).collect();
                self.inner.write(&some).await
            };
            for (place, answer) in places.into_iter().zip(again) {
                answers[place] = answer;
            }
        }
    }
}

/// The longest pause asked for, and a reason, when something is to be tried again.
fn worst(answers: &[Result<(), SinkError>]) -> Option<(Option<Duration>, Arc<str>)> {
    let mut worst: Option<(Option<Duration>, Arc<str>)> = None;
    for answer in answers {
        if let Err(SinkError::Again { after, why }) = answer {
            let longest = worst.as_ref().and_then(|(longest, _)| *longest);
            worst = Some((longest.max(*after), why.clone()));
        }
    }
    worst
}

/// One writer's failures in a row; ends when dropped.
struct Series<'a, S> {
    sink: &'a Retrying<S>,
    backoff: Backoff,
    begun: bool,
}

impl<'a, S> Series<'a, S> {
    fn new(sink: &'a Retrying<S>) -> Self {
        Self {
            sink,
            backoff: Backoff::new(FIRST, LIMIT),
            begun: false,
        }
    }

    /// Notes a failure and waits until the next try.
    async fn wait(&mut self, after: Option<Duration>, why: &str) {
        self.sink.metrics.write_retries.inc();
        self.sink.failed(!self.begun, why);
        self.begun = true;
        let pause = self.backoff.wait(fastrand::f64()).max(after.unwrap_or_default());
        tokio::time::sleep(pause).await;
    }
}

impl<S> Drop for Series<'_, S> {
    fn drop(&mut self) {
        if self.begun {
            self.sink.ended();
        }
    }
}

impl<S> Retrying<S> {
    fn failed(&self, first: bool, why: &str) {
        let now = self.clock.now();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.tries += 1;
        trouble.writers += usize::from(first);
        let (begun, told) = *trouble.begun.get_or_insert((now, false));
        if !told && trouble.logged.is_none_or(|at| now.saturating_sub(at) >= QUIET) {
            trouble.begun = Some((begun, true));
            trouble.logged = Some(now);
            warn!(why, "the sink takes no records for now; trying again");
        }
    }

    fn ended(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.writers = trouble.writers.saturating_sub(1);
        if trouble.writers > 0 {
            return;
        }
        let tries = std::mem::take(&mut trouble.tries);
        if let Some((begun, true)) = trouble.begun.take() {
            let lasted = self.clock.now().saturating_sub(begun);
            info!(
                tries,
                lasted_ms = lasted.as_millis() as u64,
                "no writer waits for the sink any more"
            );
        }
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
