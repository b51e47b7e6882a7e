//! What the collector remembers of single pods from one reconciliation to the next.
//!
//! One pure value: it calls nothing and reads no clock; `now` is boot-clock time that the caller hands in. A pod of
//! which nothing is remembered, such as one that is collected without trouble, takes no room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Checkpoint, Fence, LockRow, LockTable, Pod, PodSet, PodUid, ReplicaId};

/// The most missing pods that are remembered. While the lock table cannot be read, none is forgotten: 10 000 pods of
/// 5 KB each take 50 MB.
const MAX_MISSING: usize = 10_000;

/// What is remembered of all pods.
#[derive(Debug, Default)]
pub(super) struct PodMemory {
    pods: BTreeMap<PodUid, PodState>,
    /// The latest set of pods. A pod that is in it and not in the next one is missing from then on.
    last_set: Arc<PodSet>,
}

/// What is remembered of one pod.
#[derive(Debug, Default, PartialEq, Eq)]
struct PodState {
    /// Boot-clock time before which the pod is not claimed again, because its task failed.
    retry_at: Option<Duration>,
    /// Boot-clock time since which the pod may be claimed and its row names no owner.
    free_since: Option<Duration>,
    /// Since when no live replica has held the pod.
    unclaimed: Option<Unclaimed>,
    /// The final checkpoint of this replica's last claim, if the store may not have it.
    unsaved: Option<UnsavedCheckpoint>,
    /// The pod as it was seen last, if it is missing from the set and may not have been read to its end.
    missing: Option<MissingPod>,
    /// Boot-clock time since which the pod is known to be deleted and its row to be finished.
    tombstone_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unclaimed {
    /// Boot-clock time since which no live replica has held the pod.
    since: Duration,
    /// Whether the pod has been reported.
    reported: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct UnsavedCheckpoint {
    /// The number of the claim under which the pod was stored up to the checkpoint.
    fence: Fence,
    checkpoint: Checkpoint,
}

#[derive(Debug, PartialEq, Eq)]
struct MissingPod {
    /// The pod as it was seen last.
    pod: Arc<Pod>,
    row: RowHistory,
}

/// What the lock table has shown of a pod since the pod is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowHistory {
    /// The table has not been read since.
    NotRead,
    /// There has been no row since this boot-clock time: no replica has ever claimed the pod.
    NeverSeen { since: Duration },
    /// There has been a row. The replica that finishes or deletes it reports what was not read.
    Seen,
}

impl PodState {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn is_backing_off(&self) -> bool {
        self.retry_at.is_some()
    }
}

impl PodMemory {
    /// Forgets what the table or the time has made obsolete. Call it once for each table, before the other questions.
    pub(super) fn on_table(&mut self, table: &LockTable, now: Duration) {
        self.pods.retain(|uid, state| {
            state.retry_at = state.retry_at.filter(|until| now < *until);
            // A checkpoint is newer than the stored one only while no other replica has held the pod.
            let is_latest = |fence: Fence| table.pod(uid).is_some_and(|row| row.fence == fence);
            state.unsaved.take_if(|unsaved| !is_latest(unsaved.fence));
            !state.is_empty()
        });
    }

    /// All pods that do not back off after a failure, each with the time for which it has been known to be free; zero if it
    /// is not free. `domain::plan` decides which of them to acquire.
    pub(super) fn candidates(
        &mut self,
        set: &PodSet,
        table: &LockTable,
        is_held: impl Fn(&PodUid) -> bool,
        now: Duration,
    ) -> BTreeMap<PodUid, Duration> {
        let has_free_row = |row: Option<&LockRow>| row.is_none_or(|row| row.owner.is_none() && !row.finished);
        let is_free = |uid: &PodUid| has_free_row(table.pod(uid)) && !is_held(uid);
        self.pods.retain(|uid, state| {
            if !set.pods.contains_key(uid) || state.is_backing_off() || !is_free(uid) {
                state.free_since = None;
            }
            !state.is_empty()
        });
        let mut acquirable = BTreeMap::new();
        for uid in set.pods.keys() {
            if self.is_backing_off(uid) {
                continue;
            }
            let mut age = Duration::ZERO;
            if is_free(uid) {
                let since = *self.state(uid).free_since.get_or_insert(now);
                age = now.saturating_sub(since);
            }
            acquirable.insert(uid.clone(), age);
        }
        acquirable
    }

