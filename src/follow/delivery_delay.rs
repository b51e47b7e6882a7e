//! How late lines arrive: whether a stream is held up somewhere between the container and this process.
//!
//! The clocks of nodes and of this process are never compared. A line counts as late compared with the most punctual
//! line before it.

use std::time::Duration;

use crate::domain::Time;

/// By how much a timestamp must go back before the node's clock counts as set back, in nanoseconds: 2 s. Stdout and
/// stderr are stamped separately, so timestamps go back by some milliseconds in any log.
const CLOCK_STEP: i64 = 2_000_000_000;

/// How late the lines of one instance arrive.
#[derive(Debug, Default)]
pub(super) struct DeliveryDelay {
    /// Smallest difference so far between the arrival of a line and its timestamp, in nanoseconds. The two clocks are
    /// not related, so only differences of this figure mean something.
    least: Option<i64>,
    /// Timestamp of the latest line.
    latest: Option<Time>,
}

impl DeliveryDelay {
    /// How much later than the most punctual line a line with this timestamp arrives `now`.
    pub(super) fn of(&mut self, stamp: Time, now: Duration) -> Duration {
        // The clock of the timestamps was set back, so earlier lines cannot be compared with.
        if self
            .latest
            .is_some_and(|latest| latest.0.saturating_sub(stamp.0) >= CLOCK_STEP)
        {
            self.reset();
        }
        let late = self
            .least
            .map_or(0, |least| difference(stamp, now).saturating_sub(least).max(0));
        Duration::from_nanos(late.unsigned_abs())
    }

    /// Records that a line with this timestamp arrived `now`.
    pub(super) fn record(&mut self, stamp: Time, now: Duration) {
        let late = self.of(stamp, now);
        if self.least.is_none() || late.is_zero() {
            self.least = Some(difference(stamp, now));
        }
        self.latest = Some(stamp);
    }

    /// Forgets all lines: the next one counts as punctual.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

fn difference(stamp: Time, now: Duration) -> i64 {
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    now.saturating_sub(stamp.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_line_is_late_compared_with_the_most_punctual_line_before_it() {
        let (at, stamp) = (Duration::from_secs, |second| Time(second * SECOND));
        let mut delay = DeliveryDelay::default();
        assert_eq!(delay.of(Time(0), at(1000)), at(0), "nothing to compare with");
        delay.record(stamp(5000), at(10));
        delay.record(stamp(5004), at(16));
        assert_eq!(delay.of(stamp(5004), at(16)), at(2));
        assert_eq!(delay.of(stamp(5003), at(16)), at(3), "stdout and stderr mixed");
        assert_eq!(delay.of(stamp(5006), at(15)), at(0), "more punctual");
        assert_eq!(delay.of(stamp(5002), at(16)), at(0), "clock set back");
        assert_eq!(
            delay.of(stamp(5003), at(1000)),
            at(0),
            "nothing to compare with any more"
        );
        delay.record(Time(i64::MAX), at(0));
        delay.record(Time(i64::MIN), at(16));
        assert_eq!(delay.of(Time(i64::MAX), at(16)), at(0));
    }
}
