//! What the status page shows of pods and replicas. It is written here and never read by the collector.

use std::sync::Arc;

use tokio::sync::watch;

use crate::clock;
use crate::domain::{Checkpoint, ContainerProgress, LockRow, LockTable, Pod, PodSet};
use crate::status::{PodStatus, Status, StreamStatus};

use super::members::Members;
use super::pod_tasks::PodTasks;

/// Publishes what the table and the tasks show now.
pub(super) fn publish(
    to: &watch::Sender<Arc<Status>>,
    set: &PodSet,
    table: &LockTable,
    tasks: &PodTasks,
    members: &Members,
) {
    let pods = set.pods.values().map(|pod| {
        let mut status = pod_status(pod, table.pod(&pod.uid));
        if let Some(task) = tasks.get(&pod.uid) {
            status.holder = Some(members.me().clone());
            status.fence = task.fence;
            status.streams = streams(&task.checkpoint());
        }
        status
    });
    let pods = pods.collect();
    to.send_modify(|status| {
        *status = Status {
            at: clock::wall(),
            replicas: members.ids().to_vec(),
            pods,
            ..Status::clone(status)
        }
        .into();
    });
}

fn pod_status(pod: &Pod, row: Option<&LockRow>) -> PodStatus {
    PodStatus {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        holder: row.and_then(|row| row.owner.clone()),
        fence: row.map(|row| row.fence).unwrap_or_default(),
        expires_in_ms: row.map(|row| row.expires_in).unwrap_or_default(),
        finished: row.is_some_and(|row| row.finished),
        streams: Vec::new(),
    }
}

fn streams(checkpoint: &Checkpoint) -> Vec<StreamStatus> {
    let stream = |(container, progress): (&Arc<str>, &ContainerProgress)| StreamStatus {
        container: container.clone(),
        container_id: progress.container_id.as_str().into(),
        state: if progress.finished { "finished" } else { "followed" },
        position: progress.position.map(|position| position.time),
    };
    checkpoint.containers.iter().map(stream).collect()
}
