//! The state of the simulated cluster: pods, what of them is published, and the history watches read. Every change
//! goes through a method of [`ClusterState`], which publishes it under the next resource version. Plain data behind one
//! lock; it does no I/O and never waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::files::{ContainerInstance, Log};
use super::pod::{Pod, PodSpec};
use super::published::PublishedPod;

/// Resource versions begin here, so that small numbers are always too old.
const FIRST_VERSION: u64 = 1_000;

/// Namespace and name.
pub(super) type ObjectKey = (String, String);

/// One published change.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) version: u64,
    key: ObjectKey,
    /// The pod before, if it existed.
    pub(super) before: Option<Arc<PublishedPod>>,
    /// The pod after; for a deletion its last state, under the version of the deletion.
    pub(super) after: Arc<PublishedPod>,
    pub(super) deletion: bool,
}

/// Pods as of one resource version.
pub(super) type Snapshot = BTreeMap<ObjectKey, Arc<PublishedPod>>;

#[derive(Debug)]
pub(super) struct ClusterState {
    pods: BTreeMap<ObjectKey, Pod>,
    published: Snapshot,
    version: u64,
    /// The oldest version a list or a new watch may ask for.
    oldest: u64,
    /// Version of the newest event that is forgotten.
    forgotten: u64,
    history: VecDeque<Event>,
    history_max: usize,
    /// The logs of all instances that ever ran.
    logs: Vec<Arc<Log>>,
    rng: fastrand::Rng,
    /// Changes are not published: the kubelet knows of them and the API does not.
    lags: bool,
    pub(super) nodes: BTreeSet<String>,
    pub(super) namespaces: BTreeSet<String>,
}

impl ClusterState {
    pub(super) fn new(seed: u64, history_max: usize) -> Self {
        Self {
            pods: BTreeMap::new(),
            published: Snapshot::new(),
            version: FIRST_VERSION,
            oldest: FIRST_VERSION,
            forgotten: FIRST_VERSION,
            history: VecDeque::new(),
            history_max,
            logs: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            lags: false,
            nodes: BTreeSet::new(),
            namespaces: BTreeSet::from(["default".to_owned()]),
        }
    }

