//! Garbage collection: pods that are not in the set any more.
//!
//! Such a pod may be deleted, or may only not match the selection any more, so the API server is asked by name before
//! anything is concluded. The task of a deleted pod learns of it. A deleted pod that no replica has read to its end is
//! claimed once more, to report what is missing. Rows that are not needed any more are deleted. It never deletes the row
//! of a pod that may still exist.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::domain::{LockKey, LockRow, LockTable, Phase, Pod, PodRef, PodSet, PodUid};
use crate::locks::DEAD_REPLICA_TTL;

use super::claims::Claims;
use super::members::Members;

/// The most lookups at the same time. An answer takes some ms and is used at the next reconciliation, of which there are
/// at most 20 a second: at most 64 * 20 = 1280 requests to the API server a second, and usually 64.
const MAX_LOOKUPS: usize = 64;

/// How long the answer about a pod is valid.
const ANSWER_VALID: Duration = Duration::from_mins(1);

/// When to ask again after the API server could not say.
const RETRY: Duration = Duration::from_secs(5);

/// How long the finished row of a deleted pod stays. Another replica may not have learned of the deletion, and would
/// claim the pod again if it had no row. A silent watch is given up after 150 s, which leaves 30 s to
/// list the pods again.
const TOMBSTONE_AGE: Duration = Duration::from_mins(3);

/// Finds out what has become of missing pods, and acts on it.
#[derive(Debug, Default)]
pub(super) struct GarbageCollector {
    /// Questions to the API server. The loop never waits for them.
    lookups: JoinSet<Lookup>,
}

/// A pod that was looked up by name, and the answer.
#[derive(Debug)]
struct Lookup {
    uid: PodUid,
    pod_ref: PodRef,
    existence: Existence,
}

/// What the API server says about a pod that is missing from the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existence {
    /// It does not exist.
    Deleted,
    /// It exists and does not match the selection.
    NotSelected,
    /// The API server did not answer.
    Unknown,
}

impl GarbageCollector {
    /// Acts on the answers that have come, and begins to look up further missing pods.
    pub(super) async fn collect(&mut self, claims: &mut Claims, members: &Members, set: &PodSet, table: &LockTable) {
        if !set.complete {
            return;
        }
        let now = claims.clock().now();
        claims.memory.update_missing(table, now, TOMBSTONE_AGE);
        let unread = self.on_answers(claims, set, table, now);
        delete_rows(claims, table, now).await;
        claims.acquire(unread).await;
        let now = claims.clock().now();
        claims.memory.expire_lookups(now);
        let room = MAX_LOOKUPS.saturating_sub(self.lookups.len());
        for (uid, pod_ref) in missing(claims, members, set, table).into_iter().take(room) {
            claims.memory.set_next_lookup(&uid, now + ANSWER_VALID);
            let cluster = claims.context.cluster.clone();
            self.lookups.spawn(look_up(cluster, uid, pod_ref));
        }
    }

    /// Takes in the answers that have come. Returns the deleted pods that may not have been read to their end: they are
    /// claimed once more, so that what is missing is reported under a fence.
    fn on_answers(&mut self, claims: &mut Claims, set: &PodSet, table: &LockTable, now: Duration) -> Vec<Arc<Pod>> {
        let mut unread = Vec::new();
        while let Some(answer) = self.lookups.try_join_next() {
            let Some(Lookup {
                uid,
                pod_ref,
                existence,
            }) = answer.ok().filter(|answer| !set.pods.contains_key(&answer.uid))
            else {
                continue;
            };
            let memory = &mut claims.memory;
            match (existence, claims.tasks.holds(&uid), table.pod(&uid)) {
                (Existence::Unknown, ..) => memory.set_next_lookup(&uid, now + RETRY),
                (Existence::Deleted, true, _) => claims.tasks.on_pod_deleted(&uid),
                (Existence::NotSelected, true, _) => claims.tasks.on_pod_deselected(&uid),
                (Existence::Deleted, false, Some(row)) if row.finished => memory.add_tombstone(&uid, now),
                (Existence::Deleted, false, Some(_)) => {
                    let pod = memory
                        .missing_as_deleted(&uid)
                        .unwrap_or_else(|| deleted_pod(uid, pod_ref));
                    unread.push(Arc::new(pod));
                }
                // No replica has ever held it.
                (Existence::Deleted, false, None) => unread.extend(memory.missing_as_deleted(&uid).map(Arc::new)),
                (Existence::NotSelected, false, _) => memory.forget_missing(&uid),
            }
        }
        unread
    }
}

