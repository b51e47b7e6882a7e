//! The clock with which a replica measures its own claims. It is monotonic, and runs while the machine is suspended.
//!
//! It is never compared with the clock of another machine or of a database. [`wall`] is only for display and for the
//! age of lines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::Time;

/// The longest single sleep, so that a task notices within this time that the machine was suspended. Writes check the
/// time themselves; this only limits how long a stream stays open after its deadline.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// The wall-clock time of this machine. No decision about claims uses it.
#[must_use]
pub fn wall() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}

/// A monotonic clock. It is a value, so that tests can pass the paused clock of their runtime.
#[derive(Clone, Copy, Debug)]
pub struct Clock(fn() -> Duration);

impl Clock {
    /// Time since boot, including suspend. `Instant` cannot be used: on Linux it stops during suspend, and a replica
    /// that wakes up would believe that its claims are still valid.
    #[must_use]
    pub fn boottime() -> Self {
        Self(|| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
        })
    }

    /// The clock of the current single-threaded Tokio runtime, which a test can pause. It starts at one day, so that
    /// subtracting from it is safe. It has whole milliseconds, like Tokio's timers: the rest would depend on the real
    /// time at which the runtime was created.
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

    /// The current time.
    #[must_use]
    pub fn now(self) -> Duration {
        (self.0)()
    }

    /// The time since `then`.
    #[must_use]
    pub fn since(self, then: Duration) -> Duration {
        self.now().saturating_sub(then)
    }

    /// Sleeps until `deadline`. Checks the time after each wake-up, because the timer of the runtime stops during
    /// suspend and this clock does not.
    pub async fn sleep_until(self, deadline: Duration) {
        while let Some(left) = deadline.checked_sub(self.now()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}
