//! All replicas of the demo: it starts, replaces and stops them.
//!
//! A slot is the index of a replica. When a soak replaces a replica, the new one gets the slot of the old one. It never
//! decides when a replica is replaced.

use super::environment::WorkDir;
use super::replica::{self, ProcessState, Replica, StoreUrls};
use crate::cli::lab::Switch;
use crate::exit::Failure;

/// The replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    slots: Vec<Replica>,
    /// How many replicas have been started so far; the last one has this number.
    started: usize,
    claims: Switch,
}

impl Replicas {
    /// No replicas yet. With `claims` they will share one store, otherwise each has its own.
    pub(super) fn new(claims: Switch) -> Self {
        Self {
            slots: Vec::new(),
            started: 0,
            claims,
        }
    }

    /// Starts a replica in a new slot.
    pub(super) fn add(&mut self, dir: &WorkDir) -> Result<&Replica, Failure> {
        let replica = self.start(dir)?;
        self.slots.push(replica);
        Ok(&self.slots[self.slots.len() - 1])
    }

    /// Starts a new replica in this slot.
    pub(super) fn replace(&mut self, slot: usize, dir: &WorkDir) -> Result<&Replica, Failure> {
        self.slots[slot] = self.start(dir)?;
        Ok(&self.slots[slot])
    }

    fn start(&mut self, dir: &WorkDir) -> Result<Replica, Failure> {
        self.started += 1;
        Replica::start(self.started, dir, &StoreUrls::new(dir, self.claims, self.started))
    }

    /// The replica in this slot.
    pub(super) fn slot(&mut self, slot: usize) -> &mut Replica {
        &mut self.slots[slot]
    }

    /// All replicas, by slot.
    pub(super) fn all(&self) -> &[Replica] {
        &self.slots
    }

    /// How many there are, ended ones included.
    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Whether one is stopped with SIGSTOP now.
    pub(super) fn any_frozen(&self) -> bool {
        self.slots.iter().any(|replica| replica.state() == ProcessState::Frozen)
    }

    /// Fails if one has ended although it was not asked to stop.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.slots.iter_mut().try_for_each(Replica::check)
    }

    /// Stops all of them with SIGTERM. Returns the failures of those that failed or had to be killed.
    pub(super) async fn stop_all(&mut self) -> Vec<String> {
        replica::stop_all(&mut self.slots).await
    }

    /// Kills all of them and waits until they are gone.
    pub(super) async fn kill_all(&mut self) {
        replica::kill_all(&mut self.slots).await;
    }
}
