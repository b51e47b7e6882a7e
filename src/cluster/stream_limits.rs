//! Limits the number of open follow streams, and how fast streams are opened.
//!
//! The API server protects itself against neither, and each follow stream costs its node an inotify instance, of which
//! there are 128 by default. Nothing here opens a stream; the caller acquires a permit first. Waiting callers are served
//! in their order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::sync::lock;

/// The limits of one replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamLimits {
    /// The most follow streams on one node.
    pub per_node: usize,
    /// The most follow streams on all nodes together.
    pub total: usize,
    /// Streams opened per second, on average.
    pub opens_per_second: f64,
    /// The most streams that are opened at once after a pause.
    pub burst: u32,
}

/// The usual burst: enough for the end of a job or a small rollout. 20 x 4 ms = 0.1 s of the API server's CPU.
pub const BURST: u32 = 20;

/// Enforces the limits. Clones share it.
#[derive(Clone, Debug)]
pub struct StreamLimiter(Arc<LimiterInner>);

#[derive(Debug)]
struct LimiterInner {
    limits: StreamLimits,
    total: Arc<Semaphore>,
    nodes: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    bucket: tokio::sync::Mutex<Bucket>,
    waiting: Gauge,
}

/// The permission to have one follow stream open, returned when dropped.
#[derive(Debug)]
pub struct StreamPermit {
    node: Arc<str>,
    /// `None` only while it is dropped: the permit of the node is returned before the node is checked.
    on_node: Option<OwnedSemaphorePermit>,
    _total: OwnedSemaphorePermit,
    limiter: Arc<LimiterInner>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut nodes = lock(&self.limiter.nodes);
        drop(self.on_node.take());
        // Nodes come and go; an unused one is removed.
        if nodes.get(&self.node).is_some_and(|node| Arc::strong_count(node) == 1) {
            nodes.remove(&self.node);
        }
    }
}

/// Counts one waiting caller in the metrics until it is dropped.
struct Waiter<'a>(&'a Gauge);

impl<'a> Waiter<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl StreamLimiter {
    /// A limiter without permits taken. A limit of zero counts as one, because zero would block for ever.
    #[must_use]
    pub fn new(limits: StreamLimits, metrics: &Metrics) -> Self {
        Self(Arc::new(LimiterInner {
            limits,
            total: Arc::new(Semaphore::new(limits.total.clamp(1, Semaphore::MAX_PERMITS))),
            nodes: Mutex::default(),
            bucket: tokio::sync::Mutex::new(Bucket::new(limits)),
            waiting: metrics.streams_waiting.clone(),
        }))
    }

    /// A permit for one more follow stream on this node; `None` when the node or the replica has no room. The caller then
    /// polls instead.
    #[must_use]
    pub fn try_acquire(&self, node: &str) -> Option<StreamPermit> {
        let (node, semaphore) = self.node(node);
        let on_node = semaphore.try_acquire_owned().ok()?;
        let total = Arc::clone(&self.0.total).try_acquire_owned().ok()?;
        Some(StreamPermit {
            node,
            on_node: Some(on_node),
            _total: total,
            limiter: Arc::clone(&self.0),
        })
    }

    /// Waits until a stream of any kind may be opened. A wait that is cancelled uses nothing of the rate.
    pub async fn wait_to_open(&self) {
        let _waiter = Waiter::new(&self.0.waiting);
        // The lock is fair: waiting callers get it in their order, and the one that has it waits for the bucket.
        let mut bucket = self.0.bucket.lock().await;
        tokio::time::sleep_until(bucket.due).await;
        bucket.take(fastrand::f64());
    }

    /// Whether a stream may be opened at once; if so, it counts as opened. Never waits, for callers that can try later.
    #[must_use]
    pub fn try_open(&self) -> bool {
        let Ok(mut bucket) = self.0.bucket.try_lock() else {
            return false;
        };
        let due = bucket.due <= Instant::now();
        if due {
            bucket.take(fastrand::f64());
        }
        due
    }

    fn node(&self, node: &str) -> (Arc<str>, Arc<Semaphore>) {
        let mut nodes = lock(&self.0.nodes);
        if let Some((name, semaphore)) = nodes.get_key_value(node) {
            return (Arc::clone(name), Arc::clone(semaphore));
        }
        let name: Arc<str> = node.into();
        let room = self.0.limits.per_node.clamp(1, Semaphore::MAX_PERMITS);
        let semaphore = Arc::new(Semaphore::new(room));
        nodes.insert(Arc::clone(&name), Arc::clone(&semaphore));
        (name, semaphore)
    }
}

/// A token bucket, stored as one instant.
#[derive(Debug)]
struct Bucket {
    /// When the next stream may be opened. An instant in the past means that tokens are saved.
    due: Instant,
    /// The average time between two streams.
    interval: Duration,
    /// How far `due` may lie in the past: `burst - 1` intervals.
    saved: Duration,
}

impl Bucket {
    fn new(limits: StreamLimits) -> Self {
        // Between one per minute and a million per second.
        let interval = Duration::from_secs_f64(1.0 / limits.opens_per_second.clamp(1.0 / 60.0, 1e6));
        let saved = interval * limits.burst.saturating_sub(1);
        let now = Instant::now();
        Self {
            due: now.checked_sub(saved).unwrap_or(now),
            interval,
            saved,
        }
    }

    /// Takes a token. The next is due 0.5 to 1.5 intervals later, one on average, so that replicas that began together
    /// do not open streams at the same moments. `jitter` is from 0 to 1.
    fn take(&mut self, jitter: f64) {
        let now = Instant::now();
        let earliest = now.checked_sub(self.saved).unwrap_or(now);
        self.due = self.due.max(earliest) + self.interval.mul_f64(0.5 + jitter);
    }
}

#[cfg(test)]
#[path = "stream_limits_tests.rs"]
mod tests;
