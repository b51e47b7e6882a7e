//! How late lines come: whether a stream is being held up somewhere between the container and here.
//!
//! The clocks of nodes and of this process are never compared. What counts is how much later a line comes after its
//! stamp than the most punctual one before it.

use std::time::Duration;

use crate::domain::Time;

/// A container's two streams are stamped by two writers, so stamps go back by some milliseconds; 2 s are no such thing.
const SET_BACK: i64 = 2_000_000_000;

/// The most punctual line of the streams of one instance, and the latest.
#[derive(Debug, Default)]
pub(super) struct DeliveryDelay {
    /// What lies between the stamp of the one and its arrival, in nanoseconds of two clocks that know nothing of each
    /// other.
    least: Option<i64>,
    /// The stamp of the other.
    latest: Option<Time>,
}

impl DeliveryDelay {
    /// How much later than the most punctual line this one comes `now`. Where the clock of the stamps was set back,
    /// all lines before are forgotten.
    pub(super) fn of(&mut self, stamp: Time, now: Duration) -> Duration {
        // Nothing can be compared with what a clock said that was set back since.
        if self
            .latest
            .is_some_and(|latest| latest.0.saturating_sub(stamp.0) >= SET_BACK)
        {
            self.forget();
        }
        let late = self
            .least
            .map_or(0, |least| between(stamp, now).saturating_sub(least).max(0));
        Duration::from_nanos(late.unsigned_abs())
    }

    /// A line of this stamp has come `now`, and is taken.
    pub(super) fn note(&mut self, stamp: Time, now: Duration) {
        let late = self.of(stamp, now);
        if self.least.is_none() || late.is_zero() {
            self.least = Some(between(stamp, now));
        }
        self.latest = Some(stamp);
    }

    /// Punctual is what comes from now on.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn between(stamp: Time, now: Duration) -> i64 {
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    now.saturating_sub(stamp.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_line_is_as_late_as_it_comes_after_the_most_punctual_one() {
        let (at, stamp) = (Duration::from_secs, |second| Time(second * SECOND));
        let mut lag = DeliveryDelay::default();
        assert_eq!(lag.of(Time(0), at(1000)), at(0), "nothing to compare with");
        lag.note(stamp(5000), at(10));
        lag.note(stamp(5004), at(16));
        assert_eq!(lag.of(stamp(5004), at(16)), at(2));
        assert_eq!(lag.of(stamp(5003), at(16)), at(3), "of two writers");
        assert_eq!(lag.of(stamp(5006), at(15)), at(0), "more punctual");
        assert_eq!(lag.of(stamp(5002), at(16)), at(0), "set back");
        assert_eq!(lag.of(stamp(5003), at(1000)), at(0), "nothing to compare with any more");
        lag.note(Time(i64::MAX), at(0));
        lag.note(Time(i64::MIN), at(16));
        assert_eq!(lag.of(Time(i64::MAX), at(16)), at(0));
    }
}
