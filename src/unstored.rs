//! For how long something has waited for the sink: the metric that grows while nothing is stored. A histogram of writes
//! gets no value before a write has ended.
//!
//! It only measures; it ends no wait.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// What waits for the sink now. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Unstored(Arc<Mutex<Waits>>);

#[derive(Debug, Default)]
struct Waits {
    /// When each began, oldest first. The number tells those of one moment apart.
    begun: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// One wait; dropping it ends it.
#[derive(Debug)]
pub struct Wait {
    unstored: Unstored,
    key: (Instant, u64),
}

impl Unstored {
    /// Something waits from now on.
    #[must_use]
    pub fn begin(&self) -> Wait {
        let mut waits = lock(&self.0);
        waits.next += 1;
        let key = (Instant::now(), waits.next);
        waits.begun.insert(key);
        drop(waits);
        Wait {
            unstored: self.clone(),
            key,
        }
    }

    /// How long the oldest of them has waited.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let waits = lock(&self.0);
        waits
            .begun
            .first()
            .map(|(begun, _)| begun.elapsed())
            .unwrap_or_default()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        lock(&self.unstored.0).begun.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_wait_counts_until_it_ends() {
        let unstored = Unstored::default();
        let second = Duration::from_secs(1);
        let first = unstored.begin();
        tokio::time::sleep(second).await;
        let other = unstored.begin();
        tokio::time::sleep(second).await;
        assert_eq!(unstored.longest(), second * 2);
        drop(first);
        assert_eq!(unstored.longest(), second);
        drop(other);
        assert_eq!(unstored.longest(), Duration::ZERO);
    }
}
