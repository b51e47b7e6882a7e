//! Whether this process has been running all the time: a beat a second, and whether any came late.
//!
//! A process that was stopped, or starved of CPU, hears nothing meanwhile, and so may take its own sleep for the
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

/// The pulse of one replica. Cloning shares it. Without anybody who [`beats`](Self::beat) it, the process counts
/// as asleep.
#[derive(Clone, Debug)]
pub struct Pulse {
    clock: Clock,
    times: Arc<Times>,
}

/// In nanoseconds of the clock.
#[derive(Debug)]
struct Times {
    /// The latest beat.
    last: AtomicU64,
    /// The end of the latest sleep.
    woke: AtomicU64,
    /// How long that sleep was.
    slept: AtomicU64,
}

/// What is known of the process's latest sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// When it ended: the process has run without a pause since.
    pub woke: Duration,
    /// How long it was at least, to a beat.
    pub slept: Duration,
}

impl Pulse {
    /// A pulse of a process that begins now.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let now = nanos(clock.now());
        let times = Times {
            last: now.into(),
            woke: now.into(),
            slept: 0.into(),
        };
        let times = Arc::new(times);
        Self { clock, times }
    }

    /// Beats once a second, for ever.
    pub async fn beat(&self) -> Infallible {
        loop {
            let now = self.clock.now();
            let sleep = self.sleep();
            self.times.slept.store(nanos(sleep.slept), Ordering::Release);
            self.times.woke.store(nanos(sleep.woke), Ordering::Release);
            // Last: whoever sees this beat sees the sleep before it too.
            self.times.last.store(nanos(now), Ordering::Release);
            self.clock.sleep_until(now + BEAT).await;
        }
    }

    /// The latest sleep as of now. A beat that should have come by now counts as late although it may come yet:
    /// after a sleep a stream may be looked at before the beat is.
    #[must_use]
    pub fn sleep(&self) -> Sleep {
        let read = |time: &AtomicU64| Duration::from_nanos(time.load(Ordering::Acquire));
        let last = read(&self.times.last);
        let now = self.clock.now();
        if now > last + LATE {
            return Sleep {
                woke: now,
                slept: now.saturating_sub(last),
            };
        }
        Sleep {
            woke: read(&self.times.woke),
            slept: read(&self.times.slept),
        }
    }

    /// Whether the process has run without a pause for this long.
    #[must_use]
    pub fn was_awake_for(&self, time: Duration) -> bool {
        self.clock.now() >= self.sleep().woke + time
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
        let pulse = Pulse::new(clock);
        let watch = async {
            tokio::time::sleep(10 * SECOND).await;
            assert!(pulse.was_awake_for(10 * SECOND));
            assert!(!pulse.was_awake_for(11 * SECOND));
        };
        tokio::select! { biased; () = watch => {} _ = pulse.beat() => {} }
        // Nobody drives the beat meanwhile.
        tokio::time::advance(30 * SECOND).await;
        let sleep = Sleep {
            woke: started + 40 * SECOND,
            slept: 31 * SECOND,
        };
        assert!(pulse.sleep().slept >= 30 * SECOND && pulse.sleep().woke == sleep.woke);
        assert!(!pulse.was_awake_for(SECOND));
        let watch = async {
            tokio::time::sleep(SECOND / 2).await;
            assert_eq!(pulse.sleep().woke, sleep.woke);
            tokio::time::sleep(SECOND * 3 / 2).await;
            assert!(pulse.was_awake_for(2 * SECOND));
        };
        tokio::select! { biased; () = watch => {} _ = pulse.beat() => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_beat_a_process_counts_as_asleep() {
        let pulse = Pulse::new(Clock::tokio());
        tokio::time::advance(2 * SECOND).await;
        assert!(!pulse.was_awake_for(SECOND));
    }
}
