//! The snapshot for people: what this replica knows, as one value.
//!
//! It is made after each turn and never read by the collector itself.

use crate::clock;
use crate::domain::{Checkpoint, LockKey, LockRow, LockTable, Pod};
use crate::status::{PodStatus, Status, StreamStatus};

use super::Collector;

impl Collector {
    /// Publishes what is known now.
    pub(super) fn publish(&self, table: &LockTable) {
        let set = self.deps.pods.borrow().clone();
        let pods = set.pods.values().map(|pod| {
            let row = table.rows.get(&LockKey::Pod(pod.uid.clone()));
            let held = self.held.get(&pod.uid);
            let mut status = pod_status(pod, row);
            if let Some(held) = held {
                status.holder = Some(self.deps.me.clone());
                status.fence = held.fence;
                status.streams = streams(&held.progress.borrow());
            }
            status
        });
        let pods = pods.collect();
        self.deps.status.send_modify(|status| {
            *status = Status {
                at: clock::wall(),
                replicas: self.members.0.clone(),
                pods,
                ..Status::clone(status)
            }
            .into();
        });
    }
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
    let stream = |(container, mark): (&std::sync::Arc<str>, &crate::domain::ContainerProgress)| StreamStatus {
        container: container.clone(),
        container_id: mark.container_id.as_str().into(),
        state: if mark.finished { "finished" } else { "followed" },
        position: mark.position.map(|position| position.time),
    };
    checkpoint.containers.iter().map(stream).collect()
}
