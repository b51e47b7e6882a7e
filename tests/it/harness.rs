//! The simulation as a test harness. It fails the test when a rule is broken, or when an expected event does not happen
//! in time.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use kube_sim::SimPod;
use podlog::domain::LockKey;
use podlog::lab::simulate::{self, LedgerAudit};

/// The smallest step in which a test lets time pass.
const STEP: Duration = Duration::from_millis(20);

/// Several replicas with one table of claims, one simulated cluster and one sink, in virtual time.
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
    /// A harness without replicas and pods. The sink behaves like a database if it is `fencing`, otherwise like a file.
    /// `PODLOG_TEST_SEED` sets the seed of the random numbers.
    pub(crate) fn new(fencing: bool) -> Self {
        let seed = std::env::var("PODLOG_TEST_SEED").map_or(0, |seed| seed.parse().unwrap());
        // Shown when the test fails.
        println!("PODLOG_TEST_SEED={seed}");
        Self(simulate::Fleet::new(fencing, seed))
    }

    /// A harness with this many replicas and pods, in which all replicas hold the same number of pods.
    pub(crate) fn balanced(fencing: bool, replicas: usize, pods: usize) -> Self {
        let mut harness = Self::new(fencing);
        for _ in 0..replicas {
            harness.add_replica();
        }
        harness.pass(2);
        (0..pods).for_each(|_| drop(harness.create_pod()));
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

    /// Lets time pass until `holds` returns true, and returns how long that took.
    pub(crate) fn wait_until(&mut self, limit: u64, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now();
        while !holds(self) {
            assert!(
                self.now() < begun + Duration::from_secs(limit),
                "not within {limit} s: {what}; {:?}",
                self.pods_by_replica()
            );
            self.pass_for(STEP * 5);
        }
        self.now() - begun
    }

    /// Asks a replica to stop, waits until it has stopped, and removes it. Returns how long that took.
    pub(crate) fn stop(&mut self, at: usize) -> Duration {
        self.ask_to_stop(at);
        let begun = self.now();
        while !self.has_ended(at) {
            assert!(self.now() < begun + Duration::from_mins(1), "the replica does not stop");
            self.pass_for(STEP);
        }
        self.kill(at);
        self.now() - begun
    }

    /// Lets seconds pass. In each, every running pod writes a line.
    pub(crate) fn write_each_second(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.write_all();
            self.pass(1);
        }
    }

    /// The key of a pod's row.
    pub(crate) fn key(pod: &SimPod) -> LockKey {
        simulate::pod_key(pod)
    }

    /// How many rows of pods the table has.
    pub(crate) fn pod_rows(&self) -> usize {
        self.lock_table().rows.keys().filter(|key| key.pod().is_some()).count()
    }

    /// Asserts that every written line is stored once and in order.
    pub(crate) fn assert_all_stored_once(&self) {
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

    /// Asserts that all replicas hold the same number of pods, within a tenth or one pod.
    pub(crate) fn assert_balanced(&self) {
        assert_eq!(simulate::find_imbalance(self), None);
    }
}