    /// The pods that no live replica has held for `limit` and that have not been reported yet. Each is named once; a
    /// pod that is held in between counts anew. Pods that back off are left out: their failure has been reported.
    pub(super) fn newly_unclaimed(
        &mut self,
        set: &PodSet,
        table: &LockTable,
        is_held: impl Fn(&PodUid) -> bool,
        is_alive: impl Fn(&ReplicaId) -> bool,
        now: Duration,
        limit: Duration,
    ) -> Vec<Arc<Pod>> {
        let lacks_holder =
            |row: Option<&LockRow>| row.is_none_or(|row| !row.finished && !row.owner.as_ref().is_some_and(&is_alive));
        let is_unclaimed = |uid: &PodUid| lacks_holder(table.pod(uid)) && !is_held(uid);
        self.pods.retain(|uid, state| {
            if !set.pods.contains_key(uid) || state.is_backing_off() || !is_unclaimed(uid) {
                state.unclaimed = None;
            }
            !state.is_empty()
        });
        let mut newly = Vec::new();
        for (uid, pod) in &set.pods {
            if self.is_backing_off(uid) || !is_unclaimed(uid) {
                continue;
            }
            let begin = Unclaimed {
                since: now,
                reported: false,
            };
            let unclaimed = self.state(uid).unclaimed.get_or_insert(begin);
            if now >= unclaimed.since + limit && !unclaimed.reported {
                unclaimed.reported = true;
                newly.push(pod.clone());
            }
        }
        newly
    }

    /// Does not let the pod be claimed before `until`.
    pub(super) fn back_off(&mut self, uid: &PodUid, until: Duration) {
        self.state(uid).retry_at = Some(until);
    }

    fn is_backing_off(&self, uid: &PodUid) -> bool {
        self.pods.get(uid).is_some_and(PodState::is_backing_off)
    }

    /// Keeps the final checkpoint of a claim until the store has it, or another replica has held the pod.
    pub(super) fn keep_unsaved(&mut self, uid: &PodUid, fence: Fence, checkpoint: Checkpoint) {
        self.state(uid).unsaved = Some(UnsavedCheckpoint { fence, checkpoint });
    }

    /// The store has the final checkpoint of the pod.
    pub(super) fn on_saved(&mut self, uid: &PodUid) {
        self.update(uid, |state| state.unsaved = None);
    }

    /// Takes out the checkpoint that is newer than the stored one, if this replica held the pod under `previous`, the
    /// claim before the present one.
    pub(super) fn take_unsaved(&mut self, uid: &PodUid, previous: Fence) -> Option<Checkpoint> {
        let unsaved = self.update(uid, |state| state.unsaved.take()).flatten();
        unsaved
            .filter(|unsaved| unsaved.fence == previous)
            .map(|unsaved| unsaved.checkpoint)
    }

    /// Compares the set of pods with the one before, and remembers the pods that are missing and have a log.
    /// Returns the number of pods that are not remembered, because too many are missing.
    pub(super) fn on_set(&mut self, set: &Arc<PodSet>) -> usize {
        let before = std::mem::replace(&mut self.last_set, set.clone());
        let mut count = 0;
        self.pods.retain(|uid, state| {
            if set.pods.contains_key(uid) {
                state.missing = None;
            }
            count += usize::from(state.missing.is_some());
            !state.is_empty()
        });
        let missing = before.pods.iter().filter(|(uid, _)| !set.pods.contains_key(*uid));
        let mut no_room = 0;
        for (uid, pod) in missing.filter(|(_, pod)| pod.has_log()) {
            if count >= MAX_MISSING {
                no_room += 1;
                continue;
            }
            count += 1;
            self.state(uid).missing = Some(MissingPod {
                pod: pod.clone(),
                row: RowHistory::NotRead,
            });
        }
        no_room
    }

