//! Stopping: first this replica's own row is released, so that its peers take over what is released next; then each pod
//! is released as soon as its task has written what it had read. It claims nothing.

use std::time::Duration;

use crate::defect::{self, Defect};
use crate::domain::{AfterRelease, LockKey, Release};

use super::claims::Claims;
use super::members::Members;

/// How soon a release that failed is sent again.
const RETRY: Duration = Duration::from_millis(500);

/// Stops all tasks and releases all claims, within `grace` if the tasks and the store allow it.
pub(super) async fn shut_down(mut claims: Claims, members: &Members, grace: Duration) {
    let deadline = claims.clock().now() + grace;
    tracing::info!(pods = claims.tasks.len(), "stopping");
    // The tasks write what they have read while this replica's own row is released.
    claims.tasks.stop_all();
    if defect::on(Defect::AbortsAtStop) {
        claims.tasks.abort_all();
    }
    let own = claims.renewer.remove(&LockKey::Replica(members.me().clone())).await;
    let release = own.claim.map(|claim| Release {
        claim,
        checkpoint: None,
        after: AfterRelease::Deleted,
    });
    release_all(&mut claims, members, release.into_iter().collect(), deadline).await;
    if !claims.tasks.is_empty() {
        tracing::error!(
            pods = claims.tasks.len(),
            "the logs of some pods could not be finished within --grace; their last lines may be delivered twice"
        );
        claims.tasks.abort_all();
        while let Some(ended) = claims.tasks.next_ended().await {
            claims.on_task_ended(ended, members).await;
        }
    }
    tracing::info!("stopped");
    claims.store.heartbeat.retire();
}

/// Releases these claims, and those of all tasks as the tasks end. A release that failed is sent again: without it the
/// replica that takes over reads the lines after the last stored checkpoint again. A release changes a row only while the
/// row is held under this very claim, so sending it twice does no harm.
async fn release_all(claims: &mut Claims, members: &Members, mut releases: Vec<Release>, deadline: Duration) {
    let now = claims.clock().now();
    // Claims that have ended are not sent again: other replicas have taken the pods by now.
    let worth_retrying = claims.tasks.iter().any(|(_, task)| task.grant.deadline.get() > now);
    loop {
        if claims.release(&releases).await {
            releases.clear();
            if claims.tasks.is_empty() {
                return;
            }
        }
        let now = claims.clock().now();
        let retry_at = if releases.is_empty() { deadline } else { now + RETRY };
        if now >= deadline || !worth_retrying && claims.tasks.is_empty() {
            return;
        }
        let clock = claims.clock();
        tokio::select! {
            biased;
            Some(ended) = claims.tasks.next_ended() => releases.extend(claims.take_back(ended, members).await),
            () = clock.sleep_until(retry_at.min(deadline)) => {}
        }
    }
}
