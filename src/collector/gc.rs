//! Garbage collection: pods that are not in the set any more.
//!
//! Such a pod may be deleted, or may only not match the selection any more, so the API server is asked by name before
//! anything is concluded. The task of a deleted pod learns of it. A deleted pod that no replica has read to its end is
//! claimed once more, to report what is missing. Rows that are not needed any more are deleted. It never deletes the row
//! of a pod that may still exist, and never asks about a namespace that is not in the scope or not listed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cluster::{ApiError, Cluster};
use crate::domain::{LockKey, LockRow, LockTable, Phase, Pod, PodRef, PodSet, PodUid};
use crate::locks::DEAD_REPLICA_TTL;
use crate::metrics::Reason;

use super::claims::Claims;
use super::lookup_queue::{LookupQueue, MissingPod};
use super::members::Members;

/// The most lookups at the same time. An answer takes some ms and is used at the next reconciliation, of which there are
/// at most 20 a second: at most 64 * 20 = 1280 requests to the API server a second, and usually 64.
const MAX_LOOKUPS: usize = 64;

/// How long the finished row of a deleted pod stays. Another replica may not have learned of the deletion, and would
/// claim the pod again if it had no row. A silent watch is given up after 150 s, which leaves 30 s to
/// list the pods again.
const TOMBSTONE_AGE: Duration = Duration::from_mins(3);

/// Finds out what has become of missing pods, and acts on it.
#[derive(Debug, Default)]
pub(super) struct GarbageCollector {
    queue: LookupQueue,
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
#[derive(Clone, Debug, PartialEq, Eq)]
enum Existence {
    /// It does not exist.
    Deleted,
    /// It exists and does not match the selection.
    NotSelected,
    /// podlog may not read the pods of the namespace. The text says which right is missing.
    Refused(String),
    /// The API server did not answer.
    Unknown,
}

/// What is missing from the set.
#[derive(Debug, Default)]
struct Missing {
    /// The pods to look up.
    pods: BTreeMap<PodUid, MissingPod>,
    /// The number of rows whose namespace is not in the scope.
    out_of_scope: usize,
    /// The number of rows whose namespace has not been listed, so that it is not known which pods are missing.
    unlisted: usize,
}

impl GarbageCollector {
    /// Acts on the answers that have come, and begins to look up further missing pods.
    pub(super) async fn collect(&mut self, claims: &mut Claims, members: &Members, set: &PodSet, table: &LockTable) {
        let now = claims.clock().now();
        claims.memory.update_missing(table, now, TOMBSTONE_AGE);
        let unread = self.on_answers(claims, set, table, now);
        delete_rows(claims, table, now).await;
        claims.acquire(unread).await;
        let now = claims.clock().now();
        let missing = missing(claims, members, set, table);
        self.queue.update(missing.pods, now);
        let unresolved = &claims.metrics().rows_unresolved;
        let count = |reason, rows: usize| {
            unresolved.get_or_create(&Reason { reason }).set(rows as i64);
        };
        count("no_answer", self.queue.unresolved() + missing.unlisted);
        count("out_of_scope", missing.out_of_scope);
        let room = MAX_LOOKUPS.saturating_sub(self.lookups.len());
        for (uid, pod_ref) in self.queue.take(room, now) {
            let cluster = claims.context.cluster.clone();
            self.lookups.spawn(look_up(cluster, uid, pod_ref));
        }
    }

    /// Takes in the answers that have come. Returns the deleted pods that may not have been read to their end: they are
    /// claimed once more, so that what is missing is reported under a fence.
    fn on_answers(&mut self, claims: &mut Claims, set: &PodSet, table: &LockTable, now: Duration) -> Vec<Arc<Pod>> {
        let mut unread = Vec::new();
        while let Some(answer) = self.lookups.try_join_next() {
            let Some(answer) = answer.ok() else { continue };
            self.on_answer(&answer, now);
            let Lookup {
                uid,
                pod_ref,
                existence,
            } = answer;
            if set.pods.contains_key(&uid) {
                continue;
            }
            let memory = &mut claims.memory;
            match (existence, claims.tasks.holds(&uid), table.pod(&uid)) {
                (Existence::Unknown | Existence::Refused(_), ..) => {}
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

    /// Decides when to ask again, and says once that a namespace is refused, and once that this is over.
    fn on_answer(&mut self, answer: &Lookup, now: Duration) {
        let (uid, namespace) = (&answer.uid, &answer.pod_ref.namespace);
        match &answer.existence {
            Existence::Deleted => self.queue.on_deleted(uid, now),
            Existence::NotSelected => self.queue.on_exists(uid, now),
            Existence::Unknown => return self.queue.on_no_answer(uid, now),
            Existence::Refused(error) => {
                if self.queue.on_refused(uid, namespace, now) {
                    tracing::warn!(%namespace, %error,
                        "podlog cannot find out which pods of this namespace still exist, so their rows stay in distributed_lock; it asks again after some seconds and then less and less often, up to once an hour");
                }
                return;
            }
        }
        if self.queue.on_allowed(namespace) {
            tracing::info!(%namespace, "podlog can find out again which pods of this namespace still exist");
        }
    }
}

/// The pods that are missing from the set and that this replica should look up: those it holds, and those that no
/// replica holds and this one is responsible for.
fn missing(claims: &Claims, members: &Members, set: &PodSet, table: &LockTable) -> Missing {
    let is_missing = |uid: &PodUid| !set.pods.contains_key(uid) && !claims.memory.is_tombstone(uid);
    let grace = claims.lease.takeover_grace.as_millis() as i64;
    let is_unheld = |row: &LockRow| row.finished || row.owner.is_none() || row.expires_in < -grace;
    let mut missing = Missing::default();
    for (uid, task) in claims.tasks.iter().filter(|(uid, _)| is_missing(uid)) {
        let pod = task.pod();
        if !pod.deleted {
            let (pod_ref, held) = (PodRef::from_pod(&pod), true);
            missing.pods.insert(uid.clone(), MissingPod { pod_ref, held });
        }
    }
    for (key, row) in &table.rows {
        let is_mine = |uid: &PodUid| is_unheld(row) && members.is_responsible(uid) && !claims.tasks.holds(uid);
        let Some(uid) = key.pod().filter(|uid| is_missing(uid) && is_mine(uid)) else {
            continue;
        };
        let (pod_ref, held) = (row.pod_ref.clone(), false);
        if !set.listings.includes(&pod_ref.namespace) {
            missing.out_of_scope += 1;
        } else if set.listings.is_listed(&pod_ref.namespace) {
            missing.pods.insert(uid.clone(), MissingPod { pod_ref, held });
        } else {
            missing.unlisted += 1;
        }
    }
    let never_claimed = claims.memory.missing_without_row();
    for pod in never_claimed.filter(|pod| is_missing(&pod.uid) && members.is_responsible(&pod.uid)) {
        let (pod_ref, held) = (PodRef::from_pod(pod), false);
        missing.pods.insert(pod.uid.clone(), MissingPod { pod_ref, held });
    }
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
        Err(ApiError::Forbidden(message)) => Existence::Refused(message.to_string()),
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
