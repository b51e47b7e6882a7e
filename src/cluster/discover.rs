//! Discovery: the pods to collect, as one set that is published when it changes.
//!
//! Each namespace is watched by itself; their pods come together here. Discovery does not decide which replica collects
//! a pod.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::Cluster;
use super::pod_cache::PodCache;
use super::select::{Scope, ScopeError};
use super::watch::Watcher;
use crate::domain::PodSet;

/// Changes within this time are published together, so that a burst of thousands of changes costs at most
/// 1 s / 20 ms = 50 copies of the set a second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);

/// Follows the pods in `scope` and publishes them whenever they change, until `stop`. A set is `complete` once every
/// namespace has been listed. Failures are logged and tried again; only a scope that cannot be valid is an error, at
/// once.
pub async fn discover(
    cluster: &Cluster,
    scope: &Scope,
    out: watch::Sender<Arc<PodSet>>,
    stop: CancellationToken,
) -> Result<(), ScopeError> {
    scope.check()?;
    let namespaces = scope.list_namespaces();
    let cache = PodCache::new(namespaces.len());
    let watchers = namespaces
        .iter()
        .enumerate()
        .map(|(index, namespace)| Watcher::new(cluster, scope, &cache, *namespace, index).run());
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = publish(cluster, &cache, &out) => {}
        _ = join_all(watchers) => {}
    }
    Ok(())
}

async fn publish(cluster: &Cluster, cache: &PodCache, out: &watch::Sender<Arc<PodSet>>) {
    loop {
        cache.changed().await;
        tokio::time::sleep(PUBLISH_INTERVAL).await;
        let set = cache.pods();
        cluster.metrics().pods_known.set(set.pods.len() as i64);
        out.send_if_modified(|published| {
            let changed = **published != set;
            if changed {
                *published = Arc::new(set);
            }
            changed
        });
    }
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
