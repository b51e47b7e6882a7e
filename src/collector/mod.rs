//! The collector: owns all claims of a replica and runs one task for each pod that it holds.
//!
//! One loop reconciles the lock table with the pods of the cluster, takes in the ends of tasks, and shows tasks what has
//! become of their pods. It reads no log, writes no record and renews no claim: pod tasks and the renewer do.
//!
//! `reconcile` calls `claims` and `gc`; `gc` owns `lookup_queue`; `claims` owns `pod_tasks`, `pod_memory` and `store_client`. None of them knows
//! the file that calls it.

mod claims;
mod gc;
mod lookup_queue;
mod members;
mod pod_memory;
mod pod_tasks;
mod reconcile;
mod shutdown;
mod status;
mod store_client;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::PodSet;
use crate::follow::stall_detector::StallDetector;

pub(crate) use reconcile::Deps;
use reconcile::Reconciler;

/// The time from one reconciliation to the next when nothing calls for one. A replica that stops releases its claims at
/// once, so this bounds how long they stay unclaimed: half of the 2 s that are promised.
const TICK: Duration = Duration::from_secs(1);

/// The shortest time from a change of the pods, or from the last reconciliation, to the next reconciliation.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// The pause after a reconciliation, in multiples of the time that it took, so that reconciling uses about 5 % of the time.
/// With ten thousand pods it takes 50 ms, so the pause is 1 s (50 ms * 20). One that takes longer waits for the store, and
/// a longer pause would not help the store.
const PAUSE_FACTOR: u32 = 20;

/// The shortest pause after a reconciliation that took so long.
fn pause_after(took: Duration) -> Duration {
    (took * PAUSE_FACTOR).clamp(MIN_PAUSE, TICK)
}

/// Owns the claims of this replica and runs its reconcile loop.
#[derive(Debug)]
pub(crate) struct Collector {
    reconciler: Reconciler,
    pods: watch::Receiver<Arc<PodSet>>,
    stall_detector: StallDetector,
    grace: Duration,
}

impl Collector {
    /// A collector that holds nothing yet.
    #[must_use]
    pub(crate) fn new(deps: Deps) -> Self {
        Self {
            pods: deps.pods.clone(),
            stall_detector: deps.context.stall_detector.clone(),
            grace: deps.grace,
            reconciler: Reconciler::new(deps),
        }
    }

    /// Collects until `stop` is cancelled, then releases everything. Meanwhile it runs the stall detector, which pod
    /// tasks ask whether the process was paused.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let stall_detector = self.stall_detector.clone();
        tokio::select! {
            biased;
            never = stall_detector.run() => match never {},
            () = self.collect(stop) => {}
        }
    }

    async fn collect(mut self, stop: CancellationToken) {
        let clock = self.reconciler.claims.clock();
        // The next reconciliation is due at `due`, which a change of the pods can move forward to `earliest`.
        let mut due = clock.now();
        let mut earliest = due;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before the other branches, so that an endless sequence of ends or changes cannot put it off.
                () = clock.sleep_until(due) => {
                    let began = clock.now();
                    let wake = self.reconciler.reconcile(&stop).await;
                    let now = clock.now();
                    self.reconciler.claims.store.heartbeat.record();
                    earliest = now + pause_after(clock.since(began));
                    let tick = TICK.mul_f64(0.8 + 0.4 * fastrand::f64());
                    due = earliest.max(now + wake.unwrap_or(tick).min(tick));
                }
                Some(ended) = self.reconciler.claims.tasks.next_ended() => {
                    let Reconciler { claims, members, .. } = &mut self.reconciler;
                    claims.on_task_ended(ended, members).await;
                    due = due.min(earliest);
                }
                changed = self.pods.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let set = self.pods.borrow_and_update().clone();
                    self.reconciler.on_pods_changed(&set);
                    due = due.min(earliest.max(clock.now() + MIN_PAUSE));
                }
            }
        }
        let Reconciler { claims, members, .. } = self.reconciler;
        shutdown::shut_down(claims, &members, self.grace).await;
    }
}
