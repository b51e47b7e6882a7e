//! Replicas and pods around one small table in place of a lock store. It is exact and instant, with one round per
//! second. It checks what must hold in every round and never decides which replica takes which pod.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podlog::domain::plan::{LAST_RANK, MAX_REQUESTS};
use podlog::domain::{Fence, LockKey, LockRow, LockTable, Plan, PlanInput, PodUid, ReplicaId, plan};

const TTL: i64 = 20_000;
const GRACE: i64 = 1_000;
const ROUND: i64 = 1_000;
/// Rounds without a change of members before pods are moved.
const SETTLE: u32 = 10;
/// The longest a pod may wait: a crashed holder's ttl and grace, the last rank, and two rounds of stale views.
const LONGEST_WAIT: i64 = TTL + GRACE + (LAST_RANK as i64 + 2) * ROUND;

/// What happens to the replicas and pods; numbers choose one of those there are.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Join,
    Crash(usize),
    Drain(usize),
    Start(usize),
    Delete(usize),
    Finish(usize),
}

#[derive(Debug, Default)]
pub(crate) struct ModelReplica {
    held: BTreeMap<PodUid, Fence>,
    /// When each pod was first seen here without a holder.
    since: BTreeMap<PodUid, i64>,
    /// Pods being drained for another replica, handed over in the next round.
    handing: Vec<(PodUid, ReplicaId)>,
    draining: bool,
    peers: BTreeSet<ReplicaId>,
    unchanged: u32,
}

/// The table, the pods and the replicas.
#[derive(Debug, Default)]
pub(crate) struct TableModel {
    now: i64,
    table: LockTable,
    before: LockTable,
    stale: bool,
    pods: BTreeSet<PodUid>,
    pub(crate) replicas: BTreeMap<ReplicaId, ModelReplica>,
    /// When each pod last had a holder, or appeared.
    last_held: BTreeMap<PodUid, i64>,
    names: usize,
    pub(crate) fences: u64,
    pub(crate) moved: usize,
    pub(crate) asked: usize,
    pub(crate) limit: usize,
    /// The longest any pod has waited, in milliseconds.
    pub(crate) longest: i64,
}

impl TableModel {
    pub(crate) fn new(stale: bool) -> Self {
        Self {
            stale,
            limit: 10_000,
            ..Self::default()
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}-{}", self.names)
    }

    fn set(&mut self, key: LockKey, owner: Option<&ReplicaId>) -> Fence {
        self.fences += 1;
        let row = LockRow {
            owner: owner.cloned(),
            fence: Fence(self.fences),
            expires_in: if owner.is_some() { TTL } else { 0 },
            finished: false,
            requested_by: None,
            pod_ref: podlog::domain::PodRef::default(),
            checkpoint_len: 0,
        };
        self.table.rows.insert(key, row);
        Fence(self.fences)
    }

