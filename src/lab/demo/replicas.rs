//! All replicas of the demo: it starts them where their stores are, and ends them together.
//!
//! A slot is the index of a replica. When a soak replaces a replica, the new one gets the slot of the old one.

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
    /// None yet. With `claims` they share one store, without each has its own.
    pub(super) fn new(claims: Switch) -> Self {
        Self {
            slots: Vec::new(),
            started: 0,
            claims,
        }
    }

    /// Starts one more replica in a slot of its own.
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

    /// Fails when one has ended although it was not asked to.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.slots.iter_mut().try_for_each(Replica::check)
    }

    /// Ends all of them as a shutdown would. Returns those that had to be killed or failed.
    pub(super) async fn end(&mut self) -> Vec<String> {
        replica::end(&mut self.slots).await
    }

    /// Kills all of them and waits until they are gone.
    pub(super) async fn kill(&mut self) {
        replica::kill(&mut self.slots).await;
    }
}
