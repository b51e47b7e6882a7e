//! The claims of this replica: acquires them, starts a task for each pod, and releases the claim when the task
//! has ended.
//!
//! A claim is with the renewer while its task runs. When the task has ended, the claim is taken back and released with
//! the final checkpoint; until then no other replica collects the pod. Which pods to claim is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::defect::{self, Defect};
use crate::domain::claim::Lease;
use crate::domain::position::BadCheckpoint;
use crate::domain::{
    AcquireRequest, AfterRelease, Checkpoint, Claim, Deadline, Fence, LockKey, Pod, PodRef, PodUid, Release,
};
use crate::follow::{Context, TaskEnd};
use crate::grant::Grant;
use crate::metrics::{Metrics, Reason};
use crate::renewer::Renewer;

use super::members::Members;
use super::pod_memory::PodMemory;
use super::pod_tasks::{EndedTask, PodTask, PodTasks, TaskOutcome};
use super::store_client::StoreClient;

/// How long a pod is not claimed again after its task panicked or its checkpoint could not be read.
const BACKOFF: Duration = Duration::from_mins(1);

/// How long a pod is not claimed again after the sink refused to store under its claim. Shorter than [`BACKOFF`], because
/// a new claim ends most such refusals. Not zero, because claiming and opening take milliseconds: a refusal that lasts
/// would keep the store and the sink busy.
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);

/// The claims, the tasks that run under them, and what is remembered of pods.
#[derive(Debug)]
pub(super) struct Claims {
    /// Where claims are stored.
    pub(super) store: StoreClient,
    /// Renews them.
    pub(super) renewer: Renewer,
    /// The tasks of the pods that are held.
    pub(super) tasks: PodTasks,
    /// What is remembered of pods.
    pub(super) memory: PodMemory,
    /// The times of claims.
    pub(super) lease: Lease,
    /// What pod tasks share.
    pub(super) context: Arc<Context>,
}

/// How far a pod is stored.
#[derive(Debug)]
struct StoredProgress {
    checkpoint: Checkpoint,
    /// Whether the store has this checkpoint.
    is_saved: bool,
}

impl Claims {
    /// Holds no claim yet.
    pub(super) fn new(store: StoreClient, renewer: Renewer, lease: Lease, context: Arc<Context>) -> Self {
        Self {
            store,
            renewer,
            tasks: PodTasks::default(),
            memory: PodMemory::default(),
            lease,
            context,
        }
    }

    /// The clock of deadlines.
    pub(super) fn clock(&self) -> Clock {
        self.context.clock
    }

