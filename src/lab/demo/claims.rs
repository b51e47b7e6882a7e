//! Which replica holds how many pods, and how long takeovers take, according to the table of claims.
//!
//! A takeover is measured from the kill until the table shows other holders. What replicas report about themselves does
//! not count. The table is only read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Cause, LockKey, LockTable, ReplicaId};
use crate::exit::Failure;
use crate::locks::{self, Holder, LockStore, LockUrl};

/// Reads the table of claims.
#[derive(Debug)]
pub(super) struct ClaimsObserver {
    store: Arc<dyn LockStore>,
}

impl ClaimsObserver {
    /// Creates the table, so that it exists before the replicas start, and opens it.
    pub(super) async fn open(url: &str) -> Result<Self, Failure> {
        let url: LockUrl = url
            .parse()
            .map_err(|message| Failure::with_cause(Cause::Setting, message))?;
        locks::migrate(&url).await?;
        // The cluster is the default of `podlog run --cluster`.
        let holder = Holder::without_claims("podlog-demo", "default".into());
        let store = locks::open(&url, holder).await?;
        Ok(Self { store })
    }

    /// The table as it is now.
    pub(super) async fn read_table(&self) -> Result<LockTable, Failure> {
        Ok(self.store.table().await?)
    }
}

/// The readable part of a replica's identity.
fn name(id: &ReplicaId) -> &str {
    id.as_str().split('#').next().unwrap_or_default()
}

/// How many pods each replica holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// The pods of each replica that has a row of its own or holds a pod.
    pub(super) pods: BTreeMap<String, usize>,
    /// The replicas whose own row is unexpired.
    pub(super) alive: BTreeSet<String>,
    /// Pods that are not finished and that no replica holds.
    pub(super) unheld: usize,
}

impl Holdings {
    /// Counts the rows of the table.
    pub(super) fn from_table(table: &LockTable) -> Self {
        let alive: BTreeSet<String> = table.live_replicas().map(|id| name(id).to_owned()).collect();
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

/// The takeover of the pods of a killed replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Takeover {
    /// The replica that was killed.
    pub(super) replica: String,
    /// How many pods it held.
    pub(super) pods: usize,
    /// The pods that have no other holder yet.
    waiting: BTreeSet<LockKey>,
    /// How long the takeover took. `None` until every pod is finished or has another holder.
    pub(super) took: Option<Duration>,
}

impl Takeover {
    /// The takeover of the pods that `replica` holds in `table`, which was read just after the replica was killed.
    pub(super) fn begin(replica: &str, table: &LockTable) -> Self {
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

    /// Updates it with the table as it is `since` the kill. Returns whether this completes the takeover.
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
    fn only_claims_that_have_not_expired_count_as_held() {
        let replica = |id: &str| LockKey::Replica(id.into());
        let seen = Holdings::from_table(&table(&[
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
    fn a_takeover_ends_when_every_unfinished_pod_has_another_holder() {
        let all = |owner: &str, left| {
            table(&[
                (pod("1"), Some(owner), left, false),
                (pod("2"), Some("a#1"), 5, false),
                (pod("3"), Some("a#1"), 5, true),
                (pod("4"), Some("b#2"), 5, false),
            ])
        };
        let mut takeover = Takeover::begin("a", &all("a#1", 5));
        assert_eq!(takeover.pods, 2);
        let second = Duration::from_secs;
        // Pod 2 finishes meanwhile. An expired claim does not count as another holder.
        let finished = |mut table: LockTable| {
            table.rows.get_mut(&pod("2")).unwrap().finished = true;
            table
        };
        assert!(!takeover.observe(&all("b#2", -1), second(1)));
        assert!(!takeover.observe(&finished(all("a#1", 5)), second(2)));
        assert!(takeover.observe(&finished(all("b#2", 5)), second(3)));
        assert!(!takeover.observe(&all("b#2", 5), second(4)));
        assert_eq!(takeover.took, Some(second(3)));
    }
}
