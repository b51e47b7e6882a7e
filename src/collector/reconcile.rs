//! One turn of the collector: look at the table, plan, act.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::plan::{Plan, View, plan};
use crate::domain::{About, AfterRelease, Claim, Fence, LockKey, LockTable, Pod, PodUid, Want};
use crate::grant::Grant;
use crate::locks;
use crate::metrics::Reason;

use super::Collector;

/// How long whoever asked for a pod waits for it at most.
const HAND_OVER: Duration = Duration::from_secs(30);

impl Collector {
    /// Looks, plans and acts, unless told to stop meanwhile. Answers when there may be something to do
    /// next, if before the next tick.
    pub(super) async fn reconcile(&mut self, stop: &CancellationToken) -> Option<Duration> {
        // A claim that is given up while the store works would be taken with nobody knowing of it.
        let unanswered = self.failing;
        tokio::select! {
            biased;
            () = stop.cancelled(), if unanswered => return None,
            () = self.announce() => {}
        }
        let asked = self.clock.now();
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            answer = self.call("table", self.deps.store.table()) => answer,
        };
        let table = self.record_outcome(answer)?;
        self.deps.store_reached.fulfil();
        let now = self.clock.now();
        if now > asked + locks::CALL_DEADLINE {
            // Nobody waits for so long: the process slept, and the store's clock may have jumped since.
            return Some(Duration::ZERO);
        }
        if let Some(why) = self.holdoff.observe(&table, asked, now) {
            self.metrics.holdoffs.inc();
            tracing::warn!(
                why,
                "claiming is held off for one ttl, because the database cannot be believed about expiry"
            );
        }
        let plan = self.plan(&table, now);
        self.warn_of_unclaimed(&table, now);
        let overdue = self.hand(&plan, now);
        self.refuse(&plan, overdue).await;
        if !self.holdoff.is_on(now) && !stop.is_cancelled() {
            self.claim(&plan).await;
            self.request(&plan).await;
            self.collect_garbage(&table).await;
        }
        self.metrics.pods_held.set(self.held.len() as i64);
        self.publish(&table);
        plan.wake
    }

    /// Sees to it that this replica's own row is held, so that its peers count on it.
    async fn announce(&mut self) {
        if self.own.as_ref().is_some_and(|own| !own.revoked.is_cancelled()) {
            return;
        }
        let key = LockKey::Replica(self.deps.me.clone());
        self.deps.renewer.remove(&key).await;
        let wants = [Want {
            key,
            about: About::default(),
        }];
        let sent = self.clock.now();
        let answer = self.call("acquire", self.deps.store.acquire(&wants)).await;
        let Some(claim) = self.record_outcome(answer).and_then(|mut claims| claims.pop()) else {
            return;
        };
        let grant = self.grant(claim.fence, sent);
        self.own = Some(grant.clone());
        self.deps.renewer.add(claim, grant, None);
    }

    /// Leave to act under a claim that was taken by a statement sent at `sent`.
    pub(super) fn grant(&self, fence: Fence, sent: Duration) -> Grant {
        let deadline = crate::domain::Deadline::new(self.deps.lease.deadline(sent));
        Grant::new(fence, deadline, self.clock)
    }

    fn plan(&mut self, table: &LockTable, now: Duration) -> Plan {
        let mut members: Vec<_> = table.replicas().cloned().collect();
        if !members.contains(&self.deps.me) {
            members.push(self.deps.me.clone());
        }
        self.metrics.replicas.set(members.len() as i64);
        if members != self.members.0 {
            tracing::info!(replicas = members.len(), "the set of live replicas has changed");
            self.members = (members, now);
        }
        let pods = self.ages(table, now);
        let held: BTreeMap<PodUid, Fence> = self.held.iter().map(|(uid, held)| (uid.clone(), held.fence)).collect();
        plan(&View {
            me: &self.deps.me,
            table,
            pods: &pods,
            held: &held,
            takeover_grace: self.deps.lease.takeover_grace,
            // A replica that died keeps its pods for one ttl; moving pods before would move some twice.
            settled: now >= self.members.1 + self.deps.lease.ttl,
            max_pods: self.deps.max_pods,
        })
    }

    /// The pods that may be claimed, with the time for which each has been known without a holder.
    fn ages(&mut self, table: &LockTable, now: Duration) -> BTreeMap<PodUid, Duration> {
        self.resting.retain(|_, until| now < *until);
        let set = self.deps.pods.borrow().clone();
        // What is known better than the store counts for as long as nobody else has held the pod.
        self.unsaved.retain(|uid, (fence, _)| {
            let row = table.rows.get(&LockKey::Pod(uid.clone()));
            row.is_some_and(|row| row.fence == *fence)
        });
        let free = |uid: &PodUid| {
            let row = table.rows.get(&LockKey::Pod(uid.clone()));
            row.is_none_or(|row| row.owner.is_none() && !row.finished)
        };
        let before = std::mem::take(&mut self.unheld);
        let mut pods = BTreeMap::new();
        for uid in set.pods.keys().filter(|uid| !self.resting.contains_key(*uid)) {
            let mut age = Duration::ZERO;
            if free(uid) && !self.held.contains_key(uid) {
                let since = before.get(uid).copied().unwrap_or(now);
                self.unheld.insert(uid.clone(), since);
                age = now.saturating_sub(since);
            }
            pods.insert(uid.clone(), age);
        }
        pods
    }

    /// Stops the tasks of pods that another replica has asked for; they are handed over when they end.
    /// Answers which could not be handed over in time, because the sink does not take what was read.
    fn hand(&mut self, plan: &Plan, now: Duration) -> Vec<(LockKey, Fence)> {
        let mut overdue = Vec::new();
        for (uid, to) in &plan.hand {
            let Some(held) = self.held.get_mut(uid) else { continue };
            match held.asked {
                None => {
                    held.after = AfterRelease::Handed(to.clone());
                    held.asked = Some(now);
                    held.stop.cancel();
                    self.metrics.claims_handed.inc();
                }
                Some(since) if now >= since + HAND_OVER => {
                    held.after = AfterRelease::Free;
                    held.asked = None;
                    overdue.push((LockKey::Pod(uid.clone()), held.fence));
                }
                Some(_) => {}
            }
        }
        overdue
    }

    async fn refuse(&mut self, plan: &Plan, overdue: Vec<(LockKey, Fence)>) {
        let mut rows: Vec<_> = keyed(&plan.refuse).filter(|(key, _)| self.is_staying(key)).collect();
        rows.extend(overdue);
        if !rows.is_empty() {
            let answer = self.call("refuse", self.deps.store.refuse(&rows)).await;
            self.record_outcome(answer);
        }
    }

    fn is_staying(&self, key: &LockKey) -> bool {
        key.pod()
            .and_then(|uid| self.held.get(uid))
            .is_some_and(|held| !held.stop.is_cancelled())
    }

    async fn request(&mut self, plan: &Plan) {
        let rows: Vec<_> = keyed(&plan.ask).collect();
        if !rows.is_empty() {
            tracing::info!(
                pods = rows.len(),
                "asking other replicas for pods, to even out the load"
            );
            let answer = self.call("ask", self.deps.store.ask(&rows)).await;
            self.record_outcome(answer);
        }
    }

    async fn claim(&mut self, plan: &Plan) {
        let set = self.deps.pods.borrow().clone();
        let pods = plan
            .acquire
            .iter()
            .filter_map(|uid| set.pods.get(uid))
            // One batch. A longer queue is taken turn by turn, so that a replica alone with thousands of
            // pods begins with the first ones at once.
            .take(locks::ROWS)
            .cloned()
            .collect();
        self.take(pods).await;
    }

    /// Claims these pods and starts a task for each that is won.
    pub(super) async fn take(&mut self, pods: Vec<Arc<Pod>>) {
        if pods.is_empty() {
            return;
        }
        let wants: Vec<Want> = pods.iter().map(|pod| want(pod)).collect();
        let sent = self.clock.now();
        let answer = self.call("acquire", self.deps.store.acquire(&wants)).await;
        let Some(claims) = self.record_outcome(answer) else {
            return;
        };
        let by_key: BTreeMap<LockKey, Arc<Pod>> = pods
            .into_iter()
            .map(|pod| (LockKey::Pod(pod.uid.clone()), pod))
            .collect();
        self.metrics.claims_taken.inc_by(claims.len() as u64);
        let unread = claims.into_iter().filter_map(|claim| {
            let pod = by_key.get(&claim.key)?.clone();
            self.begin(claim, pod, sent)
        });
        let unread = unread.collect();
        self.leave_alone(unread).await;
    }

    /// Starts the task of a pod, or gives its claim back, when it cannot be told how far the pod is stored.
    fn begin(&mut self, claim: Claim, pod: Arc<Pod>, sent: Duration) -> Option<Claim> {
        match self.checkpoint_of(&claim, &pod) {
            Ok(known) => {
                if pod.gone && known.is_empty() && pod.containers.is_empty() {
                    self.metrics.gaps.get_or_create(&Reason { reason: "deleted" }).inc();
                    tracing::warn!(namespace = %pod.namespace, pod = %pod.name, uid = %pod.uid,
                        "the pod was deleted before anything of it was stored; its containers are unknown, so no gap record can be delivered");
                }
                self.start(claim, pod, known, sent);
                None
            }
            Err(error) => {
                tracing::error!(namespace = %pod.namespace, pod = %pod.name, uid = %pod.uid, %error,
                    "the pod is not collected; delete its row from distributed_lock to begin anew");
                Some(claim)
            }
        }
    }
}

fn keyed(rows: &[(PodUid, Fence)]) -> impl Iterator<Item = (LockKey, Fence)> {
    rows.iter().map(|(uid, fence)| (LockKey::Pod(uid.clone()), *fence))
}

fn want(pod: &Pod) -> Want {
    Want {
        key: LockKey::Pod(pod.uid.clone()),
        about: About::of(pod),
    }
}
