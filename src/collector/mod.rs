//! The loop that owns all claims: reads the table, plans, claims, starts pod tasks, releases.
//!
//! One task per claimed pod runs in its `JoinSet`; a task gets leave to act, never the claim. The
//! loop reads no log and writes no record, and it renews nothing: that is the renewer's.

mod departed;
mod gc;
mod pod_tasks;
mod reconcile;
mod snapshot;
mod unclaimed;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::claim::Lease;
use crate::domain::holdoff::HoldOff;
use crate::domain::{AfterRelease, Checkpoint, Fence, Pod, PodSet, PodUid, ReplicaId};
use crate::follow::{Context, TaskEnd};
use crate::grant::Grant;
use crate::locks::{self, CALL_DEADLINE, LockError, LockStore};
use crate::metrics::{Metrics, Reason};
use crate::renewer::Renewer;
use crate::status::Status;
use crate::status::health::Heart;
use crate::status::ready::Condition;

use departed::Departed;
use gc::Lookup;
use unclaimed::Unclaimed;

/// What a collector is made of.
#[derive(Debug)]
pub struct Deps {
    /// This replica.
    pub me: ReplicaId,
    /// Where claims are stored.
    pub store: Arc<dyn LockStore>,
    /// Renews them.
    pub renewer: Renewer,
    /// What pod tasks share.
    pub context: Arc<Context>,
    /// The pods to collect.
    pub pods: watch::Receiver<Arc<PodSet>>,
    /// The times of claims.
    pub lease: Lease,
    /// The most pods this replica holds.
    pub max_pods: usize,
    /// How long stopping may take.
    pub grace: Duration,
    /// Where the snapshot for people goes.
    pub status: watch::Sender<Arc<Status>>,
    /// Tells that the loop turns.
    pub beat: Heart,
    /// Fulfilled once the lock store has answered.
    pub store_reached: Condition,
    /// Fulfilled once all pods have been listed.
    pub listed: Condition,
}

/// One pod whose claim is held.
#[derive(Debug)]
struct HeldPod {
    fence: Fence,
    pod: watch::Sender<Arc<Pod>>,
    progress: watch::Receiver<Checkpoint>,
    grant: Grant,
    stop: CancellationToken,
    /// What becomes of the row when the task has been stopped.
    after: AfterRelease,
    /// Since when the task has been asked to stop for another replica that waits for the pod.
    asked: Option<Duration>,
}

/// The loop and what it knows.
#[derive(Debug)]
pub struct Collector {
    deps: Deps,
    clock: Clock,
    metrics: Metrics,
    held: BTreeMap<PodUid, HeldPod>,
    tasks: JoinSet<TaskEnd>,
    names: BTreeMap<tokio::task::Id, PodUid>,
    /// Leave to count as alive: this replica's own row.
    own: Option<Grant>,
    /// Since when a pod has been known without a holder.
    unheld: BTreeMap<PodUid, Duration>,
    /// Until when a pod is left alone after its task failed.
    resting: BTreeMap<PodUid, Duration>,
    /// How far pods were stored whose claim ended before the store was told.
    unsaved: BTreeMap<PodUid, (Fence, Checkpoint)>,
    /// Until when a pod that is missing from the set need not be looked up again.
    lookup_after: BTreeMap<PodUid, Duration>,
    /// Since when pods that are collected to their end have been known to be gone.
    buried: BTreeMap<PodUid, Duration>,
    /// Pods that have left the set and may not have been read.
    departed: Departed,
    /// Pods being looked up. The loop never waits for the API server.
    lookups: JoinSet<Lookup>,
    members: (Vec<ReplicaId>, Duration),
    holdoff: HoldOff,
    unclaimed: Unclaimed,
    failing: bool,
}

/// How often the table is read when nothing calls for it. A replica that stops releases its
/// claims at once, so this bounds how long they stay unclaimed: half of the 2 s promised.
const TICK: Duration = Duration::from_secs(1);

/// How soon after a change of the pods, or after the last turn, the next turn may come.
const SOON: Duration = Duration::from_millis(50);

