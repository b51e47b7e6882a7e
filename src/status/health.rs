//! Health: loops that must keep turning, and when each last did.
//!
//! A replica is unhealthy when a loop is stuck, not when something outside fails: restarting it
//! would not help then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// The loops of one replica. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Health {
    clock: Clock,
    loops: Arc<Mutex<Vec<Loop>>>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    limit: Duration,
    last: Arc<AtomicU64>,
}

/// The pulse of one loop. Dropping it without [`retire`](Self::retire) leaves the loop late.
#[derive(Debug)]
pub struct Heart {
    clock: Clock,
    last: Arc<AtomicU64>,
}

/// A loop that has not turned in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The loop.
    pub name: &'static str,
    /// How long ago it last turned.
    pub since: Duration,
}

/// Stands for a loop that has ended as it should.
const RETIRED: u64 = u64::MAX;

impl Health {
    /// Judged by this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let loops = Arc::default();
        Self { clock, loops }
    }

    /// Adds a loop that must turn at least every `limit`, beginning now.
    #[must_use]
    pub fn heart(&self, name: &'static str, limit: Duration) -> Heart {
        let heart = Heart {
            clock: self.clock,
            last: Arc::default(),
        };
        heart.beat();
        let last = Arc::clone(&heart.last);
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Loop { name, limit, last });
        heart
    }

    /// The loops that have not turned in time.
    #[must_use]
    pub fn late(&self) -> Vec<Late> {
        let now = self.clock.now();
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |one: &Loop| match one.last.load(Ordering::Relaxed) {
            RETIRED => Duration::ZERO,
            nanos => now.saturating_sub(Duration::from_nanos(nanos)),
        };
        loops
            .iter()
            .map(|one| (one, since(one)))
            .filter(|(one, since)| *since > one.limit)
            .map(|(one, since)| Late { name: one.name, since })
            .collect()
    }
}

impl Heart {
    /// The loop has turned.
    pub fn beat(&self) {
        // 584 years of uptime.
        let nanos = u64::try_from(self.clock.now().as_nanos()).unwrap_or(RETIRED - 1);
        self.last.store(nanos, Ordering::Relaxed);
    }

    /// The loop ends and is judged no more.
    pub fn retire(self) {
        self.last.store(RETIRED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_late_until_it_turns_or_retires() {
        let health = Health::new(Clock::tokio());
        let limit = Duration::from_secs(15);
        let (renewal, collector) = (health.heart("renewal", limit), health.heart("collector", limit));
        tokio::time::advance(limit).await;
        assert_eq!(health.late(), []);
        collector.beat();
        tokio::time::advance(Duration::from_secs(1)).await;
        let since = Duration::from_secs(16);
        assert_eq!(health.late(), [Late { name: "renewal", since }]);
        renewal.retire();
        assert_eq!(health.late(), []);
        drop(collector);
        tokio::time::advance(limit).await;
        assert_eq!(health.late().len(), 1, "dropped without retiring");
    }
}