/// The pods that are missing from the set and that this replica should look up: those it holds, and those that no
/// replica holds and this one is responsible for.
fn missing(claims: &Claims, members: &Members, set: &PodSet, table: &LockTable) -> BTreeMap<PodUid, PodRef> {
    let is_missing = |uid: &PodUid| !set.pods.contains_key(uid) && claims.memory.needs_lookup(uid);
    let grace = claims.lease.takeover_grace.as_millis() as i64;
    let is_unheld = |row: &LockRow| row.finished || row.owner.is_none() || row.expires_in < -grace;
    let mut missing = BTreeMap::new();
    for (uid, task) in claims.tasks.iter().filter(|(uid, _)| is_missing(uid)) {
        let pod = task.pod();
        if !pod.deleted {
            missing.insert(uid.clone(), PodRef::from_pod(&pod));
        }
    }
    for (key, row) in &table.rows {
        let is_mine = |uid: &PodUid| is_unheld(row) && members.is_responsible(uid) && !claims.tasks.holds(uid);
        if let Some(uid) = key.pod().filter(|uid| is_missing(uid) && is_mine(uid)) {
            missing.insert(uid.clone(), row.pod_ref.clone());
        }
    }
    let never_claimed = claims.memory.missing_without_row();
    let mine = never_claimed.filter(|pod| is_missing(&pod.uid) && members.is_responsible(&pod.uid));
    missing.extend(mine.map(|pod| (pod.uid.clone(), PodRef::from_pod(pod))));
    missing
}

/// Deletes the rows of pods that have been deleted, and of replicas that have been dead, for long enough.
async fn delete_rows(claims: &mut Claims, table: &LockTable, now: Duration) {
    let tombstones = claims.memory.old_tombstones(table, now, TOMBSTONE_AGE);
    let mut keys: Vec<LockKey> = tombstones.into_iter().map(LockKey::Pod).collect();
    // The store checks the time itself.
    let long_dead = -(DEAD_REPLICA_TTL.as_millis() as i64);
    let is_dead = |key: &LockKey, row: &LockRow| matches!(key, LockKey::Replica(_)) && row.expires_in < long_dead;
    let dead = table.rows.iter().filter(|(key, row)| is_dead(key, row));
    keys.extend(dead.map(|(key, _)| key.clone()));
    if !keys.is_empty() {
        claims.store.delete_rows(&keys).await;
    }
}

/// Asks the API server whether a pod exists.
async fn look_up(cluster: Cluster, uid: PodUid, pod_ref: PodRef) -> Lookup {
    let existence = match cluster.pod(&pod_ref.namespace, &pod_ref.pod).await {
        Ok(Some(pod)) if pod.uid == uid => Existence::NotSelected,
        Ok(_) => Existence::Deleted,
        Err(error) => {
            tracing::debug!(%uid, %error, "the API server did not say whether the pod still exists; asking again in a few seconds");
            Existence::Unknown
        }
    };
    Lookup {
        uid,
        pod_ref,
        existence,
    }
}

/// A deleted pod of which only its row is known.
fn deleted_pod(uid: PodUid, pod_ref: PodRef) -> Pod {
    Pod {
        uid,
        namespace: pod_ref.namespace,
        name: pod_ref.pod,
        node: Some(pod_ref.node).filter(|node| !node.is_empty()),
        labels: BTreeMap::new(),
        phase: Phase::Ended,
        deleted: true,
        containers: Vec::new(),
    }
}
