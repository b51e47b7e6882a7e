//! The clock of the simulated cluster, and how timestamps are written. The clock starts at a given time and advances
//! with tokio's clock, so timestamps are repeatable while tokio's clock is paused. It never reads the wall clock.

use jiff::Timestamp;
use tokio::time::Instant;

/// Nanoseconds in a second.
pub(super) const SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970, advancing with tokio's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimClock {
    base: i64,
    started: Instant,
}

impl SimClock {
    /// A clock that shows `base` now and advances from there.
    pub(super) fn starting_at(base: Timestamp) -> Self {
        Self {
            base: base.as_nanosecond() as i64,
            started: Instant::now(),
        }
    }

    /// The time at which it started.
    pub(super) fn base(&self) -> i64 {
        self.base
    }

    /// The time now.
    pub(super) fn now(&self) -> i64 {
        self.base + self.started.elapsed().as_nanos() as i64
    }
}

/// A time as in the status of an object: UTC, whole seconds.
pub(super) fn format_seconds(nanos: i64) -> String {
    to_timestamp(nanos).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as in a log line: UTC, always nine digits after the point.
pub(super) fn format_nanoseconds(nanos: i64) -> String {
    to_timestamp(nanos).strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// Every `i64` of nanoseconds fits, so the fallback is never used.
fn to_timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_timestamps_have_nine_digits_and_status_times_have_none() {
        assert_eq!(format_nanoseconds(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(format_seconds(1_999_999_999), "1970-01-01T00:00:01Z");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_moves_with_tokio() {
        let clock = SimClock::starting_at(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), 0);
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert_eq!(clock.now(), 2 * SECOND);
    }
}
