//! The beginning and the end of pod tasks, and of the collector itself.
//!
//! When a task has ended, its claim comes back from the renewer and is released with the task's
//! final checkpoint. Until then nobody else collects the pod.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::defect::{self, Defect};
use crate::domain::position::BadCheckpoint;
use crate::domain::{AfterRelease, Checkpoint, Claim, LockKey, Pod, PodUid, Release};
use crate::follow::{Task, TaskEnd, follow};
use crate::metrics::Reason;

use super::{Collector, HeldPod};

/// How long a pod is left alone after its task panicked or its checkpoint could not be read.
const REST: Duration = Duration::from_mins(1);

/// How long a pod is left alone after the sink refused to store under its claim: less than a minute,
/// because a new claim mends most such refusals, and more than nothing, because it may not, and a claim
/// and an opening take milliseconds.
const REST_REFUSED: Duration = Duration::from_secs(5);

/// How soon a release that failed is tried again while the replica stops.
const AGAIN: Duration = Duration::from_millis(500);

type End = Result<(Id, TaskEnd), JoinError>;

impl Collector {
    /// How far the pod is stored: as the store says, or as this replica knows better, when it held
    /// the pod last and could not tell the store.
    pub(super) fn checkpoint_of(&mut self, claim: &Claim, pod: &Pod) -> Result<StoredProgress, BadCheckpoint> {
        match self.unsaved.remove(&pod.uid) {
            Some((fence, checkpoint)) if fence == claim.previous => Ok(StoredProgress {
                checkpoint,
                stored: false,
            }),
            _ => Ok(StoredProgress {
                checkpoint: Checkpoint::decode(&claim.checkpoint)?,
                stored: true,
            }),
        }
    }

    /// Starts the task of a pod whose claim was won by a statement sent at `sent`.
    pub(super) fn start(&mut self, claim: Claim, pod: Arc<Pod>, known: StoredProgress, sent: Duration) {
        let grant = self.grant(claim.fence, sent);
        let (progress, mut seen) = watch::channel(known.checkpoint);
        if !known.stored {
            seen.mark_changed();
        }
        let stop = CancellationToken::new();
        let span = tracing::info_span!("pod", namespace = %pod.namespace, pod = %pod.name, fence = %claim.fence);
        let uid = pod.uid.clone();
        let (sender, receiver) = watch::channel(pod);
        let held = HeldPod {
            fence: claim.fence,
            pod: sender,
            progress: seen.clone(),
            grant: grant.clone(),
            stop: stop.clone(),
            after: AfterRelease::Free,
            asked: None,
        };
        self.deps.renewer.add(claim, grant.clone(), Some(seen));
        span.in_scope(|| tracing::info!("claimed"));
        let task = Task {
            pod: receiver,
            grant,
            progress,
            stop,
        };
        let handle = self
            .tasks
            .spawn(follow(self.deps.context.clone(), task).instrument(span));
        self.names.insert(handle.id(), uid.clone());
        self.held.insert(uid, held);
    }

    /// Gives back claims whose pods cannot be collected for now.
    pub(super) async fn leave_alone(&mut self, claims: Vec<Claim>) {
        let until = self.clock.now() + REST;
        let uids = claims.iter().filter_map(|claim| claim.key.pod().cloned());
        self.resting.extend(uids.map(|uid| (uid, until)));
        let release = |claim| Release {
            claim,
            checkpoint: None,
            after: AfterRelease::Free,
        };
        let releases: Vec<Release> = claims.into_iter().map(release).collect();
        self.release(&releases).await;
    }

    /// Takes in the end of a task, and of all others that have ended by now, and releases their claims. Those that
    /// the store was not told of expire.
    pub(super) async fn settle(&mut self, first: End) {
        let releases = self.take_back(first).await;
        self.release(&releases).await;
    }

    /// Takes in the end of a task, and of all others that have ended by now. Answers what is to be released.
    async fn take_back(&mut self, first: End) -> Vec<Release> {
        let mut ends = vec![first];
        while let Some(end) = self.tasks.try_join_next_with_id() {
            ends.push(end);
        }
        let over: Vec<EndedTask> = ends.into_iter().filter_map(|end| self.ended(end)).collect();
        let keys = over.iter().map(|over| LockKey::Pod(over.uid.clone())).collect();
        let returned = self.deps.renewer.remove_all(keys).await;
        let mut releases = Vec::new();
        for (over, returned) in over.into_iter().zip(returned) {
            let told = !defect::on(Defect::FinalCheckpointForgotten);
            let checkpoint = returned.unsaved.filter(|_| told).map(|checkpoint| checkpoint.encode());
            if checkpoint.is_some() {
                let progress = over.held.progress.borrow().clone();
                self.unsaved.insert(over.uid, (over.held.fence, progress));
            }
            if let Some(why) = over.lost {
                self.report_loss(&over.held, if returned.claim.is_some() { why } else { "not_ours" });
            }
            let after = over.after;
            releases.extend(returned.claim.map(|claim| Release {
                claim,
                checkpoint,
                after,
            }));
        }
        releases
    }

