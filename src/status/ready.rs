//! Readiness: named conditions, each fulfilled by the part that knows.
//!
//! A replica is ready when all have been fulfilled, and for good: a store that is away for a minute
//! does not make the replica a worse place for what it does. Stopping ends readiness.

use std::sync::{Arc, Mutex, PoisonError};

/// The conditions of one replica. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<(&'static str, bool)>>>);

impl Readiness {
    /// Adds a condition, unfulfilled. All are added before anything is served.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        self.lock().push((name, false));
        Condition {
            name,
            readiness: self.clone(),
        }
    }

    /// The conditions that are not fulfilled yet.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock()
            .iter()
            .filter(|(_, done)| !done)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Held for a few instructions and never across an await, so a standard mutex does; what it
    /// guards is valid after a panic too.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One condition, held by the part that fulfils it. Dropping it unfulfilled leaves it missing.
#[derive(Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Condition {
    /// Marks the condition as fulfilled. Again is fine.
    pub fn fulfil(&self) {
        for (_, done) in self.readiness.lock().iter_mut().filter(|(name, _)| *name == self.name) {
            *done = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_be_fulfilled_and_a_dropped_one_stays_missing() {
        let readiness = Readiness::default();
        let store = readiness.condition("lock store reached");
        let api = readiness.condition("API server reached");
        assert_eq!(readiness.missing(), ["lock store reached", "API server reached"]);
        store.fulfil();
        drop(api);
        assert_eq!(readiness.missing(), ["API server reached"]);
    }
}
