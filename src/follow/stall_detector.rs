//! Whether this process has been running without a pause: a beat every second, and whether any came late.
//!
//! A process that was stopped, or got no CPU, receives nothing meanwhile. It would take its own pause for the silence
//! of a stream. The detector only answers questions; it never stops anything itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::defect::{self, Defect};
use crate::domain::time::nanos;

/// Time between two beats.
const BEAT: Duration = Duration::from_secs(1);

/// A beat this long after the one before is late. 0.5 s more than the interval is far more than a busy runtime needs,
/// and a quarter of the 2 s for which a stream must be silent.
const LATE: Duration = Duration::from_millis(1500);

/// The detector of one replica; clones share it. Unless it [`runs`](Self::run), the process counts as paused.
#[derive(Clone, Debug)]
pub struct StallDetector {
    clock: Clock,
    times: Arc<BeatTimes>,
}

/// Times in nanoseconds of the boot clock.
#[derive(Debug)]
struct BeatTimes {
    /// Time of the latest beat.
    last: AtomicU64,
    /// Time at which the latest stall ended.
    stall_ended: AtomicU64,
    /// Length of that stall.
    stall_length: AtomicU64,
}

/// The latest time for which the process did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Boot-clock time at which it ended: the process has run without a pause since.
    pub ended: Duration,
    /// How long it lasted, counted from the beat before it.
    pub length: Duration,
}

impl StallDetector {
    /// The detector of a process that starts now.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let now = nanos(clock.now());
        let times = BeatTimes {
            last: now.into(),
            stall_ended: now.into(),
            stall_length: 0.into(),
        };
        let times = Arc::new(times);
        Self { clock, times }
    }

    /// Beats once a second, for ever.
    pub async fn run(&self) -> Infallible {
        loop {
            let now = self.clock.now();
            let stall = self.latest_stall();
            self.times.stall_length.store(nanos(stall.length), Ordering::Release);
            self.times.stall_ended.store(nanos(stall.ended), Ordering::Release);
            // Stored last, so that a reader who sees this beat also sees the stall before it.
            self.times.last.store(nanos(now), Ordering::Release);
            self.clock.sleep_until(now + BEAT).await;
        }
    }

    /// The latest stall as of now. A beat that is overdue counts as late although it may still come: after a pause, the
    /// runtime may poll a stream before it polls the detector.
    #[must_use]
    pub fn latest_stall(&self) -> Stall {
        let read = |time: &AtomicU64| Duration::from_nanos(time.load(Ordering::Acquire));
        let last = read(&self.times.last);
        let now = self.clock.now();
        if now > last + LATE {
            return Stall {
                ended: now,
                length: now.saturating_sub(last),
            };
        }
        Stall {
            ended: read(&self.times.stall_ended),
            length: read(&self.times.stall_length),
        }
    }

    /// Whether the process has run without a pause for this long.
    #[must_use]
    pub fn ran_without_stall_for(&self, time: Duration) -> bool {
        self.clock.now() >= self.latest_stall().ended + time || defect::on(Defect::SleepForSilence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_known_before_and_after_the_next_beat() {
        let clock = Clock::tokio();
        let started = clock.now();
        let detector = StallDetector::new(clock);
        let watch = async {
            tokio::time::sleep(10 * SECOND).await;
            assert!(detector.ran_without_stall_for(10 * SECOND));
            assert!(!detector.ran_without_stall_for(11 * SECOND));
        };
        tokio::select! { biased; () = watch => {} _ = detector.run() => {} }
        // The detector is not polled meanwhile.
        tokio::time::advance(30 * SECOND).await;
        let stall = detector.latest_stall();
        assert!(stall.length >= 30 * SECOND && stall.ended == started + 40 * SECOND);
        assert!(!detector.ran_without_stall_for(SECOND));
        let watch = async {
            tokio::time::sleep(SECOND / 2).await;
            assert_eq!(detector.latest_stall().ended, stall.ended);
            tokio::time::sleep(SECOND * 3 / 2).await;
            assert!(detector.ran_without_stall_for(2 * SECOND));
        };
        tokio::select! { biased; () = watch => {} _ = detector.run() => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_detector_does_not_run_counts_as_paused() {
        let detector = StallDetector::new(Clock::tokio());
        tokio::time::advance(2 * SECOND).await;
        assert!(!detector.ran_without_stall_for(SECOND));
    }
}
