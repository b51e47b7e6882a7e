//! The simulation as a test harness: it fails the test when a rule is broken or when something awaited does not happen
//! in time.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use kube_sim::SimPod;
use podlog::domain::LockKey;
use podlog::lab::simulate::{self, LedgerAudit};

/// The smallest step in which a test lets time pass.
const STEP: Duration = Duration::from_millis(20);

/// Whole collectors over one table, one simulated cluster and one sink, in virtual time.
pub(crate) struct Harness(simulate::Fleet);

impl Deref for Harness {
    type Target = simulate::Fleet;

    fn deref(&self) -> &simulate::Fleet {
        &self.0
    }
}

impl DerefMut for Harness {
    fn deref_mut(&mut self) -> &mut simulate::Fleet {
        &mut self.0
    }
}

impl Harness {
    /// A harness without replicas and pods, around a sink that fences or one that does not. Its random choices are the
    /// same each time; `PODLOG_TEST_SEED` changes them.
    pub(crate) fn new(fencing: bool) -> Self {
        let seed = std::env::var("PODLOG_TEST_SEED").map_or(0, |seed| seed.parse().unwrap());
        // Shown when the test fails.
        println!("PODLOG_TEST_SEED={seed}");
        Self(simulate::Fleet::seeded(fencing, seed))
    }

    /// A harness in which so many replicas share so many pods evenly.
    pub(crate) fn shared(fencing: bool, replicas: usize, pods: usize) -> Self {
        let mut harness = Self::new(fencing);
        for _ in 0..replicas {
            harness.add();
        }
        harness.pass(2);
        (0..pods).for_each(|_| drop(harness.pod()));
        harness.pass(30);
        harness
    }

    /// Lets seconds pass.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.pass_for(Duration::from_secs(seconds));
    }

    /// Lets time pass in steps, and fails when a rule is broken.
    pub(crate) fn pass_for(&mut self, time: Duration) {
        if let Err(breach) = self.0.pass_for(time) {
            panic!("{breach}");
        }
    }

    /// Lets time pass until this holds; returns how long it took.
    pub(crate) fn until(&mut self, limit: u64, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now();
        while !holds(self) {
            assert!(
                self.now() < begun + Duration::from_secs(limit),
                "not within {limit} s: {what}; {:?}",
                self.shares()
            );
            self.pass_for(STEP * 5);
        }
        self.now() - begun
    }

    /// Asks a replica to stop and waits until it has, then removes it. Returns how long it took.
    pub(crate) fn stop(&mut self, at: usize) -> Duration {
        self.ask_to_stop(at);
        let begun = self.now();
        while !self.ended(at) {
            assert!(self.now() < begun + Duration::from_mins(1), "the replica does not stop");
            self.pass_for(STEP);
        }
        self.kill(at);
        self.now() - begun
    }

    /// Lets time pass in which every pod writes once a second.
    pub(crate) fn busy(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.write_all();
            self.pass(1);
        }
    }

    /// The row of a pod.
    pub(crate) fn key(pod: &SimPod) -> LockKey {
        simulate::pod_key(pod)
    }

    /// Everything written is stored, once and in order.
    pub(crate) fn assert_exact(&self) {
        let found = self.audit();
        let stored = found.stored;
        assert_eq!(
            found,
            LedgerAudit {
                stored,
                ..LedgerAudit::default()
            }
        );
        assert_eq!(stored, self.sim.lines_written());
    }

    /// Every replica that lives holds its share, within a tenth or one pod.
    pub(crate) fn assert_even(&self) {
        assert_eq!(simulate::uneven(self), None);
    }
}
