//! The pods that all watchers have seen: a cache of one set.
//!
//! It keeps no deleted pod, and decides nothing about pods.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::domain::{Pod, PodSet, PodUid};
use crate::sync::lock;

/// The pods of all watchers.
#[derive(Debug)]
pub(super) struct PodCache {
    state: Mutex<CacheState>,
    changed: Notify,
}

#[derive(Debug)]
struct CacheState {
    pods: PodSet,
    /// For each watcher, whether it has listed its pods.
    listed: Vec<bool>,
}

impl PodCache {
    /// An empty cache for this number of watchers.
    pub(super) fn new(watchers: usize) -> Self {
        Self {
            state: Mutex::new(CacheState {
                pods: PodSet::default(),
                listed: vec![false; watchers],
            }),
            changed: Notify::new(),
        }
    }

    /// Replaces all pods of one watcher, which watches this namespace, or all if it is `None`.
    pub(super) fn replace(&self, watcher: usize, namespace: Option<&str>, pods: Vec<Pod>) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let now: BTreeSet<PodUid> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let elsewhere = |pod: &Pod| namespace.is_some_and(|name| *pod.namespace != *name);
        state.pods.pods.retain(|uid, pod| elsewhere(pod) || now.contains(uid));
        for pod in pods {
            insert(&mut state.pods, pod);
        }
        if let Some(listed) = state.listed.get_mut(watcher) {
            *listed = true;
        }
        state.pods.complete = state.listed.iter().all(|listed| *listed);
        self.changed.notify_one();
    }

    /// Adds or updates a pod.
    pub(super) fn put(&self, pod: Pod) {
        if insert(&mut lock(&self.state).pods, pod) {
            self.changed.notify_one();
        }
    }

    /// Removes a pod that is deleted or no longer selected.
    pub(super) fn remove(&self, uid: &PodUid) {
        if lock(&self.state).pods.pods.remove(uid).is_some() {
            self.changed.notify_one();
        }
    }

    /// Waits until something has changed since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The pods as they are now.
    pub(super) fn pods(&self) -> PodSet {
        lock(&self.state).pods.clone()
    }
}

/// Adds or updates a pod; returns whether anything changed. An unchanged pod keeps its allocation, so that sets mostly
/// compare by address.
fn insert(set: &mut PodSet, pod: Pod) -> bool {
    match set.pods.get_mut(&pod.uid) {
        Some(known) if **known == pod => false,
        Some(known) => {
            *known = Arc::new(pod);
            true
        }
        None => {
            set.pods.insert(pod.uid.clone(), Arc::new(pod));
            true
        }
    }
}
