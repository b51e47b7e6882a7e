//! Health: the loops that must keep running, and when each last ran.
//!
//! A replica is unhealthy when a loop is stuck. It is not unhealthy when something outside fails: a restart would not help
//! then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::sync::lock;

/// The loops of one replica. Clones share them.
#[derive(Clone, Debug)]
pub struct Health {
    clock: Clock,
    loops: Arc<Mutex<Vec<Loop>>>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    /// The longest time between two heartbeats.
    limit: Duration,
    /// Clock time of the last heartbeat in nanoseconds, or [`RETIRED`].
    last: Arc<AtomicU64>,
}

/// The heartbeat of one loop. If it is dropped without [`retire`](Self::retire), the loop counts as stuck.
#[derive(Debug)]
pub struct Heartbeat {
    clock: Clock,
    last: Arc<AtomicU64>,
}

/// A loop that has not run in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckLoop {
    /// The loop.
    pub name: &'static str,
    /// The time since its last heartbeat.
    pub since: Duration,
}

/// The heartbeat of a loop that has ended as intended.
const RETIRED: u64 = u64::MAX;

impl Health {
    /// No loops yet; times are of this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let loops = Arc::default();
        Self { clock, loops }
    }

    /// Adds a loop that must run at least every `limit`, starting now.
    #[must_use]
    pub fn register(&self, name: &'static str, limit: Duration) -> Heartbeat {
        let heartbeat = Heartbeat {
            clock: self.clock,
            last: Arc::default(),
        };
        heartbeat.record();
        let last = Arc::clone(&heartbeat.last);
        lock(&self.loops).push(Loop { name, limit, last });
        heartbeat
    }

    /// The loops that have not run in time.
    #[must_use]
    pub fn stuck(&self) -> Vec<StuckLoop> {
        let now = self.clock.now();
        let loops = lock(&self.loops);
        let since = |watched: &Loop| match watched.last.load(Ordering::Relaxed) {
            RETIRED => Duration::ZERO,
            nanos => now.saturating_sub(Duration::from_nanos(nanos)),
        };
        loops
            .iter()
            .map(|watched| (watched, since(watched)))
            .filter(|(watched, since)| *since > watched.limit)
            .map(|(watched, since)| StuckLoop {
                name: watched.name,
                since,
            })
            .collect()
    }
}

impl Heartbeat {
    /// Records that the loop has run.
    pub fn record(&self) {
        // u64 nanoseconds are 584 years of uptime.
        let nanos = u64::try_from(self.clock.now().as_nanos()).unwrap_or(RETIRED - 1);
        self.last.store(nanos, Ordering::Relaxed);
    }

    /// Records that the loop has ended as intended. Its time no longer counts.
    pub fn retire(self) {
        self.last.store(RETIRED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_run_is_stuck_until_it_runs_or_retires() {
        let health = Health::new(Clock::tokio());
        let limit = Duration::from_secs(15);
        let (renewal, collector) = (health.register("renewal", limit), health.register("collector", limit));
        tokio::time::advance(limit).await;
        assert_eq!(health.stuck(), []);
        collector.record();
        tokio::time::advance(Duration::from_secs(1)).await;
        let since = Duration::from_secs(16);
        assert_eq!(health.stuck(), [StuckLoop { name: "renewal", since }]);
        renewal.retire();
        assert_eq!(health.stuck(), []);
        drop(collector);
        tokio::time::advance(limit).await;
        assert_eq!(health.stuck().len(), 1, "dropped without retiring");
    }
}
