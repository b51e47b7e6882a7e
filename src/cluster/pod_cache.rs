//! The pods that all watchers have seen: a cache of one set.
//!
//! It keeps no deleted pod, and decides nothing about pods. It also keeps which namespaces could be listed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::domain::{ListFailure, Listings, Pod, PodSet, PodUid};
use crate::sync::lock;

/// The pods of all watchers.
#[derive(Debug)]
pub(super) struct PodCache {
    state: Mutex<PodSet>,
    changed: Notify,
}

impl PodCache {
    /// An empty cache for the pods of these namespaces; `None` is all.
    pub(super) fn new(namespaces: &[Option<&str>]) -> Self {
        Self {
            state: Mutex::new(PodSet {
                listings: Listings::new(namespaces.iter().copied()),
                ..PodSet::default()
            }),
            changed: Notify::new(),
        }
    }

    /// Replaces all pods of a namespace that has been listed; `None` is all namespaces.
    pub(super) fn replace(&self, namespace: Option<&str>, pods: Vec<Pod>) {
        let mut set = lock(&self.state);
        let now: BTreeSet<PodUid> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let elsewhere = |pod: &Pod| namespace.is_some_and(|name| *pod.namespace != *name);
        set.pods.retain(|uid, pod| elsewhere(pod) || now.contains(uid));
        for pod in pods {
            insert(&mut set, pod);
        }
        set.listings.on_listed(namespace);
        self.changed.notify_one();
    }

    /// The pods of a namespace cannot be listed. Those that are known stay.
    pub(super) fn on_list_failed(&self, namespace: Option<&str>, failure: ListFailure) {
        lock(&self.state).listings.on_failed(namespace, failure);
        self.changed.notify_one();
    }

    /// The API server answers again, and the pods of a namespace that was listed before are known.
    pub(super) fn on_answered(&self, namespace: Option<&str>) {
        lock(&self.state).listings.on_listed(namespace);
        self.changed.notify_one();
    }

    /// Adds or updates a pod.
    pub(super) fn put(&self, pod: Pod) {
        if insert(&mut lock(&self.state), pod) {
            self.changed.notify_one();
        }
    }

    /// Removes a pod that is deleted or no longer selected.
    pub(super) fn remove(&self, uid: &PodUid) {
        if lock(&self.state).pods.remove(uid).is_some() {
            self.changed.notify_one();
        }
    }

    /// Waits until something has changed since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The pods as they are now.
    pub(super) fn pods(&self) -> PodSet {
        lock(&self.state).clone()
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