    fn nth(&self, n: usize) -> Option<ReplicaId> {
        let up: Vec<_> = self
            .replicas
            .iter()
            .filter(|(_, r)| !r.draining)
            .map(|(id, _)| id)
            .collect();
        (up.len() > 1).then(|| up[n % up.len()].clone())
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Join => {
                let id = ReplicaId::from(self.name("replica"));
                self.set(LockKey::Replica(id.clone()), Some(&id));
                self.replicas.insert(id, ModelReplica::default());
            }
            Event::Crash(n) => {
                self.nth(*n).map(|id| self.replicas.remove(&id));
            }
            Event::Drain(n) => {
                if let Some(id) = self.nth(*n) {
                    self.table.rows.remove(&LockKey::Replica(id.clone()));
                    self.replicas.get_mut(&id).unwrap().draining = true;
                }
            }
            Event::Start(count) => {
                for _ in 0..*count {
                    let uid = PodUid::from(self.name("pod"));
                    self.last_held.insert(uid.clone(), self.now);
                    self.pods.insert(uid);
                }
            }
            Event::Delete(n) => {
                if let Some(uid) = self.pods.iter().nth(n % self.pods.len().max(1)).cloned() {
                    self.pods.remove(&uid);
                    self.table.rows.remove(&LockKey::Pod(uid.clone()));
                    self.replicas
                        .values_mut()
                        .for_each(|r| r.held.retain(|held, _| *held != uid));
                }
            }
            Event::Finish(n) => {
                let held = self
                    .replicas
                    .values()
                    .flat_map(|r| r.held.keys())
                    .cloned()
                    .collect::<BTreeSet<_>>();
                if let Some(uid) = held.iter().nth(n % held.len().max(1)) {
                    self.set(LockKey::Pod(uid.clone()), None);
                    self.table.rows.get_mut(&LockKey::Pod(uid.clone())).unwrap().finished = true;
                    self.replicas
                        .values_mut()
                        .for_each(|r| r.held.retain(|held, _| held != uid));
                }
            }
        }
    }

    /// One second: time passes, live replicas renew, hand over what they drained, plan and act.
    pub(crate) fn round(&mut self) {
        self.now += ROUND;
        self.before = self.table.clone();
        for (key, row) in &mut self.table.rows {
            // A replica renews what it knows that it holds. It does not know yet what was handed over to it.
            let owner = row.owner.as_ref().and_then(|id| self.replicas.get(id));
            let renewed = owner.is_some_and(|owner| key.pod().is_none_or(|uid| owner.held.contains_key(uid)));
            row.expires_in = if renewed { TTL } else { row.expires_in - ROUND };
        }
        let ids: Vec<_> = self.replicas.keys().cloned().collect();
        for id in ids {
            self.hand_over(&id);
            if self.replicas[&id].draining {
                self.release_some(&id);
            } else {
                let table = if self.stale {
                    self.before.clone()
                } else {
                    self.table.clone()
                };
                self.act(&id, &table);
            }
        }
        self.check();
    }

    fn hand_over(&mut self, id: &ReplicaId) {
        let replica = self.replicas.get_mut(id).unwrap();
        for (uid, to) in std::mem::take(&mut replica.handing) {
            if self.replicas.get_mut(id).unwrap().held.remove(&uid).is_some() {
                self.set(LockKey::Pod(uid), Some(&to));
                self.moved += 1;
            }
        }
    }

    /// A replica that shuts down gives its pods back, forty a second.
    fn release_some(&mut self, id: &ReplicaId) {
        let held: Vec<_> = self.replicas[id].held.keys().take(40).cloned().collect();
        for uid in &held {
            self.replicas.get_mut(id).unwrap().held.remove(uid);
            self.set(LockKey::Pod(uid.clone()), None);
        }
        if held.is_empty() {
            self.replicas.remove(id);
        }
    }

    fn plan(&mut self, id: &ReplicaId, table: &LockTable) -> Plan {
        let (now, limit) = (self.now, self.limit);
        let replica = self.replicas.get_mut(id).unwrap();
        let unheld = |uid: &&PodUid| {
            let row = table.rows.get(&LockKey::Pod((*uid).clone()));
            row.is_none_or(|row| row.owner.is_none())
        };
        let free: BTreeSet<_> = self.pods.iter().filter(unheld).cloned().collect();
        replica.since.retain(|uid, _| free.contains(uid));
        for uid in free {
            replica.since.entry(uid).or_insert(now);
        }
        let age = |uid: &PodUid| replica.since.get(uid).map_or(0, |since| now - since).unsigned_abs();
        let pods = self
            .pods
            .iter()
            .map(|uid| (uid.clone(), Duration::from_millis(age(uid))))
            .collect();
        let peers: BTreeSet<_> = table.live_replicas().cloned().collect();
        replica.unchanged = if peers == replica.peers {
            replica.unchanged + 1
        } else {
            0
        };
        replica.peers = peers;
        let input = PlanInput {
            me: id,
            table,
            pods: &pods,
            held: &replica.held,
            takeover_grace: Duration::from_millis(GRACE as u64),
            settled: replica.unchanged >= SETTLE,
            max_pods: limit,
        };
        let made = plan(&input);
        assert_eq!(made, plan(&input), "the same input gives the same plan");
        assert!(
            input.settled || made.request_handover.is_empty(),
            "{id} asks while members change"
        );
        made
    }

    fn act(&mut self, id: &ReplicaId, table: &LockTable) {
        let plan = self.plan(id, table);
        for uid in &plan.acquire {
            let key = LockKey::Pod(uid.clone());
            if let Some(row) = table.rows.get(&key) {
                let other = row.owner.as_ref().is_some_and(|owner| owner != id);
                assert!(!other || row.expires_in <= -GRACE, "{id} takes {uid} from its holder");
                assert!(!row.finished, "{id} takes {uid}, which is finished");
            }
            let open = self.table.rows.get(&key).is_none_or(|row| {
                let free = row.owner.as_ref().is_none_or(|owner| owner == id) || row.expires_in <= -GRACE;
                free && !row.finished
            });
            if open && self.pods.contains(uid) {
                let fence = self.set(key, Some(id));
                self.replicas.get_mut(id).unwrap().held.insert(uid.clone(), fence);
            }
        }
        assert!(plan.request_handover.len() <= MAX_REQUESTS);
        self.asked += plan.request_handover.len();
        for (uid, fence) in &plan.request_handover {
            let row = self
                .table
                .rows
                .get_mut(&LockKey::Pod(uid.clone()))
                .filter(|row| row.fence == *fence);
            if let Some(row) = row.filter(|row| row.requested_by.is_none()) {
                row.requested_by = Some(id.clone());
            }
        }
        for (uid, fence) in &plan.decline_handover {
            let row = self.table.rows.get_mut(&LockKey::Pod(uid.clone()));
            row.filter(|row| row.fence == *fence).unwrap().requested_by = None;
        }
        self.replicas.get_mut(id).unwrap().handing = plan.hand_over;
    }

    fn check(&mut self) {
        let mut holders: BTreeMap<&PodUid, usize> = BTreeMap::new();
        for uid in self.replicas.values().flat_map(|r| r.held.keys()) {
            *holders.entry(uid).or_default() += 1;
        }
        for uid in &self.pods {
            let finished = self
                .table
                .rows
                .get(&LockKey::Pod(uid.clone()))
                .is_some_and(|row| row.finished);
            let count = holders.get(uid).copied().unwrap_or(0);
            assert!(count <= 1, "{uid} has {count} holders");
            if count == 1 || finished || self.replicas.values().all(|r| r.draining) {
                self.last_held.insert(uid.clone(), self.now);
            }
            let waited = self.now - self.last_held[uid];
            self.longest = self.longest.max(waited);
            assert!(waited <= LONGEST_WAIT, "{uid} has waited {waited} ms");
        }
    }

    pub(crate) fn loads(&self) -> Vec<usize> {
        self.replicas.values().map(|r| r.held.len()).collect()
    }

    /// Whether no load is further from the mean than a tenth of it or one pod.
    pub(crate) fn even(&self) -> bool {
        let loads = self.loads();
        let mean = loads.iter().sum::<usize>() as f64 / loads.len() as f64;
        loads
            .iter()
            .all(|load| (*load as f64 - mean).abs() <= (mean / 10.0).max(1.0))
    }

    /// How many pods must move at least before all loads are within one of each other.
    pub(crate) fn deficit(&self) -> usize {
        let loads = self.loads();
        let floor = loads.iter().sum::<usize>() / loads.len();
        loads.iter().map(|load| floor.saturating_sub(*load)).sum()
    }

    pub(crate) fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }
}
