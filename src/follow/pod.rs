//! One pod: runs one future per container, all in the one task of the pod, and decides how the task ends.
//!
//! It reads no log itself: `container` does.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use crate::domain::{Checkpoint, Pod};

use super::assignment::{ContainerEnd, PodAssignment, TaskEnd};
use super::container;
use super::context::Context;

/// Follows one pod to its end.
pub async fn follow(context: Arc<Context>, assignment: PodAssignment) -> TaskEnd {
    let grant = assignment.grant.clone();
    tokio::select! {
        biased;
        () = grant.lost() => TaskEnd::ClaimLost,
        end = follow_containers(&context, &assignment) => end,
    }
}

/// Runs one future per container, also for containers that are added later.
async fn follow_containers(context: &Context, assignment: &PodAssignment) -> TaskEnd {
    let mut pod = assignment.pod.clone();
    let mut known = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    let mut last = ContainerEnd::Done;
    loop {
        let present = pod.borrow_and_update().clone();
        for name in container_names(&present, &assignment.progress.borrow()) {
            if known.insert(name.clone()) {
                running.push(boxed(context, assignment, name));
            }
        }
        // Checked before waiting: a pod that is over may have nothing to read at all.
        if running.is_empty() && last == ContainerEnd::Stopped {
            return TaskEnd::Stopped;
        }
        if running.is_empty() && present.has_ended() {
            return if present.deleted {
                TaskEnd::PodDeleted
            } else {
                TaskEnd::Finished
            };
        }
        tokio::select! {
            biased;
            () = assignment.stop.cancelled(), if running.is_empty() => return TaskEnd::Stopped,
            Some(end) = running.next(), if !running.is_empty() => match end {
                ContainerEnd::Fenced => return TaskEnd::Fenced,
                ContainerEnd::Stopped => last = ContainerEnd::Stopped,
                ContainerEnd::Done => {}
            },
            changed = pod.changed() => if changed.is_err() { return TaskEnd::Stopped },
        }
    }
}

fn boxed<'a>(context: &'a Context, assignment: &'a PodAssignment, name: Arc<str>) -> BoxFuture<'a, ContainerEnd> {
    Box::pin(container::follow_container(context, assignment, name))
}

/// The containers to read: those of the pod, and those that the checkpoint shows as not read to their end.
fn container_names(pod: &Pod, checkpoint: &Checkpoint) -> BTreeSet<Arc<str>> {
    let unfinished = checkpoint.unfinished().map(|(name, _)| name.clone());
    pod.containers
        .iter()
        .map(|c| c.name.clone())
        .chain(unfinished)
        .collect()
}
