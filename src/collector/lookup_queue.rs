//! Which missing pods to ask the API server about, and when: first those that this replica holds, then those that have
//! waited longest.
//!
//! Pure: it gets the time, and asks nothing itself. A namespace whose pods may not be read is asked about one pod at a
//! time, less and less often, so it takes no turn from other namespaces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{PodRef, PodUid};

/// How long to wait before asking again. It doubles with each answer that brings nothing new, up to [`LONGEST`].
const FIRST: Duration = Duration::from_mins(1);

/// When to ask again after the API server could not say, and after the first refusal of a namespace.
const RETRY: Duration = Duration::from_secs(5);

/// The longest wait. A refusal lasts until a person grants a right.
const LONGEST: Duration = Duration::from_hours(1);

/// A pod that is missing from the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MissingPod {
    /// Its names.
    pub(super) pod_ref: PodRef,
    /// Whether this replica holds it.
    pub(super) held: bool,
}

/// The missing pods, and when each is to be looked up.
#[derive(Debug, Default)]
pub(super) struct LookupQueue {
    pods: BTreeMap<PodUid, Entry>,
    /// The namespaces whose pods may not be read.
    refused: BTreeMap<Arc<str>, Refusal>,
}

#[derive(Debug)]
struct Entry {
    missing: MissingPod,
    /// Boot-clock time from which the pod may be looked up. Its lookup is under way if there is none.
    due: Option<Duration>,
    /// The wait after the next answer that brings nothing new.
    wait: Duration,
    /// Whether the latest lookup got no answer.
    no_answer: bool,
}

#[derive(Debug)]
struct Refusal {
    /// Boot-clock time from which one pod of the namespace may be looked up.
    due: Duration,
    /// The wait after the next refusal.
    wait: Duration,
    /// Whether that one lookup has been sent, so that the next refusal is its answer. Other refusals answer lookups that
    /// were sent before the first one.
    asked: bool,
}

fn doubled(wait: Duration) -> Duration {
    (wait * 2).min(LONGEST)
}

impl LookupQueue {
    /// Replaces the missing pods. One that was missing before keeps its turn.
    pub(super) fn update(&mut self, missing: BTreeMap<PodUid, MissingPod>, now: Duration) {
        self.pods.retain(|uid, _| missing.contains_key(uid));
        for (uid, missing) in missing {
            match self.pods.get_mut(&uid) {
                Some(entry) => entry.missing = missing,
                None => drop(self.pods.insert(
                    uid,
                    Entry {
                        missing,
                        due: Some(now),
                        wait: FIRST,
                        no_answer: false,
                    },
                )),
            }
        }
        let entries = &self.pods;
        let is_used = |name: &Arc<str>| entries.values().any(|entry| entry.missing.pod_ref.namespace == *name);
        self.refused.retain(|name, _| is_used(name));
    }

    /// Takes the pods to look up now, at most `room`.
    pub(super) fn take(&mut self, room: usize, now: Duration) -> Vec<(PodUid, PodRef)> {
        let is_due = |entry: &&PodUid| self.pods[*entry].due.is_some_and(|due| due <= now);
        let mut due: Vec<PodUid> = self.pods.keys().filter(is_due).cloned().collect();
        due.sort_by_key(|uid| (!self.pods[uid].missing.held, self.pods[uid].due));
        let mut taken = Vec::new();
        for uid in due {
            if taken.len() == room {
                break;
            }
            let Some(entry) = self.pods.get_mut(&uid) else { continue };
            if let Some(refusal) = self.refused.get_mut(&entry.missing.pod_ref.namespace) {
                if now < refusal.due {
                    continue;
                }
                // The others wait for the answer about this one.
                (refusal.due, refusal.asked) = (now + refusal.wait, true);
            }
            entry.due = None;
            taken.push((uid, entry.missing.pod_ref.clone()));
        }
        taken
    }

    /// The pod exists and does not match the selection: it is asked about again after a longer and longer time.
    pub(super) fn on_exists(&mut self, uid: &PodUid, now: Duration) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.due = Some(now + entry.wait);
            entry.wait = doubled(entry.wait);
            entry.no_answer = false;
        }
    }

    /// The pod is deleted. Should it still be missing in a few seconds, because what follows from that could not be
    /// done, it is asked about again.
    pub(super) fn on_deleted(&mut self, uid: &PodUid, now: Duration) {
        if let Some(entry) = self.pods.get_mut(uid) {
            (entry.due, entry.no_answer) = (Some(now + RETRY), false);
        }
    }

    /// The API server did not answer.
    pub(super) fn on_no_answer(&mut self, uid: &PodUid, now: Duration) {
        if let Some(entry) = self.pods.get_mut(uid) {
            (entry.due, entry.no_answer) = (Some(now + RETRY), true);
        }
    }

    /// podlog may not read the pods of this pod's namespace. Returns whether that is new.
    pub(super) fn on_refused(&mut self, uid: &PodUid, namespace: &Arc<str>, now: Duration) -> bool {
        self.on_no_answer(uid, now);
        let Some(refusal) = self.refused.get_mut(namespace) else {
            let refusal = Refusal {
                due: now + RETRY,
                wait: doubled(RETRY),
                asked: false,
            };
            self.refused.insert(namespace.clone(), refusal);
            return true;
        };
        if std::mem::take(&mut refusal.asked) {
            refusal.due = now + refusal.wait;
            refusal.wait = doubled(refusal.wait);
        }
        false
    }

    /// podlog may read the pods of this namespace. Returns whether that is new.
    pub(super) fn on_allowed(&mut self, namespace: &str) -> bool {
        self.refused.remove(namespace).is_some()
    }

    /// How many missing pods got no answer, or are in a namespace that is refused.
    pub(super) fn unresolved(&self) -> usize {
        let is_refused = |entry: &Entry| self.refused.contains_key(&entry.missing.pod_ref.namespace);
        let entries = self.pods.values();
        entries.filter(|entry| entry.no_answer || is_refused(entry)).count()
    }
}

#[cfg(test)]
#[path = "lookup_queue_tests.rs"]
mod tests;
