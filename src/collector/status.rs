//! What the status page shows of pods and replicas. It is written here and never read by the collector.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock;
use crate::domain::{Checkpoint, Listings, LockRow, LockTable, Pod, PodSet};
use crate::status::{PodStatus, Status, StreamStatus, UnlistedStatus, UnreadStatus};
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
            namespaces_unlisted: unlisted(&set.listings),
            pods,
            ..Status::clone(status)
        }
        .into();
    });
}

fn unlisted(listings: &Listings) -> Vec<UnlistedStatus> {
    let failures = listings.failures().map(|(namespace, failure)| UnlistedStatus {
        namespace: namespace.cloned(),
        reason: failure.reason(),
        message: failure.message.to_string(),
        since: failure.since,
    });
    failures.collect()
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
        let unread = unread.remove(container).as_ref().map(unread_status);
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
        unread: Some(unread_status(&unread)),
        position: None,
    }));
    streams
}

fn unread_status(unread: &UnreadLog) -> UnreadStatus {
    UnreadStatus {
        reason: unread.reason.as_str(),
        message: unread.message.to_string(),
        since: unread.since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::domain::{ContainerProgress, ContainerState, Message, Phase};
    use crate::metrics::Metrics;
    use crate::unread::UnreadReason;

    fn pod() -> Pod {
        Pod {
            uid: "u".into(),
            namespace: "shop".into(),
            name: "cart".into(),
            node: Some("n1".into()),
            labels: BTreeMap::new(),
            phase: Phase::Running,
            deleted: false,
            containers: ["read", "done", "unread", "never"]
                .map(|name| crate::domain::Container {
                    name: name.into(),
                    state: ContainerState::Waiting,
                    previous: None,
                })
                .into(),
        }
    }

    #[test]
    fn a_stream_that_is_not_read_is_never_shown_as_followed() {
        let logs = UnreadLogs::new(Clock::boottime(), Metrics::default());
        let states = ["unread", "never", "done"].map(|name| logs.log("u".into(), name.into()));
        let why = Message::new("the kubelet is not reached", "check the node");
        for state in &states[..2] {
            state.unread(&pod(), UnreadReason::KubeletUnreachable, why.clone());
        }
        let progress = |name: &str| {
            let progress = ContainerProgress {
                container_id: format!("{name}-id").into(),
                restart_count: 0,
                started: None,
                position: None,
                finished: name == "done",
            };
            (Arc::from(name), progress)
        };
        let mut checkpoint = Checkpoint::default();
        checkpoint.containers.extend(["read", "done", "unread"].map(progress));
        let shown = |unread| {
            let all = streams(&checkpoint, unread);
            all.iter()
                .map(|stream| {
                    let reason = stream.unread.as_ref().map_or("", |unread| unread.reason);
                    format!("{} {} {} {reason}", stream.container, stream.container_id, stream.state)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(logs.of_pod(&"u".into())),
            [
                "done done-id finished ",
                "read read-id followed ",
                "unread unread-id unread kubelet_unreachable",
                "never  unread kubelet_unreachable"
            ]
        );
        states[0].read();
        drop(states);
        assert_eq!(
            shown(logs.of_pod(&"u".into())),
            [
                "done done-id finished ",
                "read read-id followed ",
                "unread unread-id followed "
            ]
        );
    }
}