    /// Counters.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.context.metrics
    }

    /// The right to act under a claim that was acquired by a statement sent at `sent`.
    pub(super) fn grant(&self, fence: Fence, sent: Duration) -> Grant {
        Grant::new(fence, Deadline::new(self.lease.deadline(sent)), self.clock())
    }

    /// Acquires the rows of these pods and starts a task for each claim.
    pub(super) async fn acquire(&mut self, pods: Vec<Arc<Pod>>) {
        if pods.is_empty() {
            return;
        }
        let requests: Vec<AcquireRequest> = pods.iter().map(|pod| request(pod)).collect();
        let sent = self.clock().now();
        let Some(claims) = self.store.acquire(&requests).await else {
            return;
        };
        let by_key: BTreeMap<LockKey, Arc<Pod>> = pods
            .into_iter()
            .map(|pod| (LockKey::Pod(pod.uid.clone()), pod))
            .collect();
        self.metrics().claims_acquired.inc_by(claims.len() as u64);
        let mut unreadable = Vec::new();
        for claim in claims {
            if let Some(pod) = by_key.get(&claim.key) {
                unreadable.extend(self.start(claim, pod.clone(), sent));
            }
        }
        self.release_unreadable(unreadable).await;
    }

    /// Starts the task of a pod. Returns the claim when its checkpoint cannot be read.
    fn start(&mut self, claim: Claim, pod: Arc<Pod>, sent: Duration) -> Option<Claim> {
        let progress = match self.stored_progress(&claim, &pod.uid) {
            Ok(progress) => progress,
            Err(error) => {
                tracing::error!(namespace = %pod.namespace, pod = %pod.name, uid = %pod.uid, %error,
                    "the pod is not collected, because its checkpoint cannot be read: it is damaged, or another version has written it; to read its logs from the beginning, delete its row from distributed_lock (the sinks stdout and file then get the lines again)");
                return Some(claim);
            }
        };
        if pod.deleted && progress.checkpoint.containers.is_empty() && pod.containers.is_empty() {
            self.metrics().gaps.get_or_create(&Reason { reason: "deleted" }).inc();
            tracing::warn!(namespace = %pod.namespace, pod = %pod.name, uid = %pod.uid,
                "the pod was deleted before any of its lines was stored; its containers are unknown, so no gap record is written");
        }
        let grant = self.grant(claim.fence, sent);
        let (checkpoint, mut to_renew) = watch::channel(progress.checkpoint);
        if !progress.is_saved {
            to_renew.mark_changed();
        }
        self.renewer.add(claim, grant.clone(), Some(to_renew));
        self.tasks.start(self.context.clone(), pod, grant, checkpoint);
        None
    }

    /// How far the pod is stored: the checkpoint of this replica if it held the pod last and the store may not have it,
    /// otherwise the checkpoint of the store.
    fn stored_progress(&mut self, claim: &Claim, uid: &PodUid) -> Result<StoredProgress, BadCheckpoint> {
        if let Some(checkpoint) = self.memory.take_unsaved(uid, claim.previous) {
            return Ok(StoredProgress {
                checkpoint,
                is_saved: false,
            });
        }
        Ok(StoredProgress {
            checkpoint: Checkpoint::decode(&claim.checkpoint)?,
            is_saved: true,
        })
    }

    /// Releases claims whose checkpoints cannot be read. Their pods are not claimed again for [`BACKOFF`].
    async fn release_unreadable(&mut self, claims: Vec<Claim>) {
        let until = self.clock().now() + BACKOFF;
        for uid in claims.iter().filter_map(|claim| claim.key.pod()) {
            self.memory.back_off(uid, until);
        }
        let release = |claim| Release {
            claim,
            checkpoint: None,
            after: AfterRelease::Free,
        };
        let releases: Vec<Release> = claims.into_iter().map(release).collect();
        self.release(&releases).await;
    }

    /// Releases the claims of a task that has ended and of all others that have ended by now. A claim whose release the
    /// store does not confirm expires.
    pub(super) async fn on_task_ended(&mut self, first: EndedTask, members: &Members) {
        let releases = self.take_back(first, members).await;
        self.release(&releases).await;
    }

    /// Takes the claims of a task that has ended, and of all others that have ended by now, back from the renewer.
    /// Returns the releases to send.
    pub(super) async fn take_back(&mut self, first: EndedTask, members: &Members) -> Vec<Release> {
        let mut tasks = vec![first];
        tasks.extend(std::iter::from_fn(|| self.tasks.try_next_ended()));
        let ended_claims: Vec<EndedClaim> = tasks.into_iter().map(|task| self.classify_end(task, members)).collect();
        let keys = ended_claims
            .iter()
            .map(|ended| LockKey::Pod(ended.uid.clone()))
            .collect();
        let removed = self.renewer.remove_all(keys).await;
        let mut releases = Vec::new();
        for (ended, removed) in ended_claims.into_iter().zip(removed) {
            let forgotten = defect::on(Defect::FinalCheckpointForgotten);
            let checkpoint = removed
                .unsaved
                .filter(|_| !forgotten)
                .map(|checkpoint| checkpoint.encode());
            if checkpoint.is_some() {
                let task = &ended.task;
                self.memory.keep_unsaved(&ended.uid, task.fence, task.checkpoint());
            }
            if let Some(reason) = ended.lost {
                let still_held = removed.claim.is_some();
                self.report_loss(&ended.task, if still_held { reason } else { LossReason::NotHeld });
            }
            let after = ended.after;
            releases.extend(removed.claim.map(|claim| Release {
                claim,
                checkpoint,
                after,
            }));
        }
        releases
    }

    /// Classifies how a task ended: what becomes of the row, when the pod may be claimed again, and whether the claim
    /// was lost.
    fn classify_end(&mut self, ended: EndedTask, members: &Members) -> EndedClaim {
        let EndedTask { uid, task, outcome } = ended;
        let now = self.clock().now();
        let pod = task.pod();
        tracing::info!(namespace = %pod.namespace, pod = %pod.name, fence = %task.fence, why = outcome.as_str(),
            "the pod is no longer collected by this replica");
        // A sink also refuses a write that cannot end before the deadline. Then the deadline is the cause.
        let has_time = task.grant.deadline.allows(now, self.lease.margin);
        let (backoff, lost) = match outcome {
            TaskOutcome::Panicked => {
                tracing::error!(namespace = %pod.namespace, pod = %pod.name,
                    "the task that collects the pod panicked, which is a bug; the pod is claimed again in a minute");
                (Some(BACKOFF), None)
            }
            TaskOutcome::Ended(TaskEnd::Fenced) if has_time => (Some(BACKOFF_REFUSED), Some(LossReason::Fenced)),
            TaskOutcome::Ended(TaskEnd::Fenced | TaskEnd::ClaimLost) => (None, Some(LossReason::Deadline)),
            TaskOutcome::Ended(_) | TaskOutcome::Aborted => (None, None),
        };
        if let Some(backoff) = backoff {
            self.memory.back_off(&uid, now + backoff);
        }
        let after = task.after_release(outcome, members);
        // What the task has queued elsewhere must not be written under the claim of another replica.
        task.grant.revoke();
        EndedClaim { uid, task, after, lost }
    }

    /// Counts and logs that a claim ended before its task was done.
    fn report_loss(&self, task: &PodTask, reason: LossReason) {
        let (why, message) = (reason.as_str(), reason.message());
        self.metrics().claims_lost.get_or_create(&Reason { reason: why }).inc();
        let pod = task.pod();
        tracing::warn!(namespace = %pod.namespace, pod = %pod.name, fence = %task.fence, reason = why, "{message}");
    }

    /// Releases claims. Returns whether the store has confirmed it.
    pub(super) async fn release(&mut self, releases: &[Release]) -> bool {
        if releases.is_empty() {
            return true;
        }
        let confirmed = self.store.release(releases).await;
        if confirmed {
            for uid in releases.iter().filter_map(|release| release.claim.key.pod()) {
                self.memory.on_saved(uid);
            }
        }
        confirmed
    }
}

