//! One reconciliation: read the lock table, plan, and act on the plan in a fixed order.
//!
//! What to do is decided by `domain/plan.rs`; here the decisions become calls to the lock store and to pod tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::claim::Lease;
use crate::domain::holdoff::HoldOff;
use crate::domain::plan::{Plan, PlanInput, plan};
use crate::domain::{AcquireRequest, Fence, LockKey, LockTable, Pod, PodRef, PodSet, PodUid, ReplicaId};
use crate::follow::Context;
use crate::grant::Grant;
use crate::locks::{self, LockStore};
use crate::metrics::Reason;
use crate::renewer::Renewer;
use crate::status::Status;
use crate::status::health::Heartbeat;
use crate::status::ready::{Condition, PATIENCE};

use super::claims::Claims;
use super::gc::GarbageCollector;
use super::members::Members;
use super::pod_tasks::HandOver;
use super::status;
use super::store_client::StoreClient;

/// Ttls for which a pod may lack a live holder before a warning: one for the claim of a dead replica or a hold-off, and
/// one for the takeover grace, the waiting by rank and a slow lock store.
const UNCLAIMED_TTLS: u32 = 2;

/// The most names in one log line: there may be thousands of pods with one cause.
const MAX_NAMES: usize = 10;

/// What a collector needs from outside.
#[derive(Debug)]
pub(crate) struct Deps {
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
    /// Where the state for the status page is published.
    pub status: watch::Sender<Arc<Status>>,
    /// Shows that the collector's loop is not stuck.
    pub heartbeat: Heartbeat,
    /// Fulfilled once the lock store has answered.
    pub store_reached: Condition,
    /// Fulfilled once the pods of every namespace have been listed or refused.
    pub listed: Condition,
}

/// What one reconciliation leaves to the next.
#[derive(Debug)]
pub(super) struct Reconciler {
    /// The claims of this replica and the tasks under them.
    pub(super) claims: Claims,
    /// The live replicas.
    pub(super) members: Members,
    /// The grant of this replica's own row, by which its peers see that it is alive.
    own: Option<Grant>,
    holdoff: HoldOff,
    gc: GarbageCollector,
    pods: watch::Receiver<Arc<PodSet>>,
    max_pods: usize,
    status: watch::Sender<Arc<Status>>,
    store_reached: Condition,
    listed: Condition,
    /// Since when the API server has not listed the pods of a namespace.
    unlisted_since: Option<Instant>,
}

impl Reconciler {
    /// Holds nothing yet.
    pub(super) fn new(deps: Deps) -> Self {
        let clock = deps.context.clock;
        let store = StoreClient::new(deps.store, deps.context.metrics.clone(), deps.heartbeat);
        Self {
            claims: Claims::new(store, deps.renewer, deps.lease, deps.context),
            members: Members::new(deps.me, clock.now()),
            own: None,
            holdoff: HoldOff::new(deps.lease.ttl),
            gc: GarbageCollector::default(),
            pods: deps.pods,
            max_pods: deps.max_pods,
            status: deps.status,
            store_reached: deps.store_reached,
            listed: deps.listed,
            unlisted_since: None,
        }
    }

    /// Shows pod tasks what has become of their pods, and remembers pods that are missing from the set.
    pub(super) fn on_pods_changed(&mut self, set: &Arc<PodSet>) {
        let claims = &mut self.claims;
        let no_room = claims.memory.on_set(set);
        if no_room > 0 {
            let reason = Reason { reason: "deleted" };
            claims.metrics().gaps.get_or_create(&reason).inc_by(no_room as u64);
            tracing::error!(
                pods = no_room,
                "pods were deleted before a replica claimed them, and there are too many to store a gap record for each; they are counted in podlog_gaps_total only; check the lock store and the number of replicas"
            );
        }
        claims.tasks.on_pods_changed(set);
    }

    /// Reads the table, plans and acts, unless `stop` is cancelled meanwhile, and shows what keeps the replica from that.
    /// Returns after how long there may be more to do, if that is known.
    pub(super) async fn reconcile(&mut self, stop: &CancellationToken) -> Option<Duration> {
        let wake = self.act(stop).await;
        self.show_outages();
        wake
    }