    /// The newest resource version.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version a list or a new watch may ask for.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Version of the newest event that is forgotten: a running watch that stands before it has missed something.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(super) fn logs(&self) -> &[Arc<Log>] {
        &self.logs
    }

    pub(super) fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    pub(super) fn published(&self, key: &ObjectKey) -> Option<&Arc<PublishedPod>> {
        self.published.get(key)
    }

    /// Creates a pod and returns its UID, or nothing if the name is taken.
    pub(super) fn create(&mut self, spec: PodSpec, now: i64) -> Option<String> {
        let key = (spec.namespace.clone(), spec.name.clone());
        if self.pods.contains_key(&key) {
            return None;
        }
        let uid = self.uid();
        self.namespaces.insert(spec.namespace.clone());
        self.nodes.extend(spec.node.clone());
        self.pods.insert(key.clone(), Pod::new(spec, uid.clone(), now));
        self.publish(&key);
        Some(uid)
    }

    /// Changes a pod and publishes it. Nothing happens if there is no such incarnation.
    pub(super) fn edit<T>(&mut self, key: &ObjectKey, uid: &str, change: impl FnOnce(&mut Pod) -> T) -> Option<T> {
        let pod = self.pods.get_mut(key).filter(|pod| pod.uid == uid)?;
        let done = change(pod);
        self.nodes.extend(pod.spec.node.clone());
        self.publish(key);
        Some(done)
    }

    /// Removes a pod at once. Its containers end and the kubelet forgets its logs.
    pub(super) fn remove(&mut self, key: &ObjectKey, uid: &str, now: i64) -> bool {
        if self.pods.get(key).is_none_or(|pod| pod.uid != uid) {
            return false;
        }
        let Some(mut pod) = self.pods.remove(key) else {
            return false;
        };
        for container in &mut pod.containers {
            container.exit(137, now);
            for log in container.logs() {
                log.remove_files();
            }
        }
        let before = self.published.remove(key);
        self.version += 1;
        self.record(Event {
            version: self.version,
            key: key.clone(),
            after: Arc::new(PublishedPod::of(&pod, self.version)),
            before,
            deletion: true,
        });
        true
    }

    /// A new, empty log for the next instance of a container.
    pub(super) fn new_log(
        &mut self,
        pod: &ObjectKey,
        uid: &str,
        container: &str,
        rotate_bytes: u64,
    ) -> Option<Arc<Log>> {
        let restart_count = self
            .pods
            .get(pod)
            .filter(|pod| pod.uid == uid)?
            .container(container)?
            .next_restart_count();
        let (high, low) = (self.rng.u128(..), self.rng.u128(..));
        let log = Arc::new(Log::new(
            ContainerInstance {
                uid: uid.to_owned(),
                namespace: pod.0.clone(),
                pod: pod.1.clone(),
                container: container.to_owned(),
                container_id: format!("containerd://{high:032x}{low:032x}"),
                restart_count,
            },
            rotate_bytes,
        ));
        self.logs.push(Arc::clone(&log));
        Some(log)
    }

    /// Compacts the history: resuming from an earlier version is answered `410 Gone`.
    pub(super) fn compact(&mut self) {
        // The present version must become too old as well, so the state moves on by a version without an event.
        self.forgotten = self.version;
        self.version += 1;
        self.oldest = self.version;
        self.history.clear();
    }

    /// The pods as they were under `version`, or nothing if that is compacted or still to come.
    pub(super) fn snapshot(&self, version: u64) -> Option<Snapshot> {
        if version > self.version || version < self.oldest {
            return None;
        }
        let mut pods = self.published.clone();
        for event in self.history.iter().rev().take_while(|event| event.version > version) {
            match &event.before {
                Some(before) => pods.insert(event.key.clone(), Arc::clone(before)),
                None => pods.remove(&event.key),
            };
        }
        Some(pods)
    }

    /// The first change after `version`.
    pub(super) fn event_after(&self, version: u64) -> Option<&Event> {
        let index = self.history.partition_point(|event| event.version <= version);
        self.history.get(index)
    }

    /// Lets statuses fall behind what the kubelet does, or catch up with it.
    pub(super) fn lag(&mut self, lags: bool) {
        self.lags = lags;
        for key in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.publish(&key);
        }
    }

    fn publish(&mut self, key: &ObjectKey) {
        let Some(pod) = self.pods.get(key).filter(|_| !self.lags) else {
            return;
        };
        self.version += 1;
        let after = Arc::new(PublishedPod::of(pod, self.version));
        let before = self.published.insert(key.clone(), Arc::clone(&after));
        self.record(Event {
            version: self.version,
            key: key.clone(),
            before,
            after,
            deletion: false,
        });
    }

    fn record(&mut self, event: Event) {
        self.history.push_back(event);
        while self.history.len() > self.history_max {
            if let Some(dropped) = self.history.pop_front() {
                self.oldest = dropped.version;
                self.forgotten = dropped.version;
            }
        }
    }

    fn uid(&mut self) -> String {
        let bits = self.rng.u128(..);
        let digits = format!("{bits:032x}");
        format!(
            "{}-{}-4{}-a{}-{}",
            &digits[..8],
            &digits[8..12],
            &digits[13..16],
            &digits[17..20],
            &digits[20..]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(snapshot: Option<Snapshot>) -> Option<Vec<String>> {
        snapshot.map(|pods| pods.into_keys().map(|(_, name)| name).collect())
    }

    #[test]
    fn a_snapshot_shows_the_past_until_it_is_compacted() {
        let mut state = ClusterState::new(1, 100);
        let empty = state.version();
        let uid = state.create(PodSpec::new("n", "a"), 0).unwrap();
        state.create(PodSpec::new("n", "b"), 0).unwrap();
        let both = state.version();
        state.remove(&("n".into(), "a".into()), &uid, 0);
        assert_eq!(names(state.snapshot(empty)), Some(vec![]));
        assert_eq!(names(state.snapshot(both)), Some(vec!["a".into(), "b".into()]));
        assert_eq!(names(state.snapshot(state.version())), Some(vec!["b".into()]));
        assert_eq!(names(state.snapshot(state.version() + 1)), None);
        state.compact();
        assert_eq!(names(state.snapshot(both)), None);
        assert_eq!(names(state.snapshot(state.version())), Some(vec!["b".into()]));
    }

    #[test]
    fn old_history_is_compacted_by_itself() {
        let mut state = ClusterState::new(1, 2);
        for name in ["a", "b", "c"] {
            state.create(PodSpec::new("n", name), 0).unwrap();
        }
        assert_eq!(state.oldest(), FIRST_VERSION + 1);
        assert_eq!(state.event_after(FIRST_VERSION + 1).unwrap().version, FIRST_VERSION + 2);
        assert!(state.event_after(state.version()).is_none());
    }

    #[test]
    fn an_edit_of_a_former_incarnation_changes_nothing() {
        let mut state = ClusterState::new(1, 100);
        let key = ("n".to_owned(), "a".to_owned());
        let first = state.create(PodSpec::new("n", "a"), 0).unwrap();
        assert_eq!(state.create(PodSpec::new("n", "a"), 0), None);
        assert!(state.remove(&key, &first, 0));
        let second = state.create(PodSpec::new("n", "a"), 0).unwrap();
        assert_ne!(first, second);
        let version = state.version();
        assert!(state.edit(&key, &first, |_| ()).is_none());
        assert!(!state.remove(&key, &first, 0));
        assert_eq!(state.version(), version);
    }
}
