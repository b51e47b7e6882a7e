//! What all handles, requests and streams of a simulated cluster share: settings, clock, faults, permissions, and the
//! state behind a lock. It makes no decision.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::clock::SimClock;
use super::faults::{Faults, Verb};
use super::rights::Rights;
use super::settings::SimSettings;
use super::state::ClusterState;
use super::sync::lock;

/// How many requests of each verb have arrived.
pub type Requests = BTreeMap<Verb, u64>;

/// The shared value of one cluster.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: SimSettings,
    pub(super) clock: SimClock,
    pub(super) faults: Faults,
    pub(super) rights: Rights,
    /// The newest resource version. Watches wait for it to change.
    pub(super) version: watch::Sender<u64>,
    requests: Mutex<Requests>,
    state: Mutex<ClusterState>,
}

impl Shared {
    /// An empty cluster with these settings.
    pub(super) fn new(settings: SimSettings) -> Self {
        let state = ClusterState::new(settings.seed, settings.history);
        Self {
            clock: SimClock::starting_at(settings.now),
            faults: Faults::default(),
            rights: Rights::default(),
            version: watch::Sender::new(state.version()),
            requests: Mutex::default(),
            state: Mutex::new(state),
            settings,
        }
    }

    /// How many requests of each verb have arrived.
    pub(super) fn requests(&self) -> Requests {
        lock(&self.requests).clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ClusterState> {
        lock(&self.state)
    }

    pub(super) fn count(&self, verb: Verb) {
        let mut requests = lock(&self.requests);
        *requests.entry(verb).or_default() += 1;
    }

    /// Changes the state and wakes the watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut ClusterState) -> T) -> T {
        let mut state = self.state();
        let done = change(&mut state);
        self.version.send_replace(state.version());
        done
    }
}
