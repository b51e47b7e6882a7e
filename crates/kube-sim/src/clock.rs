//! The one clock of the simulated cluster: a wall-clock reading taken at creation plus the time tokio says has
//! passed since. A paused tokio clock therefore makes every stamp repeatable. It never reads the wall clock twice.

use jiff::Timestamp;
use tokio::time::Instant;

/// Nanoseconds in a second.
pub(super) const SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970, advancing with tokio's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base: i64,
    started: Instant,
}

impl Clock {
    /// A clock that shows `base` now.
    pub(super) fn starting_at(base: Timestamp) -> Self {
        Self {
            base: base.as_nanosecond() as i64,
            started: Instant::now(),
        }
    }

    /// What it showed at first.
    pub(super) fn base(&self) -> i64 {
        self.base
    }

    /// What it shows now.
    pub(super) fn now(&self) -> i64 {
        self.base + self.started.elapsed().as_nanos() as i64
    }
}

/// Renders a status time as Kubernetes does: UTC, whole seconds.
pub(super) fn seconds(nanos: i64) -> String {
    civil(nanos).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Renders a log stamp: UTC, always nine digits.
pub(super) fn nine_digits(nanos: i64) -> String {
    civil(nanos).strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// An `i64` of nanoseconds always fits; the fallback is never seen.
fn civil(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_have_nine_digits_and_status_times_none() {
        assert_eq!(nine_digits(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(seconds(1_999_999_999), "1970-01-01T00:00:01Z");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_moves_with_tokio() {
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), 0);
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert_eq!(clock.now(), 2 * SECOND);
    }
}