    /// Shows in `/readyz` that the lock store or the API server has failed for long.
    fn show_outages(&mut self) {
        match self.claims.store.outage() {
            Some((lasted, why)) if lasted >= PATIENCE => self.store_reached.lose(why.to_owned(), lasted),
            Some(_) => {}
            None => self.store_reached.set(),
        }
        let set = self.pods.borrow();
        // A right that is missing is a matter of its namespace, not of the replica.
        let outage = set.listings.failures().find(|(_, failure)| !failure.forbidden);
        let Some((_, failure)) = outage else {
            self.unlisted_since = None;
            if set.listings.is_settled() {
                self.listed.set();
            }
            return;
        };
        let lasted = self.unlisted_since.get_or_insert_with(Instant::now).elapsed();
        if lasted >= PATIENCE {
            self.listed.lose(failure.message.to_string(), lasted);
        }
    }

    async fn act(&mut self, stop: &CancellationToken) -> Option<Duration> {
        // A claim may be given up while it is being made only if the store does not answer anyway: otherwise the row
        // would be taken and no replica would know.
        let may_give_up = self.claims.store.is_failing();
        tokio::select! {
            biased;
            () = stop.cancelled(), if may_give_up => return None,
            () = self.announce() => {}
        }
        let clock = self.claims.clock();
        let asked = clock.now();
        let table = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            table = self.claims.store.table() => table?,
        };
        let now = clock.now();
        if now > asked + locks::CALL_DEADLINE {
            // A call never takes longer, so the process slept, and the database's clock may have jumped since.
            return Some(Duration::ZERO);
        }
        self.check_database_clock(&table, asked, now);
        let set = self.pods.borrow().clone();
        let plan = self.plan(&set, &table, now);
        self.warn_of_unclaimed(&set, &table, now);
        let timed_out = self.hand_over(&plan, now);
        self.decline_handover(&plan, timed_out).await;
        if !self.holdoff.is_active(now) && !stop.is_cancelled() {
            self.acquire(&plan).await;
            self.request_handover(&plan).await;
            let set = self.pods.borrow().clone();
            self.gc.collect(&mut self.claims, &self.members, &set, &table).await;
        }
        self.claims.metrics().pods_held.set(self.claims.tasks.len() as i64);
        let set = self.pods.borrow().clone();
        let unread = &self.claims.context.unread;
        status::publish(&self.status, &set, &table, &self.claims.tasks, &self.members, unread);
        plan.wake
    }

    /// Acquires this replica's own row unless it is held, so that its peers see that it is alive.
    async fn announce(&mut self) {
        if self.own.as_ref().is_some_and(|own| !own.revoked.is_cancelled()) {
            return;
        }
        let key = LockKey::Replica(self.members.me().clone());
        self.claims.renewer.remove(&key).await;
        let requests = [AcquireRequest {
            key,
            pod_ref: PodRef::default(),
        }];
        let sent = self.claims.clock().now();
        let claims = self.claims.store.acquire(&requests).await;
        let Some(claim) = claims.and_then(|mut claims| claims.pop()) else {
            return;
        };
        let grant = self.claims.grant(claim.fence, sent);
        self.own = Some(grant.clone());
        self.claims.renewer.add(claim, grant, None);
    }

    /// Begins a hold-off when another database server answers, or its clock has jumped.
    fn check_database_clock(&mut self, table: &LockTable, asked: Duration, now: Duration) {
        if let Some(why) = self.holdoff.observe(table, asked, now) {
            self.claims.metrics().holdoffs.inc();
            tracing::warn!(
                why,
                "this replica acquires no pod for one ttl, because the lock table may show live claims as expired; pods that it holds are still collected"
            );
        }
    }

    fn plan(&mut self, set: &PodSet, table: &LockTable, now: Duration) -> Plan {
        let changed = self.members.on_table(table, now);
        let replicas = self.members.ids().len();
        self.claims.metrics().replicas.set(replicas as i64);
        if changed {
            tracing::info!(replicas, "the live replicas have changed");
        }
        let claims = &mut self.claims;
        let held = claims.tasks.fences();
        claims.memory.on_table(table, now);
        let is_held = |uid: &PodUid| held.contains_key(uid);
        let pods = claims.memory.candidates(set, table, is_held, now);
        plan(&PlanInput {
            me: self.members.me(),
            table,
            pods: &pods,
            held: &held,
            takeover_grace: claims.lease.takeover_grace,
            settled: self.members.is_settled(now, claims.lease.ttl),
            max_pods: self.max_pods,
        })
    }

    /// Warns of pods that no live replica has held for long.
    fn warn_of_unclaimed(&mut self, set: &PodSet, table: &LockTable, now: Duration) {
        let limit = self.claims.lease.ttl * UNCLAIMED_TTLS;
        let (tasks, members) = (&self.claims.tasks, &self.members);
        let is_held = |uid: &PodUid| tasks.holds(uid);
        let is_alive = |id: &_| members.contains(id);
        let memory = &mut self.claims.memory;
        let pods = memory.newly_unclaimed(set, table, is_held, is_alive, now, limit);
        if pods.is_empty() {
            return;
        }
        let name = |pod: &Arc<Pod>| format!("{}/{}", pod.namespace, pod.name);
        let names: Vec<String> = pods.iter().take(MAX_NAMES).map(name).collect();
        tracing::warn!(
            count = pods.len(),
            pods = names.join(" "),
            "no live replica has held these pods for two ttls, so their logs are not collected; a dead replica's claim may last too long, a row may be locked by an open transaction, or all replicas may hold --max-pods; run podlog check and podlog locks list"
        );
    }

    /// Stops the tasks of pods that another replica has requested; they are handed over when they end. Returns those
    /// that could not be handed over in time, because the sink does not take what was read.
    fn hand_over(&mut self, plan: &Plan, now: Duration) -> Vec<(LockKey, Fence)> {
        let mut timed_out = Vec::new();
        for (uid, to) in &plan.hand_over {
            match self.claims.tasks.hand_over(uid, to, now) {
                HandOver::Begun => drop(self.claims.metrics().claims_handed_over.inc()),
                HandOver::TimedOut(fence) => timed_out.push((LockKey::Pod(uid.clone()), fence)),
                HandOver::Pending | HandOver::NotHeld => {}
            }
        }
        timed_out
    }

    /// Declines requests of replicas that are not alive any more, and those that could not be met in time.
    async fn decline_handover(&mut self, plan: &Plan, timed_out: Vec<(LockKey, Fence)>) {
        let tasks = &self.claims.tasks;
        let stays = |uid: &PodUid| tasks.get(uid).is_some_and(|task| !task.is_stopping());
        let declined = plan.decline_handover.iter().filter(|(uid, _)| stays(uid));
        let mut rows: Vec<_> = declined.map(keyed).collect();
        rows.extend(timed_out);
        if !rows.is_empty() {
            self.claims.store.decline_handover(&rows).await;
        }
    }

    /// Acquires the pods of the plan: one batch. A longer queue is taken batch by batch in further reconciliations, so that
    /// a replica alone with thousands of pods begins to collect the first ones at once.
    async fn acquire(&mut self, plan: &Plan) {
        let set = self.pods.borrow().clone();
        let pods = plan.acquire.iter().filter_map(|uid| set.pods.get(uid));
        let batch = pods.take(locks::BATCH_ROWS).cloned().collect();
        self.claims.acquire(batch).await;
    }

    /// Requests pods of other replicas.
    async fn request_handover(&mut self, plan: &Plan) {
        let rows: Vec<_> = plan.request_handover.iter().map(keyed).collect();
        if !rows.is_empty() {
            tracing::info!(
                pods = rows.len(),
                "asking other replicas for pods, to spread the pods evenly"
            );
            self.claims.store.request_handover(&rows).await;
        }
    }
}

fn keyed((uid, fence): &(PodUid, Fence)) -> (LockKey, Fence) {
    (LockKey::Pod(uid.clone()), *fence)
}
