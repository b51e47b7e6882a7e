//! The clock by which a replica judges its own claims: monotonic, and running during suspend.
//!
//! It is never compared with the clock of another machine or of a database. [`wall`] is for people and for lines' ages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::Time;

/// How late a sleeper may notice that the machine was suspended. Writes check the time themselves,
/// so this bounds only how long a stopped stream stays open.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// The time of day on this machine. Nothing about claims is decided by it.
#[must_use]
pub fn wall() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}

/// A monotonic clock. A value, so that tests can hand in the paused clock of their runtime.
#[derive(Clone, Copy, Debug)]
pub struct Clock(fn() -> Duration);

impl Clock {
    /// Time since boot, suspend included. `Instant` will not do: on Linux it stops during suspend,
    /// and a replica that wakes up would believe its claims are still good.
    #[must_use]
    pub fn boottime() -> Self {
        Self(|| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
        })
    }

    /// The clock of the current single-threaded Tokio runtime, which a test can pause. Begins at one
    /// day, so that subtracting from it is safe. Shows whole milliseconds, as Tokio's timers do: what
    /// is below depends on when in real time the runtime was made, and differs from run to run.
    #[must_use]
    pub fn tokio() -> Self {
        thread_local! {
            static BASE: std::cell::OnceCell<tokio::time::Instant> = const { std::cell::OnceCell::new() };
        }
        Self(|| {
            let base = BASE.with(|base| *base.get_or_init(tokio::time::Instant::now));
            let passed = tokio::time::Instant::now().duration_since(base);
            Duration::from_hours(24) + Duration::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Duration {
        (self.0)()
    }

    /// Time passed since `then`.
    #[must_use]
    pub fn since(self, then: Duration) -> Duration {
        self.now().saturating_sub(then)
    }

    /// Sleeps until `deadline`. Looks again after waking up, because the runtime's timer stops
    /// during suspend and this clock does not.
    pub async fn sleep_until(self, deadline: Duration) {
        while let Some(left) = deadline.checked_sub(self.now()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}
