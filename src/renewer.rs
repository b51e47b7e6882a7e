//! Renews claims, with the checkpoints beside them, so that they stay good while pods are followed.
//!
//! It runs on a thread and a store connection of its own, so that neither parsing nor a slow sink
//! nor a burst of claiming can make a renewal late. It never claims or releases anything: claims
//! are handed to it and handed back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::defect::{self, Defect};
use crate::domain::claim::Lease;
use crate::domain::{Checkpoint, Claim, LockKey, Renewal, Verdict};
use crate::grant::Grant;
use crate::locks::{self, LockError, LockStore, STATEMENT_DEADLINE};
use crate::metrics::Metrics;
use crate::status::health::Heart;

/// How soon after it was sent a renewal that failed is tried again. One that was not answered has
/// taken longer, [`STATEMENT_DEADLINE`], and is tried again at once; `config/checks.rs` reckons with that.
const RETRY: Duration = Duration::from_secs(1);

/// Gives claims to the renewer and takes them back.
#[derive(Clone, Debug)]
pub struct Renewer(mpsc::UnboundedSender<Command>);

#[derive(Debug)]
enum Command {
    Add(Box<RenewedClaim>),
    Remove(Vec<LockKey>, oneshot::Sender<Vec<Removed>>),
}

/// A claim that is being kept.
#[derive(Debug)]
struct RenewedClaim {
    claim: Claim,
    grant: Grant,
    progress: Option<watch::Receiver<Checkpoint>>,
    lost: bool,
}

/// A claim that is handed back.
#[derive(Debug, Default)]
pub struct Removed {
    /// The claim; `None` when the store has said that it is lost.
    pub claim: Option<Claim>,
    /// The latest checkpoint, when the store has not got it.
    pub unsaved: Option<Checkpoint>,
}

impl Renewer {
    /// Has a claim renewed from now on, with the checkpoint that `progress` shows each time.
    pub fn add(&self, claim: Claim, grant: Grant, progress: Option<watch::Receiver<Checkpoint>>) {
        // The driver outlives every handle; if it is gone the process is ending.
        self.0
            .send(Command::Add(Box::new(RenewedClaim {
                claim,
                grant,
                progress,
                lost: false,
            })))
            .ok();
    }

    /// Takes a claim back. No renewal of it is under way or will be sent once this answers.
    pub async fn remove(&self, key: &LockKey) -> Removed {
        let mut returned = self.remove_all(vec![key.clone()]).await;
        returned.pop().unwrap_or_default()
    }

    /// Takes claims back, in order. Together, because each time may mean to wait for a renewal.
    pub async fn remove_all(&self, keys: Vec<LockKey>) -> Vec<Removed> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Command::Remove(keys, reply)).ok();
        answer.await.unwrap_or_default()
    }
}

/// Does the renewing; see [`RenewalLoop::run`].
#[derive(Debug)]
pub struct RenewalLoop {
    commands: mpsc::UnboundedReceiver<Command>,
    lease: Lease,
    clock: Clock,
    metrics: Metrics,
    beat: Heart,
    kept: BTreeMap<LockKey, RenewedClaim>,
    failing: bool,
}

/// A renewer, and the driver that does its work once it is run.
#[must_use]
pub fn renewer(lease: Lease, clock: Clock, metrics: Metrics, beat: Heart) -> (Renewer, RenewalLoop) {
    let (sender, commands) = mpsc::unbounded_channel();
    (
        Renewer(sender),
        RenewalLoop {
            commands,
            lease,
            clock,
            metrics,
            beat,
            kept: BTreeMap::new(),
            failing: false,
        },
    )
}

impl RenewalLoop {
    /// Renews until every [`Renewer`] handle has been dropped.
    pub async fn run(mut self, store: Arc<dyn LockStore>) {
        let mut due = self.clock.now() + self.lease.renew;
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Add(kept)) => {
                        self.kept.insert(kept.claim.key.clone(), *kept);
                    }
                    Some(Command::Remove(keys, reply)) => {
                        reply.send(keys.iter().map(|key| self.give_back(key)).collect()).ok();
                    }
                    None => return self.beat.retire(),
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

