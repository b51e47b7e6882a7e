//! How many follow streams may be open, and how fast any are opened.
//!
//! The API server protects itself neither from too many log streams nor from too many at once, and
//! each follower costs its node an inotify instance, of which there are 128 by default. Nothing
//! here opens a stream; whoever does comes through here first. Turns to open are first come, first
//! served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// StreamLimits of one replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamLimits {
    /// Follow streams on one node.
    pub per_node: usize,
    /// Follow streams in all.
    pub total: usize,
    /// Streams opened a second, in the long run.
    pub opens_per_second: f64,
    /// Streams that may be opened at once after a pause.
    pub burst: u32,
}

/// Streams that a replica may open at once after a pause: what a job's end or a small rollout needs; at
/// about 4 ms each they are 0.1 s of a server's CPU.
pub const BURST: u32 = 20;

/// The limiter. Cloning shares it.
#[derive(Clone, Debug)]
pub struct StreamLimiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: StreamLimits,
    total: Arc<Semaphore>,
    nodes: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    bucket: tokio::sync::Mutex<Bucket>,
    waiting: Gauge,
}

/// The leave to have one follow stream open, given back when dropped.
#[derive(Debug)]
pub struct StreamPermit {
    node: Arc<str>,
    /// Taken when dropped, before the node is looked at.
    on_node: Option<OwnedSemaphorePermit>,
    _total: OwnedSemaphorePermit,
    limiter: Arc<Inner>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut nodes = self.limiter.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.on_node.take());
        // Nodes come and go; one that nobody uses or waits for is forgotten.
        if nodes.get(&self.node).is_some_and(|node| Arc::strong_count(node) == 1) {
            nodes.remove(&self.node);
        }
    }
}

/// Counts one waiter while it lives.
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
    /// A limiter that nobody has passed yet. A limit of zero counts as one: it would block for ever.
    #[must_use]
    pub fn new(limits: StreamLimits, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            limits,
            total: Arc::new(Semaphore::new(limits.total.clamp(1, Semaphore::MAX_PERMITS))),
            nodes: Mutex::default(),
            bucket: tokio::sync::Mutex::new(Bucket::new(limits)),
            waiting: metrics.streams_waiting.clone(),
        }))
    }

    /// The leave for one more follow stream on this node; `None` when there is no room: whoever wants it
    /// polls instead.
    #[must_use]
    pub fn try_acquire(&self, node: &str) -> Option<StreamPermit> {
        let (node, semaphore) = self.node(node);
        let on_node = semaphore.try_acquire_owned().ok()?;
        let total = Arc::clone(&self.0.total).try_acquire_owned().ok()?;
        Some(self.turn(node, on_node, total))
    }

    /// Waits for the turn to open a stream of any sort. Giving up while waiting uses no turn.
    pub async fn wait_to_open(&self) {
        let _waiter = Waiter::new(&self.0.waiting);
        // The lock queues fairly, and whoever holds it is the one who waits for the next turn.
        let mut bucket = self.0.bucket.lock().await;
        tokio::time::sleep_until(bucket.next()).await;
        bucket.take(fastrand::f64());
    }

    /// A turn to open a stream, if one can be had at once. What can wait takes no part in the queue.
    #[must_use]
    pub fn try_open(&self) -> bool {
        let Ok(mut bucket) = self.0.bucket.try_lock() else {
            return false;
        };
        let due = bucket.next() <= Instant::now();
        if due {
            bucket.take(fastrand::f64());
        }
        due
    }

    fn turn(&self, node: Arc<str>, on_node: OwnedSemaphorePermit, total: OwnedSemaphorePermit) -> StreamPermit {
        StreamPermit {
            node,
            on_node: Some(on_node),
            _total: total,
            limiter: Arc::clone(&self.0),
        }
    }

    fn node(&self, node: &str) -> (Arc<str>, Arc<Semaphore>) {
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
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

/// A token bucket as one instant: when the next turn is due. Lying in the past by up to `burst`
/// intervals it stands for saved turns.
#[derive(Debug)]
struct Bucket {
    due: Instant,
    interval: Duration,
    saved: Duration,
}

impl Bucket {
    fn new(limits: StreamLimits) -> Self {
        // Between one a minute and a million a second.
        let interval = Duration::from_secs_f64(1.0 / limits.opens_per_second.clamp(1.0 / 60.0, 1e6));
        let saved = interval * limits.burst.saturating_sub(1);
        let now = Instant::now();
        Self {
            due: now.checked_sub(saved).unwrap_or(now),
            interval,
            saved,
        }
    }

    fn next(&self) -> Instant {
        self.due
    }

    /// Uses a turn. The next is half to one and a half intervals later, so that replicas that began
    /// together do not stay in step; on average the rate holds.
    fn take(&mut self, jitter: f64) {
        let now = Instant::now();
        let earliest = now.checked_sub(self.saved).unwrap_or(now);
        self.due = self.due.max(earliest) + self.interval.mul_f64(0.5 + jitter);
    }
}

#[cfg(test)]
#[path = "stream_limits_tests.rs"]
mod tests;
