//! Whether an action of a history may be carried out: only if podlog can detect what is lost by it. It changes nothing.

use super::fleet::{CONTAINERS, Fleet, pod_key};
use crate::domain::Checkpoint;
use kube_sim::{SimPod, WrittenLog};

/// The logs of all instances of a container, the oldest first.
fn instances(fleet: &Fleet, pod: &SimPod, container: &str) -> Vec<WrittenLog> {
    let mut logs = fleet.sim.written();
    logs.retain(|log| log.instance.uid == pod.uid() && log.instance.container == container);
    logs
}

/// Whether a container may restart: whether the logs of all instances before the present one are stored. The kubelet
/// keeps the log of one previous instance. Nothing shows that the log of an earlier one was lost.
pub(super) fn may_restart(fleet: &Fleet, pod: &SimPod, container: &str) -> bool {
    let logs = instances(fleet, pod, container);
    logs.iter().rev().skip(1).all(|log| fleet.ledger.missing(log) == 0)
}

/// Whether the log of a container may be rotated. Before its first line is stored, podlog cannot detect that lines are
/// lost. The beginning of an unfinished line is always lost: a sink that does not fence does not know the position, so the
/// checkpoint must have it.
pub(super) fn may_rotate(fleet: &Fleet, pod: &SimPod, container: &str, fencing: bool) -> bool {
    let logs = instances(fleet, pod, container);
    let Some((log, earlier)) = logs.split_last().filter(|(log, _)| fleet.ledger.has_position(log)) else {
        return false;
    };
    let missing = fleet.ledger.missing(log);
    let unfinished = log.lines.last().is_some_and(|line| line.message.ends_with(b" "));
    if unfinished && !fencing && !has_checkpoint(fleet, pod, log) {
        return false;
    }
    let stored = missing <= usize::from(unfinished) && earlier.iter().all(|log| fleet.ledger.missing(log) == 0);
    stored || fencing && missing < log.lines.len()
}

fn checkpoint(fleet: &Fleet, pod: &SimPod) -> Checkpoint {
    Checkpoint::decode(&fleet.table.checkpoint(&pod_key(pod))).unwrap_or_default()
}

/// Whether the checkpoint of the pod has a position in this log.
fn has_checkpoint(fleet: &Fleet, pod: &SimPod, log: &WrittenLog) -> bool {
    let of = &log.instance;
    let checkpoint = checkpoint(fleet, pod);
    let progress = checkpoint.containers.get(&*of.container);
    progress.is_some_and(|progress| progress.restart_count == of.restart_count && progress.position.is_some())
}

/// Whether a pod may be deleted: whether its checkpoint contains the latest instance of each container that has written
/// something. podlog cannot know other instances of a deleted pod, and stores no gap for them.
pub(super) fn may_delete(fleet: &Fleet, pod: &SimPod) -> bool {
    let checkpoint = checkpoint(fleet, pod);
    CONTAINERS.iter().all(|container| {
        let logs = instances(fleet, pod, container);
        let latest = logs.iter().rev().find(|log| !log.lines.is_empty()).or(logs.first());
        let progress = checkpoint.containers.get(*container);
        latest.is_none_or(|log| progress.is_some_and(|progress| progress.restart_count >= log.instance.restart_count))
    })
}