    fn give_back(&mut self, key: &LockKey) -> Removed {
        let Some(mut kept) = self.kept.remove(key) else {
            return Removed::default();
        };
        let unsaved = kept
            .progress
            .as_mut()
            .filter(|p| p.has_changed().unwrap_or(true))
            .map(|p| p.borrow().clone());
        Removed {
            claim: (!kept.lost).then_some(kept.claim),
            unsaved,
        }
    }

    async fn renew(&mut self, store: &dyn LockStore) -> Result<(), LockError> {
        let renewals: Vec<Renewal> = self
            .kept
            .values_mut()
            .filter(|kept| !kept.lost)
            .map(RenewedClaim::renewal)
            .collect();
        // Batch by batch, so that each has a deadline of its own: what is renewed early in a long row
        // must not wait for what comes last.
        let mut batches = renewals.chunks(locks::ROWS);
        for batch in batches.by_ref() {
            if let Err(error) = self.renew_batch(store, batch).await {
                self.unsave(batch);
                batches.for_each(|rest| self.unsave(rest));
                return Err(error);
            }
        }
        self.beat.beat();
        self.record_success();
        Ok(())
    }

    async fn renew_batch(&mut self, store: &dyn LockStore, batch: &[Renewal]) -> Result<(), LockError> {
        let sent = self.clock.now();
        // A batch of which some carry checkpoints is two jobs of the store; both together have the time of
        // one, because the next try must come while the claims are good. No job waits for a row that
        // somebody locks for more than a second.
        let answer = locks::call(&self.metrics, "renew", STATEMENT_DEADLINE, store.renew(batch)).await;
        // A slow store makes a round long; the loop is not stuck for that.
        self.beat.beat();
        self.metrics
            .renewal_seconds
            .observe(self.clock.since(sent).as_secs_f64());
        let late = defect::on(Defect::DeadlineAfterReply);
        let deadline = self.lease.deadline(if late { self.clock.now() } else { sent });
        for (renewal, verdict) in batch.iter().zip(answer?) {
            self.apply_verdict(renewal, verdict, deadline);
        }
        Ok(())
    }

    /// The checkpoints of a failed renewal are still to be stored.
    fn unsave(&mut self, renewals: &[Renewal]) {
        for renewal in renewals.iter().filter(|r| r.checkpoint.is_some()) {
            if let Some(progress) = self.kept.get_mut(&renewal.key).and_then(|kept| kept.progress.as_mut()) {
                progress.mark_changed();
            }
        }
    }

    fn apply_verdict(&mut self, renewal: &Renewal, verdict: Verdict, deadline: Duration) {
        let Some(kept) = self.kept.get_mut(&renewal.key) else {
            return;
        };
        match verdict {
            Verdict::Held if kept.grant.deadline.renew(self.clock.now(), deadline) => {}
            // Too late: the task has stopped, and what it left behind must not come to life again.
            Verdict::Held => kept.grant.revoke(),
            Verdict::Busy => {
                tracing::warn!(key = %renewal.key, "somebody's open transaction locks this row, so its claim was not renewed");
                if let Some(progress) = kept.progress.as_mut().filter(|_| renewal.checkpoint.is_some()) {
                    progress.mark_changed();
                }
            }
            Verdict::Lost => {
                kept.lost = true;
                kept.grant.revoke();
                tracing::debug!(key = %renewal.key, fence = %renewal.fence, "the claim is lost");
            }
        }
    }

    fn record_success(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("claims are renewed again");
        }
        self.record_deadline();
    }

    fn record_failure(&mut self, error: &LockError) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, claims = self.kept.len(), "claims cannot be renewed; pods stop at their deadlines");
        }
        self.record_deadline();
    }

    fn record_deadline(&self) {
        let now = self.clock.now();
        let held = self.kept.values().filter(|kept| !kept.lost);
        let left = held.map(|kept| kept.grant.deadline.get().saturating_sub(now)).min();
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
