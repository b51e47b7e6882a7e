//! Readiness: named conditions, each set by the part of the program that knows it.
//!
//! A replica is ready while all conditions are set. A condition that does not hold any more says why, and since when. An
//! outage outside makes a replica not ready, never unhealthy: a restart would not help.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// How long something outside may fail before a replica is not ready any more. An outage is noticed within 35 s, and 35 s +
/// 20 s is less than a minute.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The conditions of one replica. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<(&'static str, State)>>>);

enum State {
    /// It was never set.
    Missing,
    Set,
    /// It does not hold any more, for this reason, since this time.
    Lost(String, Instant),
    /// It is asked each time. It says why it does not hold.
    Asked(Box<dyn Fn() -> Option<String> + Send>),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "Missing",
            Self::Set => "Set",
            Self::Lost(..) => "Lost",
            Self::Asked(_) => "Asked",
        })
    }
}

impl Readiness {
    /// Adds a condition that is not set. All conditions are added before the endpoints are served.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        lock(&self.0).push((name, State::Missing));
        Condition {
            name,
            readiness: self.clone(),
        }
    }

    /// Adds a condition that is asked for each time. The function returns why it does not hold, and must not wait.
    pub fn ask(&self, name: &'static str, holds: impl Fn() -> Option<String> + Send + 'static) {
        lock(&self.0).push((name, State::Asked(Box::new(holds))));
    }

    /// The conditions that do not hold, with the reasons.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let conditions = lock(&self.0);
        let missing = conditions.iter().filter_map(|(name, state)| match state {
            State::Set => None,
            State::Missing => Some((*name).to_owned()),
            State::Lost(why, since) => Some(format!("{name} (not for {} s: {why})", since.elapsed().as_secs())),
            State::Asked(holds) => holds().map(|why| format!("{name} ({why})")),
        });
        missing.collect()
    }
}

/// One condition, owned by the part that sets it. If it is dropped before that, it stays missing.
#[derive(Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Condition {
    /// The condition holds. May be called again.
    pub fn set(&self) {
        self.update(|state| *state = State::Set);
    }

    /// The condition has not held for this time, for this reason. One that was never set stays missing.
    pub fn lose(&self, why: String, lasted: Duration) {
        self.update(|state| {
            if !matches!(state, State::Missing) {
                let now = Instant::now();
                *state = State::Lost(why, now.checked_sub(lasted).unwrap_or(now));
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut conditions = lock(&self.readiness.0);
        if let Some((_, state)) = conditions.iter_mut().find(|(name, _)| *name == self.name) {
            change(state);
        }
    }
}

/// Why a replica is not ready whose oldest lines have waited for the sink for this time.
#[must_use]
pub fn not_stored(waited: Duration) -> Option<String> {
    (waited >= PATIENCE).then(|| {
        format!(
            "nothing was stored for {} s; podlog's log has the cause",
            waited.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_be_set_and_a_dropped_one_stays_missing() {
        let readiness = Readiness::default();
        let store = readiness.condition("lock store reached");
        let api = readiness.condition("API server reached");
        assert_eq!(readiness.missing(), ["lock store reached", "API server reached"]);
        store.set();
        drop(api);
        assert_eq!(readiness.missing(), ["API server reached"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_is_lost_says_why_and_for_how_long_until_it_is_set_again() {
        let readiness = Readiness::default();
        let store = readiness.condition("store");
        store.lose("refused".into(), Duration::ZERO);
        assert_eq!(readiness.missing(), ["store"], "it was never set");
        store.set();
        store.lose("refused".into(), Duration::from_secs(20));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(readiness.missing(), ["store (not for 25 s: refused)"]);
        store.set();
        assert!(readiness.missing().is_empty());
    }

    #[test]
    fn a_condition_that_is_asked_for_says_why_it_does_not_hold() {
        let readiness = Readiness::default();
        let shown = Arc::new(Mutex::new(None::<String>));
        let asked = shown.clone();
        readiness.ask("sink", move || asked.lock().unwrap().clone());
        assert!(readiness.missing().is_empty());
        *shown.lock().unwrap() = Some("full".into());
        assert_eq!(readiness.missing(), ["sink (full)"]);
    }
}
