//! What can be seen of a world of collectors: the table, who holds what, and whether all is as it must be.
//!
//! It looks past all faults and changes nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use super::breach::{Breach, Rule};
use super::ledger_audit::LedgerAudit;
use super::replica::Replica;
use super::sink::TICK;
use super::world::{LEASE, World};
use crate::domain::{LockKey, LockRow, LockTable};
use crate::lab::memory::MemoryLocks;
use crate::locks::LockStore;
use crate::metrics::Statement;
use kube_sim::SimPod;

/// Calls to the lock store that a replica may make in a second, on average: 1.25 for the table, 0.2 for renewals (1
/// while they fail), and as much again for claiming, asking, handing over and releasing.
const CALLS: u64 = 4;

/// Calls beyond, for the beginning.
const START: u64 = 100;

impl Replica {
    /// How many statements of this kind the table has answered.
    #[must_use]
    pub fn statements(&self, operation: &'static str) -> u64 {
        let result = "ok";
        self.metrics
            .statements
            .get_or_create(&Statement { operation, result })
            .get()
    }
}

impl World {
    /// Asks the table itself, past all faults.
    pub fn ask<T, F: Future<Output = T>>(&self, ask: impl FnOnce(MemoryLocks) -> F) -> T {
        self.main.block_on(ask(self.holder("observer")))
    }

    /// The table.
    #[must_use]
    pub fn rows(&self) -> LockTable {
        // A table in memory always answers.
        self.ask(|locks| async move { locks.table().await.unwrap_or_default() })
    }

    /// Pods by holder, of rows that have not expired.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for name in self.holders().into_values() {
            *shares.entry(name).or_default() += 1;
        }
        shares
    }

    /// The holder of each pod that has one.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<String, String> {
        let rows = self.rows().rows.into_iter();
        let held = rows.filter_map(|(key, row)| {
            let owner = row.owner.filter(|_| row.expires_in > 0)?;
            Some((key.pod()?.to_string(), owner.to_string()))
        });
        held.collect()
    }

    /// How many rows are about pods.
    #[must_use]
    pub fn pod_rows(&self) -> usize {
        self.rows().rows.keys().filter(|key| key.pod().is_some()).count()
    }

    /// The row of a pod.
    #[must_use]
    pub fn key(pod: &SimPod) -> LockKey {
        LockKey::Pod(pod.uid().into())
    }

    /// How what is stored compares with what was written, when nothing more is to come.
    #[must_use]
    pub fn audit(&self) -> LedgerAudit {
        self.ledger.audit(&self.sim.written(), true)
    }

    /// What is wrong with the shares: every replica that lives is to hold its own, within a tenth or one pod.
    #[must_use]
    pub fn uneven(&self) -> Option<Breach> {
        let shares = self.shares();
        let total: usize = shares.values().sum();
        let mean = total as f64 / self.replicas.len() as f64;
        let off = |replica: &&Replica| {
            let share = shares.get(&replica.name).copied().unwrap_or_default() as f64;
            (share - mean).abs() > (mean / 10.0).max(1.0)
        };
        let replica = self.replicas.iter().find(off)?;
        Some(Breach::new(Rule::Even, format!("{} of {shares:?}", replica.name)))
    }

    /// What is wrong with the rows once all has come to rest: each pod is held, or finished if it does not run, and no
    /// other row is left.
    #[must_use]
    pub fn unkept(&self) -> Option<Breach> {
        let (pods, table) = (self.sim.pods(), self.rows());
        for pod in &pods {
            let row = table.rows.get(&Self::key(pod));
            let over = |row: &LockRow| row.finished && !pod.is_running("app");
            if !row.is_some_and(|row| over(row) || row.expires_in > 0 && row.owner.is_some()) {
                return Some(Breach::new(
                    Rule::Held,
                    format!("{} {}: {row:?}", pod.name(), pod.uid()),
                ));
            }
        }
        let left = table.rows.iter().find(|(key, row)| {
            let gone = |uid: &str| pods.iter().all(|pod| pod.uid() != uid);
            !row.finished && key.pod().is_some_and(|uid| gone(uid.as_str()))
        });
        left.map(|(key, row)| Breach::new(Rule::Tidy, format!("{key} has no pod: {row:?}")))
    }

    /// What is wrong with the deadlines that replicas have set themselves, while the store's clock has not jumped: each
    /// is to be a margin before its row expires, and none may be left when the row is another's.
    #[must_use]
    pub fn overdue(&self) -> Option<Breach> {
        let (table, now) = (self.rows(), self.time());
        self.ledger.beliefs().into_iter().find_map(|(uid, name, deadline)| {
            let row = table.rows.get(&LockKey::Pod(uid))?;
            let own = row.owner.as_ref().is_some_and(|owner| owner.as_str() == name);
            let acts = deadline.checked_sub(now)?;
            let lasts = Duration::from_millis(row.expires_in.max(0).unsigned_abs());
            if own {
                let late = acts + LEASE.margin > lasts + TICK;
                late.then(|| {
                    Breach::new(
                        Rule::Margin,
                        format!("{name} acts for {acts:?}, the row lasts {lasts:?}"),
                    )
                })
            } else {
                let owner = row.owner.as_ref().filter(|_| acts > TICK)?;
                Some(Breach::new(
                    Rule::OneHolder,
                    format!("{name} acts for {acts:?}, the row is {owner}'s"),
                ))
            }
        })
    }

    /// Whether the lock store was asked more than the number of replicas explains, whatever the number of pods: once
    /// a second for the table, every five seconds for renewals, and for what changes.
    #[must_use]
    pub fn costly(&self) -> Option<Breach> {
        let (calls, lived) = self.calls();
        let most = CALLS * lived.as_secs() + START;
        (calls > most).then(|| {
            Breach::new(
                Rule::Cheap,
                format!("{calls} calls in {lived:?} of replicas, at most {most}"),
            )
        })
    }

    /// What is left although all replicas have been told to stop long ago.
    #[must_use]
    pub fn left_over(&self) -> Option<Breach> {
        let running: Vec<&str> = self.replicas.iter().map(|replica| &*replica.name).collect();
        let streams = self.sim.streams();
        let held = |row: &&LockRow| row.owner.is_some() && row.expires_in > 0;
        let rows = self.rows().rows.values().filter(held).count();
        (!running.is_empty() || !streams.is_empty() || rows > 0).then(|| {
            let what = format!("replicas {running:?}, streams {streams:?}, {rows} rows that are held");
            Breach::new(Rule::Tidy, what)
        })
    }

    /// What the clock of all replicas shows.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.main.block_on(async { crate::clock::Clock::tokio().now() })
    }
}
