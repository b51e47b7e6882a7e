//! How long to wait before the next try: twice as long each time, up to a limit.
//!
//! Nothing here sleeps or draws random numbers. The caller knows what counts as success: for a log stream it is a new
//! line, not a connection.

use std::time::Duration;

/// Waits that begin at `first` and double up to `limit`.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits that begin at `first` and double up to `limit`.
    #[must_use]
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self {
            first,
            limit,
            next: first,
        }
    }

    /// The next wait. `jitter`, a random number from 0 to 1, takes off up to half of it, so that many tasks do not
    /// retry at the same time.
    pub fn next_wait(&mut self, jitter: f64) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.limit);
        wait.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
    }

    /// Starts again at the first wait.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_limit_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| backoff.next_wait(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next_wait(0.0), Duration::from_secs(1));
        assert_eq!(backoff.next_wait(1.0), Duration::from_secs(1));
    }
}
