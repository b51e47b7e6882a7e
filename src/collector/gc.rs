//! Pods that are not there any more: tells their tasks, reports what nobody read, deletes rows.
//!
//! A pod that is missing from the set may be gone, or may only have ceased to match the
//! selection. The API server is asked by name before anything is concluded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::domain::{About, AfterRelease, LockKey, LockRow, LockTable, Phase, Pod, PodUid};
use crate::locks::DEAD;

use super::Collector;

/// Pods looked into at the same time. An answer takes some ms and is taken in at the next turn, of which
/// there are at most 20 a second (`SOON`): at most 1280 requests to the API server a second, and usually 64.
const LOOKS: usize = 64;

/// How long the answer about a pod counts.
const FRESH: Duration = Duration::from_mins(1);

/// When to ask again after the API server could not say.
const AGAIN: Duration = Duration::from_secs(5);

/// How long the row of a pod that is gone stays, finished: another replica may not have heard of the
/// deletion, and would claim the pod anew if it had no row. A watch that has gone mute is given up after
/// 150 s of silence; 30 s are left for its successor to answer.
const TOMBSTONE: Duration = Duration::from_mins(3);

/// A pod that was looked into, and what became of it.
pub(super) type Lookup = (PodUid, About, Existence);

/// What has become of a pod that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existence {
    Deleted,
    NotSelected,
    Unknown,
}

impl Collector {
    /// Acts on what has been found out about missing pods, and begins to look into further ones: those
    /// that are held here or have a row, and are not in the set.
    pub(super) async fn collect_garbage(&mut self, table: &LockTable) {
        let set = self.deps.pods.borrow().clone();
        if !set.complete {
            return;
        }
        let now = self.clock.now();
        self.departed.compare(table, now, TOMBSTONE);
        let mut lookups = Vec::new();
        while let Some(done) = self.lookups.try_join_next() {
            lookups.extend(done.ok().filter(|(uid, ..)| !set.pods.contains_key(uid)));
        }
        self.conclude(lookups, table).await;
        let now = self.clock.now();
        self.lookup_after.retain(|_, until| now < *until);
        let known = |uid: &PodUid| self.lookup_after.contains_key(uid) || self.buried.contains_key(uid);
        let missing = |uid: &PodUid| !set.pods.contains_key(uid) && !known(uid);
        let held = self
            .held
            .iter()
            .filter(|(uid, held)| missing(uid) && !held.pod.borrow().gone);
        let mut queries: BTreeMap<PodUid, About> = held
            .map(|(uid, held)| (uid.clone(), About::of(&held.pod.borrow())))
            .collect();
        for (key, row) in &table.rows {
            if let Some(uid) = key.pod().filter(|uid| missing(uid) && self.is_mine_to_clear(uid, row)) {
                queries.insert(uid.clone(), row.about.clone());
            }
        }
        let unclaimed = self.departed.unclaimed();
        let mine = unclaimed.filter(|pod| missing(&pod.uid) && self.is_my_turn(&pod.uid));
        queries.extend(mine.map(|pod| (pod.uid.clone(), About::of(pod))));
        let room = LOOKS.saturating_sub(self.lookups.len());
        for (uid, about) in queries.into_iter().take(room) {
            self.lookup_after.insert(uid.clone(), now + FRESH);
            self.lookups.spawn(look(self.deps.context.cluster.clone(), uid, about));
        }
    }

    /// Whether this replica is the one to see to a row that nobody holds: one does, chosen by the
    /// pod, so that not all ask the API server.
    fn is_mine_to_clear(&self, uid: &PodUid, row: &LockRow) -> bool {
        let grace = self.deps.lease.takeover_grace.as_millis() as i64;
        let unheld = row.finished || row.owner.is_none() || row.expires_in < -grace;
        unheld && self.is_my_turn(uid) && !self.held.contains_key(uid)
    }

    fn is_my_turn(&self, uid: &PodUid) -> bool {
        let members = &self.members.0;
        let turn = xxhash_rust::xxh3::xxh3_64(uid.as_str().as_bytes()) as usize % members.len().max(1);
        members.get(turn) == Some(&self.deps.me)
    }

    async fn conclude(&mut self, lookups: Vec<Lookup>, table: &LockTable) {
        let now = self.clock.now();
        let mut unread = Vec::new();
        for (uid, about, existence) in lookups {
            if existence == Existence::Unknown {
                self.lookup_after.insert(uid, now + AGAIN);
                continue;
            }
            if let Some(held) = self.held.get_mut(&uid) {
                match existence {
                    Existence::Deleted => held.pod.send_modify(|pod| {
                        *pod = Arc::new(Pod {
                            gone: true,
                            ..Pod::clone(pod)
                        });
                    }),
                    Existence::NotSelected => {
                        held.after = AfterRelease::Free;
                        held.stop.cancel();
                    }
                    Existence::Unknown => {}
                }
                continue;
            }
            let key = LockKey::Pod(uid.clone());
            match (existence, table.rows.get(&key)) {
                (Existence::Deleted, Some(row)) if row.finished => drop(self.buried.insert(uid, now)),
                // Claimed once more, so that what nobody read is reported under a fence.
                (Existence::Deleted, Some(_)) => {
                    let known = self.departed.gone(&uid);
                    unread.push(Arc::new(known.unwrap_or_else(|| gone(uid, about))));
                }
                // Nobody has ever had it.
                (Existence::Deleted, None) => unread.extend(self.departed.gone(&uid).map(Arc::new)),
                _ => self.departed.forget(&uid),
            }
        }
        self.forget(table, now).await;
        self.take(unread).await;
    }

    /// Deletes the rows of pods that have been gone, and of replicas that have been dead, for long enough.
    async fn forget(&mut self, table: &LockTable, now: Duration) {
        self.buried
            .retain(|uid, _| table.rows.contains_key(&LockKey::Pod(uid.clone())));
        let old = self.buried.iter().filter(|(_, since)| now >= **since + TOMBSTONE);
        let mut forget: Vec<LockKey> = old.map(|(uid, _)| LockKey::Pod(uid.clone())).collect();
        // The store checks the time itself.
        let long_dead = -(DEAD.as_millis() as i64);
        let dead = table
            .rows
            .iter()
            .filter(|(key, row)| matches!(key, LockKey::Replica(_)) && row.expires_in < long_dead);
        forget.extend(dead.map(|(key, _)| key.clone()));
        if !forget.is_empty() {
            let answer = self.call("forget", self.deps.store.forget(&forget)).await;
            self.record_outcome(answer);
        }
    }
}

/// Asks the API server, which may take as long as it takes to give up.
async fn look(cluster: Cluster, uid: PodUid, about: About) -> Lookup {
    let existence = match cluster.pod(&about.namespace, &about.pod).await {
        Ok(Some(pod)) if pod.uid == uid => Existence::NotSelected,
        Ok(_) => Existence::Deleted,
        Err(error) => {
            tracing::debug!(%uid, %error, "cannot find out whether the pod still exists");
            Existence::Unknown
        }
    };
    (uid, about, existence)
}

/// A pod of which only its row is left.
fn gone(uid: PodUid, about: About) -> Pod {
    Pod {
        uid,
        namespace: about.namespace,
        name: about.pod,
        node: Some(about.node).filter(|node| !node.is_empty()),
        labels: BTreeMap::new(),
        phase: Phase::Ended,
        gone: true,
        containers: Vec::new(),
    }
}
