//! Readiness: named conditions, each set by the part of the program that knows it.
//!
//! A replica is ready once all conditions are set. They are never cleared: a store that fails for a minute fails for all
//! replicas, so nothing is gained by marking one as not ready. Only stopping ends readiness.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// The conditions of one replica. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<(&'static str, bool)>>>);

impl Readiness {
    /// Adds a condition that is not set. All conditions are added before the endpoints are served.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        lock(&self.0).push((name, false));
        Condition {
            name,
            readiness: self.clone(),
        }
    }

    /// The conditions that are not set yet.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        lock(&self.0)
            .iter()
            .filter(|(_, done)| !done)
            .map(|(name, _)| *name)
            .collect()
    }
}

/// One condition, owned by the part that sets it. If it is dropped before that, it stays missing.
#[derive(Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Condition {
    /// Sets the condition. May be called again.
    pub fn set(&self) {
        for (_, done) in lock(&self.readiness.0)
            .iter_mut()
            .filter(|(name, _)| *name == self.name)
        {
            *done = true;
        }
    }
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
}
