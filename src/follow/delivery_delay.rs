//! How much later a line of a stream arrives than the most punctual line before it: whether the stream is held up
//! somewhere between the container and this process.
//!
//! The clocks of nodes and of this process are never compared. How old lines are when they are stored is another
//! quantity, the metric `podlog_line_age_seconds`.

use std::time::Duration;

use crate::domain::Time;

/// By how much a timestamp must go back before the node's clock counts as set back, in nanoseconds: 2 s. Stdout and
/// stderr are stamped separately, so timestamps go back by some milliseconds in any log.
const CLOCK_STEP: i64 = 2_000_000_000;

/// How late the lines of one instance arrive.
#[derive(Debug, Default)]
pub(super) struct DeliveryDelay {
    /// Smallest difference so far between the arrival of a line and its timestamp, in nanoseconds. The two clocks are
    /// not related, so the figure alone means nothing: it is only compared with that of another line.
    smallest_difference: Option<i64>,
    /// Timestamp of the latest line.
    latest_stamp: Option<Time>,
}

impl DeliveryDelay {
    /// How much later than the most punctual line a line with this timestamp arrives `now`.
    pub(super) fn measure(&mut self, stamp: Time, now: Duration) -> Duration {
        // The node's clock was set back, so this line cannot be compared with earlier ones.
        if self
            .latest_stamp
            .is_some_and(|latest| latest.0.saturating_sub(stamp.0) >= CLOCK_STEP)
        {
            self.reset();
        }
        let late = self
            .smallest_difference
            .map_or(0, |smallest| difference(stamp, now).saturating_sub(smallest).max(0));
        Duration::from_nanos(late.unsigned_abs())
    }

    /// Records that a line with this timestamp arrived `now`.
    pub(super) fn record(&mut self, stamp: Time, now: Duration) {
        let late = self.measure(stamp, now);
        if self.smallest_difference.is_none() || late.is_zero() {
            self.smallest_difference = Some(difference(stamp, now));
        }
        self.latest_stamp = Some(stamp);
    }

    /// Forgets all lines: the next one counts as punctual.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The arrival of a line minus its timestamp, in nanoseconds.
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
        assert_eq!(delay.measure(Time(0), at(1000)), at(0), "nothing to compare with");
        delay.record(stamp(5000), at(10));
        delay.record(stamp(5004), at(16));
        assert_eq!(delay.measure(stamp(5004), at(16)), at(2));
        assert_eq!(delay.measure(stamp(5003), at(16)), at(3), "stdout and stderr mixed");
        assert_eq!(delay.measure(stamp(5006), at(15)), at(0), "more punctual");
        assert_eq!(delay.measure(stamp(5002), at(16)), at(0), "clock set back");
        assert_eq!(
            delay.measure(stamp(5003), at(1000)),
            at(0),
            "nothing to compare with any more"
        );
        delay.record(Time(i64::MAX), at(0));
        delay.record(Time(i64::MIN), at(16));
        assert_eq!(delay.measure(Time(i64::MAX), at(16)), at(0));
    }
}