    /// Takes in the end of a task; answers what becomes of its pod.
    fn ended(&mut self, end: End) -> Option<EndedTask> {
        let (id, ended) = match end {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        let uid = self.names.remove(&id)?;
        let mut held = self.held.remove(&uid)?;
        let pod = held.pod.borrow().clone();
        let why = match &ended {
            Ok(ended) => as_str(*ended),
            Err(error) if error.is_panic() => "panicked",
            Err(_) => "aborted",
        };
        tracing::info!(namespace = %pod.namespace, pod = %pod.name, fence = %held.fence, why, "no longer collected here");
        let after = match &ended {
            // The row of one that is gone stays for a while too, for those who have not heard of it.
            Ok(TaskEnd::Finished | TaskEnd::Gone) => AfterRelease::Finished,
            // Whoever asked may have died while the task wrote what it had read.
            Ok(TaskEnd::Stopped) => match std::mem::replace(&mut held.after, AfterRelease::Free) {
                AfterRelease::Handed(heir) if !self.members.0.contains(&heir) => AfterRelease::Free,
                next => next,
            },
            Ok(TaskEnd::Lost | TaskEnd::Fenced) => AfterRelease::Free,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(namespace = %pod.namespace, pod = %pod.name, "the pod's task panicked; trying again later");
                    self.resting.insert(uid.clone(), self.clock.now() + REST);
                }
                AfterRelease::Free
            }
        };
        // A sink also refuses what it could not finish before the deadline.
        let in_time = held.grant.deadline.allows(self.clock.now(), self.deps.lease.margin);
        let lost = match ended {
            Ok(TaskEnd::Fenced) if in_time => {
                self.resting.insert(uid.clone(), self.clock.now() + REST_REFUSED);
                Some("fenced")
            }
            Ok(TaskEnd::Fenced | TaskEnd::Lost) => Some("deadline"),
            _ => None,
        };
        // Whatever of the task's is still queued somewhere must not be written under another's claim.
        held.grant.revoke();
        Some(EndedTask { uid, held, after, lost })
    }

    /// A claim has ended against this replica's will.
    fn report_loss(&self, held: &HeldPod, reason: &'static str) {
        self.metrics.claims_lost.get_or_create(&Reason { reason }).inc();
        let pod = held.pod.borrow();
        let what = match reason {
            "deadline" => {
                "the claim was not renewed in time, so the pod was stopped before others may take it; see why the lock store did not answer"
            }
            "fenced" => {
                "the sink refuses to store under this claim, so the pod is claimed and opened again in a few seconds; see the sink's message"
            }
            _ => "the claim has expired, was freed by hand, or has another holder; the pod was stopped",
        };
        tracing::warn!(namespace = %pod.namespace, pod = %pod.name, fence = %held.fence, reason, "{what}");
    }

    /// Answers whether the store has been told.
    async fn release(&mut self, releases: &[Release]) -> bool {
        if releases.is_empty() {
            return true;
        }
        let answer = self.call("release", self.deps.store.release(releases)).await;
        let told = self.record_outcome(answer).is_some();
        if told {
            for uid in releases.iter().filter_map(|release| release.claim.key.pod()) {
                self.unsaved.remove(uid);
            }
        }
        told
    }

    /// Releases these claims and those of all tasks as they end. What failed is tried again, because whoever takes over
    /// reads again what the store was not told; a release changes a row only while it is held under this very claim.
    async fn give_back(&mut self, mut releases: Vec<Release>, deadline: Duration) {
        let now = self.clock.now();
        // Claims that had ended before are not worth it: whoever wants the pods has them by now.
        let worth = self.held.values().any(|held| held.grant.deadline.get() > now);
        loop {
            if self.release(&releases).await {
                releases.clear();
                if self.tasks.is_empty() {
                    return;
                }
            }
            let now = self.clock.now();
            let again = if releases.is_empty() { deadline } else { now + AGAIN };
            if now >= deadline || !worth && self.tasks.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(end) = self.tasks.join_next_with_id() => releases.extend(self.take_back(end).await),
                () = self.clock.sleep_until(again.min(deadline)) => {}
            }
        }
    }

    /// Stops: first this replica ceases to count as alive, so that its peers take over what it
    /// releases; then each pod is released as soon as its task has written what it had read.
    pub(super) async fn drain(mut self) {
        let deadline = self.clock.now() + self.deps.grace;
        tracing::info!(pods = self.held.len(), "stopping");
        // They write what they have read while the store is told.
        for held in self.held.values() {
            held.stop.cancel();
        }
        let own = self.deps.renewer.remove(&LockKey::Replica(self.deps.me.clone())).await;
        let release = own.claim.map(|claim| Release {
            claim,
            checkpoint: None,
            after: AfterRelease::Deleted,
        });
        self.give_back(release.into_iter().collect(), deadline).await;
        if !self.tasks.is_empty() {
            tracing::error!(
                pods = self.tasks.len(),
                "not all pods could be stopped within --grace; their latest lines may be delivered twice"
            );
            self.tasks.abort_all();
            while let Some(end) = self.tasks.join_next_with_id().await {
                self.settle(end).await;
            }
        }
        tracing::info!("stopped");
        self.deps.beat.retire();
    }
}

/// A pod whose task has ended.
#[derive(Debug)]
struct EndedTask {
    uid: PodUid,
    held: HeldPod,
    after: AfterRelease,
    /// Why the claim ended against this replica's will, when it did.
    lost: Option<&'static str>,
}

/// How far a pod is stored, and whether the store knows.
#[derive(Debug)]
pub(super) struct StoredProgress {
    checkpoint: Checkpoint,
    stored: bool,
}

impl StoredProgress {
    /// Whether nothing of the pod has been stored yet, as far as is known.
    pub(super) fn is_empty(&self) -> bool {
        self.checkpoint.containers.is_empty()
    }
}

fn as_str(ended: TaskEnd) -> &'static str {
    match ended {
        TaskEnd::Finished => "finished",
        TaskEnd::Gone => "gone",
        TaskEnd::Stopped => "stopped",
        TaskEnd::Lost => "lost",
        TaskEnd::Fenced => "fenced",
    }
}
