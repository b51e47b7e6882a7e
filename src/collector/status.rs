//! What the status page shows of pods and replicas. It is written here and never read by the collector.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock;
use crate::domain::{Checkpoint, LockRow, LockTable, Pod, PodSet};
use crate::status::{PodStatus, Status, StreamStatus, UnreadStatus};
use crate::unread::{UnreadLog, UnreadLogs};

use super::members::Members;
use super::pod_tasks::PodTasks;

/// Publishes what the table and the tasks show now.
pub(super) fn publish(
    to: &watch::Sender<Arc<Status>>,
    set: &PodSet,
    table: &LockTable,
    tasks: &PodTasks,
    members: &Members,
    unread: &UnreadLogs,
) {
    let pods = set.pods.values().map(|pod| {
        let mut status = pod_status(pod, table.pod(&pod.uid));
        if let Some(task) = tasks.get(&pod.uid) {
            status.holder = Some(members.me().clone());
            status.fence = task.fence;
            status.streams = streams(&task.checkpoint(), unread.of_pod(&pod.uid));
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

/// The streams of the checkpoint, and the containers that are not read although they have no stream yet.
fn streams(checkpoint: &Checkpoint, unread: Vec<(Arc<str>, UnreadLog)>) -> Vec<StreamStatus> {
    let mut unread: BTreeMap<_, _> = unread.into_iter().collect();
    let known = checkpoint.containers.iter().map(|(container, progress)| {
        let unread = unread.remove(container).map(unread_status);
        StreamStatus {
            container: container.clone(),
            container_id: progress.container_id.as_str().into(),
            state: match &unread {
                Some(_) => "unread",
                None if progress.finished => "finished",
                None => "followed",
            },
            unread,
            position: progress.position.map(|position| position.time),
        }
    });
    let mut streams: Vec<_> = known.collect();
    streams.extend(unread.into_iter().map(|(container, unread)| StreamStatus {
        container,
        container_id: "".into(),
        state: "unread",
        unread: Some(unread_status(unread)),
        position: None,
    }));
    streams
}

fn unread_status(unread: UnreadLog) -> UnreadStatus {
    UnreadStatus {
        reason: unread.reason.as_str(),
        message: unread.message.to_string(),
        since: unread.since,
    }
}