/// A turn may take this part of the time: with ten thousand pods it takes 50 ms, so once a second. A
/// turn that takes longer waits for the store, and waiting longer than a tick would not help the store.
const SHARE: u32 = 20;

/// How soon after a turn that took so long the next one may come.
fn rest(took: Duration) -> Duration {
    (took * SHARE).clamp(SOON, TICK)
}

impl Collector {
    /// A collector that holds nothing yet.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let (clock, metrics) = (deps.context.clock, deps.context.metrics.clone());
        let holdoff = HoldOff::new(deps.lease.ttl);
        let members = (Vec::new(), clock.now());
        Self {
            deps,
            clock,
            metrics,
            held: BTreeMap::new(),
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
            own: None,
            unheld: BTreeMap::new(),
            resting: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            lookup_after: BTreeMap::new(),
            buried: BTreeMap::new(),
            departed: Departed::default(),
            lookups: JoinSet::new(),
            members,
            holdoff,
            unclaimed: Unclaimed::default(),
            failing: false,
        }
    }

    /// Collects until `stop`, then gives everything back. Runs the detector that tells pod tasks whether the process was paused.
    pub async fn run(self, stop: CancellationToken) {
        let stalls = self.deps.context.stall_detector.clone();
        tokio::select! {
            biased;
            never = stalls.run() => match never {},
            () = self.collect(stop) => {}
        }
    }

    async fn collect(mut self, stop: CancellationToken) {
        let mut pods = self.deps.pods.clone();
        let mut due = self.clock.now();
        let mut earliest = due;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // First, so that neither ends nor changes without end can put it off. It rests after each turn.
                () = self.clock.sleep_until(due) => {
                    let began = self.clock.now();
                    let wake = self.reconcile(&stop).await;
                    let now = self.clock.now();
                    self.deps.beat.beat();
                    earliest = now + rest(self.clock.since(began));
                    let tick = TICK.mul_f64(0.8 + 0.4 * fastrand::f64());
                    due = earliest.max(now + wake.unwrap_or(tick).min(tick));
                }
                Some(end) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.settle(end).await;
                    due = due.min(earliest);
                }
                changed = pods.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let set = pods.borrow_and_update().clone();
                    self.on_pods_changed(&set);
                    due = due.min(earliest.max(self.clock.now() + SOON));
                }
            }
        }
        self.drain().await;
    }

    /// Tells pod tasks what has become of their pods.
    fn on_pods_changed(&mut self, set: &Arc<PodSet>) {
        if set.complete {
            self.deps.listed.fulfil();
            self.remember_departed(set);
        }
        for (uid, held) in &self.held {
            if let Some(pod) = set.pods.get(uid) {
                held.pod.send_if_modified(|known| {
                    let news = known != pod;
                    if news {
                        *known = pod.clone();
                    }
                    news
                });
            }
        }
    }

    fn remember_departed(&mut self, set: &Arc<PodSet>) {
        let left_out = self.departed.on_pods_changed(set);
        if left_out > 0 {
            let reason = "deleted";
            self.metrics
                .gaps
                .get_or_create(&Reason { reason })
                .inc_by(left_out as u64);
            tracing::error!(
                pods = left_out,
                "pods were deleted before they were claimed, and there are too many to report each; see why the lock store does not answer"
            );
        }
    }

    /// Makes one call to the store, under a deadline, and counts it.
    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, LockError>>,
    ) -> Result<T, LockError> {
        let answer = locks::call(&self.metrics, operation, CALL_DEADLINE, call).await;
        // A slow store makes a turn long; the loop is not stuck for that.
        self.deps.beat.beat();
        answer
    }

    /// Notes whether the store answers; a failure is logged when it begins, not at every turn.
    fn record_outcome<T>(&mut self, answer: Result<T, LockError>) -> Option<T> {
        match answer {
            Ok(value) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the lock store answers again");
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the lock store does not answer; nothing new is claimed");
                }
                None
            }
        }
    }
}
