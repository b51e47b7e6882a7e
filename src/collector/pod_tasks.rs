//! The tasks that collect pods: one for each pod whose claim this replica holds.
//!
//! It starts tasks, tells them about their pods, asks them to stop and learns how they ended. It never calls the lock
//! store, and a task is given a grant, never the claim.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::domain::{AfterRelease, Checkpoint, Fence, Pod, PodSet, PodUid, ReplicaId};
use crate::follow::{Context, PodAssignment, TaskEnd, follow};
use crate::grant::Grant;

use super::members::Members;

/// The longest time for a task to stop for another replica. A task that takes longer cannot write what it has read, so
/// the request is declined.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(30);

/// All tasks.
#[derive(Debug, Default)]
pub(super) struct PodTasks {
    by_uid: BTreeMap<PodUid, PodTask>,
    running: JoinSet<TaskEnd>,
    /// The pod of each running task.
    uids: BTreeMap<Id, PodUid>,
}

/// One pod whose claim is held, and its task.
#[derive(Debug)]
pub(super) struct PodTask {
    /// The number of the claim.
    pub(super) fence: Fence,
    /// What the task may do, and until when.
    pub(super) grant: Grant,
    /// Shows the task its pod.
    pod: watch::Sender<Arc<Pod>>,
    /// Where the task shows how far the pod is stored.
    progress: watch::Receiver<Checkpoint>,
    /// Asks the task to stop.
    stop: CancellationToken,
    /// What becomes of the row when the task has been stopped.
    when_stopped: AfterRelease,
    /// Boot-clock time since which the task has been stopping because another replica waits for the pod.
    handing_over_since: Option<Duration>,
}

/// A task that has ended.
#[derive(Debug)]
pub(super) struct EndedTask {
    pub(super) uid: PodUid,
    pub(super) task: PodTask,
    pub(super) outcome: TaskOutcome,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskOutcome {
    /// It returned.
    Ended(TaskEnd),
    /// It panicked.
    Panicked,
    /// It was aborted, because stopping took too long.
    Aborted,
}

/// How far the hand-over of a pod to another replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// The task is asked to stop now; the pod is handed over when it has ended.
    Begun,
    /// The task is still stopping.
    Pending,
    /// The task has not stopped in time, so the request must be declined. This replica keeps the pod.
    TimedOut(Fence),
    /// There is no such task.
    NotHeld,
}

impl PodTasks {
    /// Starts a task. On `progress` it shows how far the pod is stored.
    pub(super) fn start(
        &mut self,
        context: Arc<Context>,
        pod: Arc<Pod>,
        grant: Grant,
        progress: watch::Sender<Checkpoint>,
    ) {
        let span = tracing::info_span!("pod", namespace = %pod.namespace, pod = %pod.name, fence = %grant.fence);
        let uid = pod.uid.clone();
        let stop = CancellationToken::new();
        let (sender, receiver) = watch::channel(pod);
        let task = PodTask {
            fence: grant.fence,
            grant: grant.clone(),
            pod: sender,
            progress: progress.subscribe(),
            stop: stop.clone(),
            when_stopped: AfterRelease::Free,
            handing_over_since: None,
        };
        span.in_scope(|| tracing::info!("claimed the pod"));
        let follow = follow(
            context,
            PodAssignment {
                pod: receiver,
                grant,
                progress,
                stop,
            },
        );
        let handle = self.running.spawn(follow.instrument(span));
        self.uids.insert(handle.id(), uid.clone());
        self.by_uid.insert(uid, task);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether this replica holds the pod.
    pub(super) fn holds(&self, uid: &PodUid) -> bool {
        self.by_uid.contains_key(uid)
    }

    /// The task of a pod.
    pub(super) fn get(&self, uid: &PodUid) -> Option<&PodTask> {
        self.by_uid.get(uid)
    }

    /// All tasks, by pod.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PodUid, &PodTask)> {
        self.by_uid.iter()
    }

    /// The pods that are held, with the numbers of their claims.
    pub(super) fn fences(&self) -> BTreeMap<PodUid, Fence> {
        let fences = self.by_uid.iter().map(|(uid, task)| (uid.clone(), task.fence));
        fences.collect()
    }

    /// Shows each task the pod as it is in the set.
    pub(super) fn on_pods_changed(&self, set: &PodSet) {
        for (uid, task) in &self.by_uid {
            if let Some(pod) = set.pods.get(uid) {
                task.pod.send_if_modified(|shown| {
                    let changed = shown != pod;
                    if changed {
                        shown.clone_from(pod);
                    }
                    changed
                });
            }
        }
    }

