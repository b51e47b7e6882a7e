//! Who holds what, as an outsider sees it: the table of claims is read, never written.
//!
//! How long a take-over takes is measured here, from the kill until the table shows other holders, so
//! that no replica's own opinion counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Cause, LockKey, LockTable, ReplicaId};
use crate::exit::Failure;
use crate::locks::{self, Holder, LockStore, LockUrl};

/// An observer of the table.
#[derive(Debug)]
pub(super) struct ClaimsObserver {
    store: Arc<dyn LockStore>,
}

impl ClaimsObserver {
    /// Makes the table and opens it. The replicas find it ready.
    pub(super) async fn open(url: &str) -> Result<Self, Failure> {
        let url: LockUrl = url.parse().map_err(|message| Failure::of(Cause::Setting, message))?;
        locks::migrate(&url).await?;
        // The cluster is the default of `podlog run --cluster`.
        let holder = Holder::read_only("podlog-demo", "default".into());
        let store = locks::open(&url, holder).await?;
        Ok(Self { store })
    }

    /// The table as it is now.
    pub(super) async fn read_table(&self) -> Result<LockTable, Failure> {
        Ok(self.store.table().await?)
    }
}

/// The readable part of a replica's id.
fn name(id: &ReplicaId) -> &str {
    id.as_str().split('#').next().unwrap_or_default()
}

/// Who holds how many pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// The pods of each replica that has a row of its own or holds a pod.
    pub(super) pods: BTreeMap<String, usize>,
    /// The replicas whose own row is unexpired.
    pub(super) alive: BTreeSet<String>,
    /// Pods to be collected that no replica holds any more, or whose claim has expired.
    pub(super) unheld: usize,
}

impl Holdings {
    /// What the table says.
    pub(super) fn of(table: &LockTable) -> Self {
        let alive: BTreeSet<String> = table.replicas().map(|id| name(id).to_owned()).collect();
        let mut pods: BTreeMap<String, usize> = alive.iter().map(|name| (name.clone(), 0)).collect();
        let mut unheld = 0;
        for row in table
            .rows
            .iter()
            .filter(|(key, _)| key.pod().is_some())
            .map(|(_, row)| row)
        {
            match &row.owner {
                _ if row.finished => {}
                Some(owner) if row.expires_in > 0 => *pods.entry(name(owner).to_owned()).or_default() += 1,
                _ => unheld += 1,
            }
        }
        Self { pods, alive, unheld }
    }
}

/// The pods of a killed replica on their way to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Takeover {
    replica: String,
    waiting: BTreeSet<LockKey>,
    pods: usize,
    took: Option<Duration>,
}

impl Takeover {
    /// The replica was killed just before `table` was read: what it holds there is waited for.
    pub(super) fn of(replica: &str, table: &LockTable) -> Self {
        let held = |row: &crate::domain::LockRow| row.owner.as_ref().is_some_and(|id| name(id) == replica);
        let waiting: BTreeSet<_> = table
            .rows
            .iter()
            .filter(|(key, row)| key.pod().is_some() && !row.finished && held(row))
            .map(|(key, _)| key.clone())
            .collect();
        Self {
            replica: replica.to_owned(),
            pods: waiting.len(),
            waiting,
            took: None,
        }
    }

    /// The replica that was killed.
    pub(super) fn replica(&self) -> &str {
        &self.replica
    }

    /// How many pods it held.
    pub(super) fn pods(&self) -> usize {
        self.pods
    }

    /// How long it took, once every pod that is still to be collected has another holder.
    pub(super) fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Takes in what the table says `since` the kill. Returns whether it is now complete, and was not before.
    pub(super) fn observe(&mut self, table: &LockTable, since: Duration) -> bool {
        if self.took.is_some() {
            return false;
        }
        let replica = &self.replica;
        self.waiting.retain(|key| {
            let Some(row) = table.rows.get(key) else { return false };
            let other = row.owner.as_ref().is_some_and(|id| name(id) != replica);
            !(row.finished || other && row.expires_in > 0)
        });
        if self.waiting.is_empty() {
            self.took = Some(since);
        }
        self.took.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fence, LockRow, PodRef};

    fn table(rows: &[(LockKey, Option<&str>, i64, bool)]) -> LockTable {
        let row = |owner: Option<&str>, expires_in, finished| LockRow {
            owner: owner.map(ReplicaId::from),
            fence: Fence(1),
            expires_in,
            finished,
            requested_by: None,
            pod_ref: PodRef::default(),
            checkpoint_len: 0,
        };
        let rows = rows.iter().map(|(key, owner, expires_in, finished)| {
            let row = row(*owner, *expires_in, *finished);
            (key.clone(), row)
        });
        LockTable {
            rows: rows.collect(),
            ..LockTable::default()
        }
    }

    fn pod(uid: &str) -> LockKey {
        LockKey::Pod(uid.into())
    }

    #[test]
    fn holdings_count_what_is_held_and_unexpired() {
        let replica = |id: &str| LockKey::Replica(id.into());
        let seen = Holdings::of(&table(&[
            (pod("1"), Some("a#1"), 5, false),
            (pod("2"), Some("a#1"), -5, false),
            (pod("3"), None, 0, false),
            (pod("4"), None, 0, true),
            (pod("5"), Some("b#2"), 5, false),
            (replica("a#1"), Some("a#1"), 5, false),
            (replica("c#3"), Some("c#3"), 5, false),
            (replica("d#4"), Some("d#4"), -5, false),
        ]));
        let pods: Vec<_> = seen.pods.iter().map(|(name, pods)| (name.as_str(), *pods)).collect();
        assert_eq!(pods, [("a", 1), ("b", 1), ("c", 0)]);
        assert!(seen.alive.iter().eq(["a", "c"]));
        assert_eq!(seen.unheld, 2);
    }

    #[test]
    fn a_takeover_ends_when_the_last_pod_that_is_to_be_collected_has_another_holder() {
        let all = |owner: &str, left| {
            table(&[
                (pod("1"), Some(owner), left, false),
                (pod("2"), Some("a#1"), 5, false),
                (pod("3"), Some("a#1"), 5, true),
                (pod("4"), Some("b#2"), 5, false),
            ])
        };
        let mut takeover = Takeover::of("a", &all("a#1", 5));
        assert_eq!(takeover.pods(), 2);
        let second = Duration::from_secs;
        // Pod 2 finishes meanwhile; a claim that has expired already is no take-over.
        let finished = |mut table: LockTable| {
            table.rows.get_mut(&pod("2")).unwrap().finished = true;
            table
        };
        assert!(!takeover.observe(&all("b#2", -1), second(1)));
        assert!(!takeover.observe(&finished(all("a#1", 5)), second(2)));
        assert!(takeover.observe(&finished(all("b#2", 5)), second(3)));
        assert!(!takeover.observe(&all("b#2", 5), second(4)));
        assert_eq!(takeover.took(), Some(second(3)));
    }
}
