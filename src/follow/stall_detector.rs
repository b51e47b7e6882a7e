//! Whether this process has been running all the time: a beat a second, and whether any came late.
//!
//! A process that was stopped, or starved of CPU, hears nothing meanwhile, and so may take its own stall for the
//! silence of a stream. It never stops anything itself; it is asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// Time between two beats.
const BEAT: Duration = Duration::from_secs(1);

/// A beat that comes so long after the one before is late: half a second more than a beat, which is far
/// more than a busy runtime needs and leaves a quarter of the 2 s in which a stream must be silent.
const LATE: Duration = Duration::from_millis(1500);

/// The detector of one replica. Cloning shares it. Without anybody who [`beats`](Self::beat) it, the process counts
/// as asleep.
#[derive(Clone, Debug)]
pub struct StallDetector {
    clock: Clock,
    times: Arc<BeatTimes>,
}

/// In nanoseconds of the clock.
#[derive(Debug)]
struct BeatTimes {
    /// The latest beat.
    last: AtomicU64,
    /// The end of the latest stall.
    ended: AtomicU64,
    /// How long that stall was.
    length: AtomicU64,
}

/// What is known of the process's latest stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When it ended: the process has run without a pause since.
    pub ended: Duration,
    /// How long it was at least, to a beat.
    pub length: Duration,
}

impl StallDetector {
    /// A detector of a process that begins now.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let now = nanos(clock.now());
        let times = BeatTimes {
            last: now.into(),
            ended: now.into(),
            length: 0.into(),
        };
        let times = Arc::new(times);
        Self { clock, times }
    }

    /// Beats once a second, for ever.
    pub async fn run(&self) -> Infallible {
        loop {
            let now = self.clock.now();
            let stall = self.latest_stall();
            self.times.length.store(nanos(stall.length), Ordering::Release);
            self.times.ended.store(nanos(stall.ended), Ordering::Release);
            // Last: whoever sees this beat sees the stall before it too.
            self.times.last.store(nanos(now), Ordering::Release);
            self.clock.sleep_until(now + BEAT).await;
        }
    }

    /// The latest stall as of now. A beat that should have come by now counts as late although it may come yet:
    /// after a stall a stream may be looked at before the beat is.
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
            ended: read(&self.times.ended),
            length: read(&self.times.length),
        }
    }

    /// Whether the process has run without a pause for this long.
    #[must_use]
    pub fn ran_without_stall_for(&self, time: Duration) -> bool {
        self.clock.now() >= self.latest_stall().ended + time
    }
}

fn nanos(duration: Duration) -> u64 {
    // 584 years of uptime.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_process_that_slept_knows_it_before_and_after_its_next_beat() {
        let clock = Clock::tokio();
        let started = clock.now();
        let detector = StallDetector::new(clock);
        let watch = async {
            tokio::time::sleep(10 * SECOND).await;
            assert!(detector.ran_without_stall_for(10 * SECOND));
            assert!(!detector.ran_without_stall_for(11 * SECOND));
        };
        tokio::select! { biased; () = watch => {} _ = detector.run() => {} }
        // Nobody drives the beat meanwhile.
        tokio::time::advance(30 * SECOND).await;
        let stall = Stall {
            ended: started + 40 * SECOND,
            length: 31 * SECOND,
        };
        assert!(detector.latest_stall().length >= 30 * SECOND && detector.latest_stall().ended == stall.ended);
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
    async fn without_a_beat_a_process_counts_as_asleep() {
        let detector = StallDetector::new(Clock::tokio());
        tokio::time::advance(2 * SECOND).await;
        assert!(!detector.ran_without_stall_for(SECOND));
    }
}
