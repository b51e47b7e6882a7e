//! What can be seen of a world of collectors: the table, who holds what, and how it compares with the truth.

use std::collections::BTreeMap;
use std::future::Future;

use podlog::domain::{LockKey, LockTable};
use podlog::locks::{LockStore, MemoryLocks};
use podlog::metrics::Statement;
use podlog::sim::SimPod;

use crate::ledger::Reckoning;
use crate::world::{Replica, World};

impl Replica {
    /// How many statements of this kind the table has answered.
    pub(crate) fn statements(&self, operation: &'static str) -> u64 {
        let result = "ok";
        self.metrics
            .statements
            .get_or_create(&Statement { operation, result })
            .get()
    }
}

impl World {
    /// Asks the table itself, past all faults.
    pub(crate) fn ask<T, F: Future<Output = T>>(&self, ask: impl FnOnce(MemoryLocks) -> F) -> T {
        self.main.block_on(ask(self.holder("observer")))
    }

    pub(crate) fn rows(&self) -> LockTable {
        self.ask(|locks| async move { locks.table().await.unwrap() })
    }

    /// Pods by holder, of rows that have not expired.
    pub(crate) fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for name in self.holders().into_values() {
            *shares.entry(name).or_default() += 1;
        }
        shares
    }

    /// The holder of each pod that has one.
    pub(crate) fn holders(&self) -> BTreeMap<String, String> {
        let rows = self.rows().rows.into_iter();
        let held = rows.filter_map(|(key, row)| {
            let owner = row.owner.filter(|_| row.expires_in > 0)?;
            Some((key.pod()?.to_string(), owner.to_string()))
        });
        held.collect()
    }

    /// How many rows are about pods.
    pub(crate) fn pod_rows(&self) -> usize {
        self.rows().rows.keys().filter(|key| key.pod().is_some()).count()
    }

    /// The row of a pod.
    pub(crate) fn key(pod: &SimPod) -> LockKey {
        LockKey::Pod(pod.uid().into())
    }

    pub(crate) fn reckon(&self) -> Reckoning {
        self.ledger.reckon(&self.sim.truth())
    }

    /// Everything written is stored, once and in order.
    pub(crate) fn assert_exact(&self) {
        let found = self.reckon();
        assert_eq!(
            found,
            Reckoning {
                stored: found.stored,
                ..Reckoning::default()
            }
        );
        assert_eq!(found.stored, self.sim.lines());
    }

    /// Every replica that lives holds its share, within a tenth or one pod.
    pub(crate) fn assert_even(&self) {
        let shares = self.shares();
        let total: usize = shares.values().sum();
        let mean = total as f64 / self.replicas.len() as f64;
        for replica in &self.replicas {
            let share = shares.get(&replica.name).copied().unwrap_or_default() as f64;
            assert!((share - mean).abs() <= (mean / 10.0).max(1.0), "{shares:?}");
        }
    }
}
