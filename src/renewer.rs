//! Renews claims, and stores the checkpoints with the renewals.
//!
//! It runs on a thread and a store connection of its own, so that parsing, a slow sink or a burst of claiming cannot
//! make a renewal late. It never claims or releases anything: claims are given to it and taken back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::defect::{self, Defect};
use crate::domain::claim::Lease;
use crate::domain::{BackendError, Checkpoint, Claim, LockKey, Renewal, RenewalOutcome};
use crate::grant::Grant;
use crate::locks::{self, LockStore, STATEMENT_DEADLINE};
use crate::metrics::Metrics;
use crate::status::health::Heartbeat;

/// Time from sending a renewal that failed to sending it again. A renewal that was not answered has taken longer,
/// [`STATEMENT_DEADLINE`], and is sent again at once; `config/checks.rs` counts on that.
const RETRY: Duration = Duration::from_secs(1);

/// The handle by which claims are given to the renewer and taken back.
#[derive(Clone, Debug)]
pub struct Renewer(mpsc::UnboundedSender<RenewerCommand>);

#[derive(Debug)]
enum RenewerCommand {
    Add(Box<RenewedClaim>),
    Remove(Vec<LockKey>, oneshot::Sender<Vec<Removed>>),
}

/// A claim that is being renewed.
#[derive(Debug)]
struct RenewedClaim {
    claim: Claim,
    grant: Grant,
    progress: Option<watch::Receiver<Checkpoint>>,
    /// Whether the store has said that the claim is lost.
    lost: bool,
}

/// A claim that has been taken back.
#[derive(Debug, Default)]
pub struct Removed {
    /// The claim; `None` if the store has said that it is lost, or the claim was never given.
    pub claim: Option<Claim>,
    /// The latest checkpoint, if the store does not have it.
    pub unsaved: Option<Checkpoint>,
}

impl Renewer {
    /// Renews a claim from now on, each time with the checkpoint that `progress` shows.
    pub fn add(&self, claim: Claim, grant: Grant, progress: Option<watch::Receiver<Checkpoint>>) {
        // The loop outlives all handles. If it has ended, the process is ending.
        self.0
            .send(RenewerCommand::Add(Box::new(RenewedClaim {
                claim,
                grant,
                progress,
                lost: false,
            })))
            .ok();
    }

    /// Takes a claim back. When this returns, no renewal of the claim is under way, and none will be sent.
    pub async fn remove(&self, key: &LockKey) -> Removed {
        let mut returned = self.remove_all(vec![key.clone()]).await;
        returned.pop().unwrap_or_default()
    }

    /// Takes claims back and returns them in the same order. All in one call, because a call may have to wait for a
    /// renewal that is under way.
    pub async fn remove_all(&self, keys: Vec<LockKey>) -> Vec<Removed> {
        let (reply, answer) = oneshot::channel();
        self.0.send(RenewerCommand::Remove(keys, reply)).ok();
        answer.await.unwrap_or_default()
    }
}

/// The loop that renews; see [`RenewalLoop::run`].
#[derive(Debug)]
pub struct RenewalLoop {
    commands: mpsc::UnboundedReceiver<RenewerCommand>,
    lease: Lease,
    clock: Clock,
    metrics: Metrics,
    heartbeat: Heartbeat,
    claims: BTreeMap<LockKey, RenewedClaim>,
    /// Since when renewals fail. A failure is logged when it begins, not at each renewal.
    failing_since: Option<Duration>,
}

/// A handle, and the loop that does the work once it is run.
#[must_use]
pub fn renewer(lease: Lease, clock: Clock, metrics: Metrics, heartbeat: Heartbeat) -> (Renewer, RenewalLoop) {
    let (sender, commands) = mpsc::unbounded_channel();
    (
        Renewer(sender),
        RenewalLoop {
            commands,
            lease,
            clock,
            metrics,
            heartbeat,
            claims: BTreeMap::new(),
            failing_since: None,
        },
    )
}

