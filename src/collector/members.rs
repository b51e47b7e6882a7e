//! The live replicas, as the latest lock table shows them. Pure: it reads no clock and calls nothing.

use std::time::Duration;

use crate::domain::{LockTable, PodUid, ReplicaId};

/// The live replicas, this one always included once a table has been read.
#[derive(Debug)]
pub(super) struct Members {
    me: ReplicaId,
    /// In the order of the table, which is the same for all replicas, apart from this one while its own row is absent.
    ids: Vec<ReplicaId>,
    /// Boot-clock time since which the replicas have been the same.
    since: Duration,
}

impl Members {
    /// No table has been read yet.
    pub(super) fn new(me: ReplicaId, now: Duration) -> Self {
        Self {
            me,
            ids: Vec::new(),
            since: now,
        }
    }

    /// Takes the live replicas from a table that was read at `now`. Returns whether they have changed.
    pub(super) fn on_table(&mut self, table: &LockTable, now: Duration) -> bool {
        let mut ids: Vec<_> = table.live_replicas().cloned().collect();
        if !ids.contains(&self.me) {
            ids.push(self.me.clone());
        }
        let changed = ids != self.ids;
        if changed {
            (self.ids, self.since) = (ids, now);
        }
        changed
    }

    /// This replica.
    pub(super) fn me(&self) -> &ReplicaId {
        &self.me
    }

    /// The live replicas.
    pub(super) fn ids(&self) -> &[ReplicaId] {
        &self.ids
    }

    /// Whether the replica `id` is alive.
    pub(super) fn contains(&self, id: &ReplicaId) -> bool {
        self.ids.contains(id)
    }

    /// Whether the replicas have been the same for one `ttl`. A replica that died keeps its pods for so long; moving
    /// pods earlier would move some of them twice.
    pub(super) fn is_settled(&self, now: Duration, ttl: Duration) -> bool {
        now >= self.since + ttl
    }

    /// Whether this replica is the one that looks after a pod that no replica holds. The pod chooses one of the live
    /// replicas, so that not all of them ask the API server about it.
    pub(super) fn is_responsible(&self, uid: &PodUid) -> bool {
        let index = xxhash_rust::xxh3::xxh3_64(uid.as_str().as_bytes()) as usize % self.ids.len().max(1);
        self.ids.get(index) == Some(&self.me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fence, LockKey, LockRow, PodRef};

    fn table(replicas: &[(&str, i64)]) -> LockTable {
        let row = |(id, expires_in): &(&str, i64)| {
            let row = LockRow {
                owner: Some((*id).into()),
                fence: Fence(1),
                expires_in: *expires_in,
                finished: false,
                requested_by: None,
                pod_ref: PodRef::default(),
                checkpoint_len: 0,
            };
            (LockKey::Replica((*id).into()), row)
        };
        LockTable {
            rows: replicas.iter().map(row).collect(),
            ..LockTable::default()
        }
    }

    const TTL: Duration = Duration::from_secs(20);

    #[test]
    fn the_replicas_are_settled_one_ttl_after_they_last_changed() {
        let mut members = Members::new("me".into(), Duration::ZERO);
        let at = Duration::from_secs;
        assert!(members.on_table(&table(&[("me", 9000), ("other", 9000)]), at(1)));
        assert!(!members.on_table(&table(&[("me", 5000), ("other", 5000)]), at(5)));
        assert!(!members.is_settled(at(20), TTL));
        assert!(members.is_settled(at(21), TTL));
        assert!(members.on_table(&table(&[("me", 9000), ("other", -1)]), at(25)));
        assert!(!members.is_settled(at(44), TTL));
        assert_eq!(members.ids(), ["me".into()]);
    }

    #[test]
    fn this_replica_counts_as_alive_while_its_own_row_is_absent() {
        let mut members = Members::new("me".into(), Duration::ZERO);
        members.on_table(&table(&[("other", 9000)]), TTL);
        assert!(members.contains(&"me".into()));
        assert!(members.contains(&"other".into()));
    }

    #[test]
    fn exactly_one_of_the_live_replicas_is_responsible_for_a_pod() {
        let names = ["a", "b", "c"];
        let all = names.map(|name| (name, 9000));
        for i in 0..100 {
            let uid = PodUid::from(format!("pod-{i}"));
            let responsible = |me: &&str| {
                let mut members = Members::new((*me).into(), Duration::ZERO);
                members.on_table(&table(&all), Duration::ZERO);
                members.is_responsible(&uid)
            };
            assert_eq!(names.iter().filter(|me| responsible(me)).count(), 1, "{uid}");
        }
    }
}