    /// Records which missing pods have a row at `now`. A pod is forgotten when its row is finished or deleted, or when
    /// it has had none for `keep_for`.
    pub(super) fn update_missing(&mut self, table: &LockTable, now: Duration, keep_for: Duration) {
        self.pods.retain(|uid, state| {
            state.missing.take_if(|missing| {
                let row = table.pod(uid);
                missing.row = match (row, missing.row) {
                    (Some(_), _) | (None, RowHistory::Seen) => RowHistory::Seen,
                    (None, RowHistory::NeverSeen { since }) => RowHistory::NeverSeen { since },
                    (None, RowHistory::NotRead) => RowHistory::NeverSeen { since: now },
                };
                match (row, missing.row) {
                    (Some(row), _) => row.finished,
                    (None, RowHistory::NeverSeen { since }) => now >= since + keep_for,
                    (None, _) => true,
                }
            });
            !state.is_empty()
        });
    }

    /// The missing pods that have no row: no replica has ever claimed them.
    pub(super) fn missing_without_row(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let missing = self.pods.values().filter_map(|state| state.missing.as_ref());
        missing
            .filter(|missing| matches!(missing.row, RowHistory::NeverSeen { .. }))
            .map(|missing| &missing.pod)
    }

    /// A missing pod as it was seen last, marked as deleted.
    pub(super) fn missing_as_deleted(&self, uid: &PodUid) -> Option<Pod> {
        let missing = self.pods.get(uid)?.missing.as_ref()?;
        Some(Pod {
            deleted: true,
            ..Pod::clone(&missing.pod)
        })
    }

    /// The pod still exists; it only does not match the selection any more.
    pub(super) fn forget_missing(&mut self, uid: &PodUid) {
        self.update(uid, |state| state.missing = None);
    }

    /// Whether the pod is known to be deleted and its row to be finished.
    pub(super) fn is_tombstone(&self, uid: &PodUid) -> bool {
        self.pods.get(uid).is_some_and(|state| state.tombstone_since.is_some())
    }

    /// The pod is deleted and its row is finished: the row stays for a while as a tombstone.
    pub(super) fn add_tombstone(&mut self, uid: &PodUid, now: Duration) {
        self.state(uid).tombstone_since = Some(now);
    }

    /// The tombstones that are at least `age` old. Those whose row is deleted are forgotten.
    pub(super) fn old_tombstones(&mut self, table: &LockTable, now: Duration, age: Duration) -> Vec<PodUid> {
        self.pods.retain(|uid, state| {
            state.tombstone_since = state.tombstone_since.filter(|_| table.pod(uid).is_some());
            !state.is_empty()
        });
        let is_old = |state: &PodState| state.tombstone_since.is_some_and(|since| now >= since + age);
        let old = self.pods.iter().filter(|(_, state)| is_old(state));
        old.map(|(uid, _)| uid.clone()).collect()
    }

    /// The state of a pod, made if there is none. The caller sets something in it.
    fn state(&mut self, uid: &PodUid) -> &mut PodState {
        self.pods.entry(uid.clone()).or_default()
    }

    /// Changes the state of a pod if there is one, and drops it when nothing is left in it.
    fn update<T>(&mut self, uid: &PodUid, change: impl FnOnce(&mut PodState) -> T) -> Option<T> {
        let state = self.pods.get_mut(uid)?;
        let result = change(state);
        if state.is_empty() {
            self.pods.remove(uid);
        }
        Some(result)
    }
}

#[cfg(test)]
#[path = "pod_memory_tests.rs"]
mod tests;
