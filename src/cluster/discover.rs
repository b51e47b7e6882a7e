//! Discovery: what there is to collect, as one value that is published when it changes.
//!
//! Each namespace is followed by itself; here their pods come together. Nothing here remembers a
//! pod that is gone, and nothing decides who collects it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::select::{Scope, ScopeError};
use super::watch::Watcher;
use crate::domain::{Pod, PodSet, PodUid};

/// Changes that come within this time are published together: a burst of thousands costs fifty
/// copies of the set a second, not thousands.
const GATHER: Duration = Duration::from_millis(20);

/// Where the watchers put what they see.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<Shown>,
    changed: Notify,
}

#[derive(Debug)]
struct Shown {
    set: PodSet,
    /// Which watchers have listed.
    listed: Vec<bool>,
}

impl Board {
    pub(super) fn new(watchers: usize) -> Self {
        Self {
            state: Mutex::new(Shown {
                set: PodSet::default(),
                listed: vec![false; watchers],
            }),
            changed: Notify::new(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All pods of one watcher, whose namespace this is.
    pub(super) fn replace(&self, watcher: usize, namespace: Option<&str>, pods: Vec<Pod>) {
        let mut shown = self.shown();
        let shown = &mut *shown;
        let now: std::collections::BTreeSet<PodUid> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let elsewhere = |pod: &Pod| namespace.is_some_and(|name| *pod.namespace != *name);
        shown.set.pods.retain(|uid, pod| elsewhere(pod) || now.contains(uid));
        for pod in pods {
            insert(&mut shown.set, pod);
        }
        if let Some(listed) = shown.listed.get_mut(watcher) {
            *listed = true;
        }
        shown.set.complete = shown.listed.iter().all(|listed| *listed);
        self.changed.notify_one();
    }

    /// A new or changed pod.
    pub(super) fn put(&self, pod: Pod) {
        if insert(&mut self.shown().set, pod) {
            self.changed.notify_one();
        }
    }

    /// A pod that is gone or no longer wanted.
    pub(super) fn remove(&self, uid: &PodUid) {
        if self.shown().set.pods.remove(uid).is_some() {
            self.changed.notify_one();
        }
    }

    fn set(&self) -> PodSet {
        self.shown().set.clone()
    }
}

/// Keeps the pod that is there when nothing about it has changed, which is most of the time: sets
/// then compare by address. Answers whether something did.
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

impl Cluster {
    /// Follows the pods in `scope` and publishes them whenever they change, until `stop`. A set is
    /// `complete` once every namespace has been listed. Failures are logged and tried again; only a
    /// scope that cannot be meant is an error, at once.
    pub async fn discover(
        &self,
        scope: &Scope,
        out: watch::Sender<Arc<PodSet>>,
        stop: CancellationToken,
    ) -> Result<(), ScopeError> {
        scope.check()?;
        let namespaces = scope.places();
        let board = Board::new(namespaces.len());
        let watchers = namespaces
            .iter()
            .enumerate()
            .map(|(index, namespace)| Watcher::new(self, scope, &board, *namespace, index).run());
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.publish(&board, &out) => {}
            _ = join_all(watchers) => {}
        }
        Ok(())
    }

    async fn publish(&self, board: &Board, out: &watch::Sender<Arc<PodSet>>) {
        loop {
            board.changed.notified().await;
            tokio::time::sleep(GATHER).await;
            let set = board.set();
            self.0.metrics.pods_known.set(set.pods.len() as i64);
            out.send_if_modified(|published| {
                let changed = **published != set;
                if changed {
                    *published = Arc::new(set);
                }
                changed
            });
        }
    }
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