/// A task that has ended, and what follows from how it ended.
#[derive(Debug)]
struct EndedClaim {
    uid: PodUid,
    task: PodTask,
    /// What becomes of the row.
    after: AfterRelease,
    /// Why the claim was lost, if it was.
    lost: Option<LossReason>,
}

/// Why a claim ended before its task was done.
#[derive(Clone, Copy, Debug)]
enum LossReason {
    /// It was not renewed in time.
    Deadline,
    /// The sink refuses to store under it.
    Fenced,
    /// The lock store says that this replica does not hold it.
    NotHeld,
}

impl LossReason {
    /// The value of the label `reason`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Fenced => "fenced",
            Self::NotHeld => "not_held",
        }
    }

    /// What the log says.
    fn message(self) -> &'static str {
        match self {
            Self::Deadline => {
                "the claim was not renewed in time, so collecting the pod was stopped before another replica may take it; find out why the lock store did not answer"
            }
            Self::Fenced => {
                "the sink refuses to store under this claim; the pod is claimed and opened again in a few seconds; see the message of the sink"
            }
            Self::NotHeld => {
                "the claim has expired, was released by hand, or has another holder; this replica has stopped collecting the pod"
            }
        }
    }
}

fn request(pod: &Pod) -> AcquireRequest {
    AcquireRequest {
        key: LockKey::Pod(pod.uid.clone()),
        pod_ref: PodRef::from_pod(pod),
    }
}