impl RenewalLoop {
    /// Renews until all [`Renewer`] handles have been dropped.
    pub async fn run(mut self, store: Arc<dyn LockStore>) {
        let mut due = self.clock.now() + self.lease.renew;
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(RenewerCommand::Add(renewed)) => {
                        self.claims.insert(renewed.claim.key.clone(), *renewed);
                    }
                    Some(RenewerCommand::Remove(keys, reply)) => {
                        reply.send(keys.iter().map(|key| self.remove(key)).collect()).ok();
                    }
                    None => return self.heartbeat.retire(),
                },
                () = self.clock.sleep_until(due) => {
                    let sent = self.clock.now();
                    let wait = match self.renew(&*store).await {
                        Ok(()) => self.lease.renew,
                        Err(error) => {
                            self.record_failure(&error);
                            RETRY.min(self.lease.renew)
                        }
                    };
                    due = sent + wait;
                }
            }
        }
    }

    fn remove(&mut self, key: &LockKey) -> Removed {
        let Some(mut renewed) = self.claims.remove(key) else {
            return Removed::default();
        };
        let unsaved = renewed
            .progress
            .as_mut()
            .filter(|p| p.has_changed().unwrap_or(true))
            .map(|p| p.borrow().clone());
        Removed {
            claim: (!renewed.lost).then_some(renewed.claim),
            unsaved,
        }
    }

    async fn renew(&mut self, store: &dyn LockStore) -> Result<(), BackendError> {
        let renewals: Vec<Renewal> = self
            .claims
            .values_mut()
            .filter(|renewed| !renewed.lost)
            .map(RenewedClaim::renewal)
            .collect();
        // In batches, so that each has a deadline of its own: the first claims must not wait for the last ones.
        let mut batches = renewals.chunks(locks::BATCH_ROWS);
        for batch in batches.by_ref() {
            if let Err(error) = self.renew_batch(store, batch).await {
                self.mark_unsaved(batch);
                batches.for_each(|rest| self.mark_unsaved(rest));
                return Err(error);
            }
        }
        self.heartbeat.record();
        self.record_success();
        Ok(())
    }

    async fn renew_batch(&mut self, store: &dyn LockStore, batch: &[Renewal]) -> Result<(), BackendError> {
        let sent = self.clock.now();
        // The store does two jobs for a batch in which some renewals carry checkpoints. Both together have the time of
        // one, because the next try must come while the claims are good. No job waits longer than a second for a row
        // that another transaction locks.
        let answer = locks::call(&self.metrics, "renew", STATEMENT_DEADLINE, store.renew(batch)).await;
        // A slow store makes a renewal of many claims long, but the loop is not stuck.
        self.heartbeat.record();
        self.metrics
            .renewal_seconds
            .observe(self.clock.since(sent).as_secs_f64());
        let late = defect::on(Defect::DeadlineAfterReply);
        let deadline = self.lease.deadline(if late { self.clock.now() } else { sent });
        for (renewal, outcome) in batch.iter().zip(answer?) {
            self.apply_outcome(renewal, outcome, deadline);
        }
        Ok(())
    }

    /// Sends the checkpoints of a failed renewal again with the next one.
    fn mark_unsaved(&mut self, renewals: &[Renewal]) {
        for renewal in renewals.iter().filter(|r| r.checkpoint.is_some()) {
            if let Some(progress) = self
                .claims
                .get_mut(&renewal.key)
                .and_then(|renewed| renewed.progress.as_mut())
            {
                progress.mark_changed();
            }
        }
    }

    fn apply_outcome(&mut self, renewal: &Renewal, outcome: RenewalOutcome, deadline: Duration) {
        let Some(renewed) = self.claims.get_mut(&renewal.key) else {
            return;
        };
        match outcome {
            RenewalOutcome::Held if renewed.grant.deadline.renew(self.clock.now(), deadline) => {}
            // The deadline had passed: the task has stopped, and what it has queued must not be written any more.
            RenewalOutcome::Held => renewed.grant.revoke(),
            RenewalOutcome::Busy => {
                tracing::warn!(key = %renewal.key, "the claim was not renewed, because an open transaction of another program locks its row; it is renewed again in a few seconds");
                if let Some(progress) = renewed.progress.as_mut().filter(|_| renewal.checkpoint.is_some()) {
                    progress.mark_changed();
                }
            }
            RenewalOutcome::Lost => {
                renewed.lost = true;
                renewed.grant.revoke();
                tracing::debug!(key = %renewal.key, fence = %renewal.fence, "the lock store says that the claim is lost");
            }
        }
    }

    fn record_success(&mut self) {
        if let Some(since) = self.failing_since.take() {
            let seconds = self.clock.now().saturating_sub(since).as_secs();
            tracing::info!(seconds, "claims are renewed again");
        }
        self.record_deadline();
    }

    fn record_failure(&mut self, error: &BackendError) {
        if self.failing_since.is_none() {
            self.failing_since = Some(self.clock.now());
            tracing::error!(%error, claims = self.claims.len(), "claims cannot be renewed; if this lasts, collecting stops when the claims' deadlines pass; see the error");
        }
        self.record_deadline();
    }

    fn record_deadline(&self) {
        let now = self.clock.now();
        let held = self.claims.values().filter(|renewed| !renewed.lost);
        let left = held
            .map(|renewed| renewed.grant.deadline.get().saturating_sub(now))
            .min();
        self.metrics
            .deadline_seconds
            .set(left.unwrap_or_default().as_secs_f64());
    }
}

impl RenewedClaim {
    fn renewal(&mut self) -> Renewal {
        let moved = self.progress.as_mut().filter(|p| p.has_changed().unwrap_or(false));
        Renewal {
            key: self.claim.key.clone(),
            fence: self.claim.fence,
            checkpoint: moved.map(|p| p.borrow_and_update().encode()),
        }
    }
}