    /// Tells the task that its pod has been deleted.
    pub(super) fn on_pod_deleted(&self, uid: &PodUid) {
        if let Some(task) = self.by_uid.get(uid) {
            task.pod.send_modify(|pod| {
                *pod = Arc::new(Pod {
                    deleted: true,
                    ..Pod::clone(pod)
                });
            });
        }
    }

    /// Stops the task of a pod that does not match the selection any more.
    pub(super) fn on_pod_deselected(&mut self, uid: &PodUid) {
        if let Some(task) = self.by_uid.get_mut(uid) {
            task.when_stopped = AfterRelease::Free;
            task.stop.cancel();
        }
    }

    /// Stops a task because replica `to` has requested its pod, or says that this has taken too long. The pod is handed
    /// over when the task has ended.
    pub(super) fn hand_over(&mut self, uid: &PodUid, to: &ReplicaId, now: Duration) -> HandOver {
        let Some(task) = self.by_uid.get_mut(uid) else {
            return HandOver::NotHeld;
        };
        match task.handing_over_since {
            None => {
                task.when_stopped = AfterRelease::HandedOver(to.clone());
                task.handing_over_since = Some(now);
                task.stop.cancel();
                HandOver::Begun
            }
            Some(since) if now >= since + HAND_OVER_TIMEOUT => {
                task.when_stopped = AfterRelease::Free;
                task.handing_over_since = None;
                HandOver::TimedOut(task.fence)
            }
            Some(_) => HandOver::Pending,
        }
    }

    /// Asks all tasks to write what they have read and to end.
    pub(super) fn stop_all(&self) {
        for task in self.by_uid.values() {
            task.stop.cancel();
        }
    }

    /// Ends all tasks at once, whatever they are doing.
    pub(super) fn abort_all(&mut self) {
        self.running.abort_all();
    }

    /// Waits for a task to end. `None` when there is none. Can be cancelled without losing an end.
    pub(super) async fn next_ended(&mut self) -> Option<EndedTask> {
        while let Some(joined) = self.running.join_next_with_id().await {
            if let Some(ended) = self.remove(joined) {
                return Some(ended);
            }
        }
        None
    }

    /// A further task that has ended by now.
    pub(super) fn try_next_ended(&mut self) -> Option<EndedTask> {
        while let Some(joined) = self.running.try_join_next_with_id() {
            if let Some(ended) = self.remove(joined) {
                return Some(ended);
            }
        }
        None
    }

    fn remove(&mut self, joined: Result<(Id, TaskEnd), JoinError>) -> Option<EndedTask> {
        let (id, outcome) = match joined {
            Ok((id, end)) => (id, TaskOutcome::Ended(end)),
            Err(error) if error.is_panic() => (error.id(), TaskOutcome::Panicked),
            Err(error) => (error.id(), TaskOutcome::Aborted),
        };
        let uid = self.uids.remove(&id)?;
        let task = self.by_uid.remove(&uid)?;
        Some(EndedTask { uid, task, outcome })
    }
}

impl PodTask {
    /// The pod as the task sees it.
    pub(super) fn pod(&self) -> Arc<Pod> {
        self.pod.borrow().clone()
    }

    /// How far the pod is stored.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.progress.borrow().clone()
    }

    /// Whether the task has been asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// What becomes of the row of a task that ended like this.
    pub(super) fn after_release(&self, outcome: TaskOutcome, members: &Members) -> AfterRelease {
        match outcome {
            // The row of a deleted pod stays for a while too, for replicas that have not learned of the deletion.
            TaskOutcome::Ended(TaskEnd::Finished | TaskEnd::PodDeleted) => AfterRelease::Finished,
            // The replica that requested the pod may have died while the task wrote what it had read.
            TaskOutcome::Ended(TaskEnd::Stopped) => match &self.when_stopped {
                AfterRelease::HandedOver(receiver) if !members.contains(receiver) => AfterRelease::Free,
                when_stopped => when_stopped.clone(),
            },
            TaskOutcome::Ended(TaskEnd::ClaimLost | TaskEnd::Fenced) | TaskOutcome::Panicked | TaskOutcome::Aborted => {
                AfterRelease::Free
            }
        }
    }
}

impl TaskOutcome {
    /// The value of `why` in log lines.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ended(TaskEnd::Finished) => "finished",
            Self::Ended(TaskEnd::PodDeleted) => "deleted",
            Self::Ended(TaskEnd::Stopped) => "stopped",
            Self::Ended(TaskEnd::ClaimLost) => "claim_lost",
            Self::Ended(TaskEnd::Fenced) => "refused_by_sink",
            Self::Panicked => "panicked",
            Self::Aborted => "aborted",
        }
    }
}
