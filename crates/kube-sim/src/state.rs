//! The state of the simulated cluster: the live pods, the pods that the API shows, and the history that watches read.
//! Each change of a pod gets the next resource version. It does no I/O and never waits; [`shared`](super::shared) has
//! the lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::files::{ContainerInstance, Log};
use super::pod::{LivePod, PodSpec};
use super::published::PublishedPod;

/// The first resource version. It is large, so that small numbers are always too old.
const FIRST_VERSION: u64 = 1_000;

/// Namespace and name.
pub(super) type ObjectKey = (String, String);

/// One change that the API shows.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) version: u64,
    key: ObjectKey,
    /// The pod before the change, if it existed.
    pub(super) before: Option<Arc<PublishedPod>>,
    /// The pod after the change. For a deletion: its last state, at the version of the deletion.
    pub(super) after: Arc<PublishedPod>,
    pub(super) deletion: bool,
}

/// All pods at one resource version.
pub(super) type Snapshot = BTreeMap<ObjectKey, Arc<PublishedPod>>;

#[derive(Debug)]
pub(super) struct ClusterState {
    pods: BTreeMap<ObjectKey, LivePod>,
    published: Snapshot,
    version: u64,
    /// The oldest version that a list or a new watch may ask for.
    oldest: u64,
    /// The version of the newest compacted event.
    newest_compacted: u64,
    history: VecDeque<Event>,
    history_max: usize,
    /// The logs of all container instances that have ever run.
    logs: Vec<Arc<Log>>,
    rng: fastrand::Rng,
    /// Whether changes are kept from the API for now.
    status_delayed: bool,
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
            newest_compacted: FIRST_VERSION,
            history: VecDeque::new(),
            history_max,
            logs: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            status_delayed: false,
            nodes: BTreeSet::new(),
            namespaces: BTreeSet::from(["default".to_owned()]),
        }
    }

    /// The newest resource version.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version that a list or a new watch may ask for.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The version of the newest compacted event. A watch that has not sent it yet cannot continue.
    pub(super) fn newest_compacted(&self) -> u64 {
        self.newest_compacted
    }

    pub(super) fn logs(&self) -> &[Arc<Log>] {
        &self.logs
    }

    pub(super) fn pod(&self, key: &ObjectKey) -> Option<&LivePod> {
        self.pods.get(key)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &LivePod> {
        self.pods.values()
    }

    pub(super) fn published(&self, key: &ObjectKey) -> Option<&Arc<PublishedPod>> {
        self.published.get(key)
    }

    /// Creates a pod and returns its UID, or `None` if a pod of that name exists.
    pub(super) fn create(&mut self, spec: PodSpec, now: i64) -> Option<String> {
        let key = (spec.namespace.clone(), spec.name.clone());
        if self.pods.contains_key(&key) {
            return None;
        }
        let uid = self.uid();
        self.namespaces.insert(spec.namespace.clone());
        self.nodes.extend(spec.node.clone());
        self.pods.insert(key.clone(), LivePod::new(spec, uid.clone(), now));
        self.publish(&key);
        Some(uid)
    }

    /// Changes a pod and publishes it. Returns `None` if no pod has this name and UID.
    pub(super) fn edit<T>(&mut self, key: &ObjectKey, uid: &str, change: impl FnOnce(&mut LivePod) -> T) -> Option<T> {
        let pod = self.pods.get_mut(key).filter(|pod| pod.uid == uid)?;
        let done = change(pod);
        self.nodes.extend(pod.spec.node.clone());
        self.publish(key);
        Some(done)
    }

    /// Removes a pod at once. Its containers end, and their logs are removed. Returns false if no pod has this name and
    /// UID.
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
            after: Arc::new(PublishedPod::new(&pod, self.version)),
            before,
            deletion: true,
        });
        true
    }

    /// Creates the empty log of the next instance of a container.
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

    /// Compacts the history. Requests for the present or an earlier version then get `410 Gone`.
    pub(super) fn compact(&mut self) {
        // The present version becomes too old as well, because the next version has no event.
        self.newest_compacted = self.version;
        self.version += 1;
        self.oldest = self.version;
        self.history.clear();
    }

    /// The pods at `version`, or `None` if that version is compacted or does not exist yet.
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

    /// Keeps changes from the API, or publishes all of them.
    pub(super) fn delay_status(&mut self, delayed: bool) {
        self.status_delayed = delayed;
        for key in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.publish(&key);
        }
    }

    fn publish(&mut self, key: &ObjectKey) {
        let Some(pod) = self.pods.get(key).filter(|_| !self.status_delayed) else {
            return;
        };
        self.version += 1;
        let after = Arc::new(PublishedPod::new(pod, self.version));
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
            if let Some(event) = self.history.pop_front() {
                self.oldest = event.version;
                self.newest_compacted = event.version;
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
    fn a_snapshot_shows_an_earlier_version_until_it_is_compacted() {
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
    fn history_beyond_its_maximum_is_compacted() {
        let mut state = ClusterState::new(1, 2);
        for name in ["a", "b", "c"] {
            state.create(PodSpec::new("n", name), 0).unwrap();
        }
        assert_eq!(state.oldest(), FIRST_VERSION + 1);
        assert_eq!(state.event_after(FIRST_VERSION + 1).unwrap().version, FIRST_VERSION + 2);
        assert!(state.event_after(state.version()).is_none());
    }

    #[test]
    fn an_edit_with_the_uid_of_an_earlier_pod_changes_nothing() {
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
