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
use crate::domain::{ListFailure, Listings, PodSet};
use crate::metrics::{Metrics, Reason};

/// Changes within this time are published together, so that a burst of thousands of changes costs at most
/// 1 s / 20 ms = 50 copies of the set a second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);

/// Follows the pods in `scope` and publishes them whenever they change, until `stop`. The set says which namespaces have
/// been listed. Failures are logged and tried again; only a scope that cannot be valid is an error, at once.
pub async fn discover(
    cluster: &Cluster,
    scope: &Scope,
    out: watch::Sender<Arc<PodSet>>,
    stop: CancellationToken,
) -> Result<(), ScopeError> {
    scope.check()?;
    let namespaces = scope.list_namespaces();
    let cache = PodCache::new(&namespaces);
    let watchers = namespaces
        .iter()
        .map(|namespace| Watcher::new(cluster, scope, &cache, *namespace).run());
    count_unlisted(cluster.metrics(), &Listings::default());
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
        count_unlisted(cluster.metrics(), &set.listings);
        out.send_if_modified(|published| {
            let changed = **published != set;
            if changed {
                *published = Arc::new(set);
            }
            changed
        });
    }
}

/// Counts the listings that fail now, by reason.
fn count_unlisted(metrics: &Metrics, listings: &Listings) {
    for reason in ListFailure::REASONS {
        let failing = listings.failures().filter(|(_, failure)| failure.reason() == reason);
        let gauge = metrics.namespaces_unlisted.get_or_create(&Reason { reason });
        gauge.set(failing.count() as i64);
    }
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
