//! Computes the rate at which lines are stored, and stalls, from counts. It reads no clock and does no I/O.

use std::collections::VecDeque;
use std::time::Duration;

/// The time over which the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(3);

/// How long no line is stored, although lines are missing, until that counts as a stall.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// The counts of the last seconds. Times are since the demo began.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    counts: VecDeque<(Duration, u64)>,
    last_growth: Duration,
    stalled: bool,
}

/// A change that a count has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgressChange {
    /// No line was stored for [`STALL`], and this many lines are missing.
    Stalled(u64),
    /// Lines are stored again.
    Resumed,
}

impl Progress {
    /// Records that `stored` of `expected` lines are stored `at` this time.
    pub(super) fn record(&mut self, at: Duration, stored: u64, expected: u64) -> Option<ProgressChange> {
        let before = self.counts.back().map_or(0, |(_, stored)| *stored);
        self.counts.push_back((at, stored));
        while self.counts.front().is_some_and(|(then, _)| at > *then + RATE_OVER) {
            self.counts.pop_front();
        }
        if stored > before || stored >= expected {
            self.last_growth = at;
            return std::mem::take(&mut self.stalled).then_some(ProgressChange::Resumed);
        }
        let stalls = self.is_stalled(at) && !self.stalled;
        self.stalled |= stalls;
        stalls.then_some(ProgressChange::Stalled(expected - stored))
    }

    /// Whether no line was stored for [`STALL`].
    pub(super) fn is_stalled(&self, at: Duration) -> bool {
        at > self.last_growth + STALL
    }

    /// Lines stored per second during the last seconds.
    pub(super) fn per_second(&self) -> u64 {
        let (Some((from, few)), Some((to, many))) = (self.counts.front(), self.counts.back()) else {
            return 0;
        };
        let seconds = to.saturating_sub(*from).as_secs_f64();
        if seconds > 0.0 {
            (many.saturating_sub(*few) as f64 / seconds).round() as u64
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_once_and_so_is_its_end() {
        let mut progress = Progress::default();
        let second = Duration::from_secs;
        let reported: Vec<_> = [
            (1, 5, 9),
            (2, 5, 9),
            (5, 5, 9),
            (6, 5, 9),
            (7, 6, 9),
            (8, 9, 9),
            (20, 9, 9),
        ]
        .into_iter()
        .map(|(at, stored, expected)| progress.record(second(at), stored, expected))
        .collect();
        let stalled = Some(ProgressChange::Stalled(4));
        assert_eq!(
            reported,
            [None, None, stalled, None, Some(ProgressChange::Resumed), None, None]
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut progress = Progress::default();
        assert_eq!(progress.per_second(), 0);
        for at in 0..=10 {
            let stored = if at < 5 { 0 } else { (at - 5) * 100 };
            progress.record(Duration::from_secs(at), stored, 1_000);
        }
        assert_eq!(progress.per_second(), 100);
    }
}
