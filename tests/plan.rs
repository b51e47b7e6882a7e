//! Histories of replicas that plan and act on one small table: whoever joins, dies or drains, and
//! whatever pods come and go, every pod soon has one holder and the loads are even.
//!
//! The table here is a stand-in for a lock store: exact, instant, one round per second. It never
//! tests a real store.

// A stand-in that finds itself in a state it cannot be in should panic.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podlog::domain::plan::{ASKS_PER_ROUND, LAST_RANK};
use podlog::domain::{Fence, LockKey, LockRow, LockTable, Plan, PodUid, ReplicaId, View, plan};
use proptest::prelude::*;

const TTL: i64 = 20_000;
const GRACE: i64 = 1_000;
const ROUND: i64 = 1_000;
/// Rounds without a change of members before pods are moved.
const SETTLE: u32 = 10;
/// The longest a pod may wait: a crashed holder's ttl and grace, the last rank, and two rounds of stale views.
const LONGEST_WAIT: i64 = TTL + GRACE + (LAST_RANK as i64 + 2) * ROUND;

#[derive(Clone, Debug)]
enum Event {
    Join,
    Crash(usize),
    Drain(usize),
    Start(usize),
    Delete(usize),
    Finish(usize),
}

#[derive(Debug, Default)]
struct Replica {
    held: BTreeMap<PodUid, Fence>,
    /// When each pod was first seen here without a holder.
    since: BTreeMap<PodUid, i64>,
    /// Pods being drained for another replica, handed over in the next round.
    handing: Vec<(PodUid, ReplicaId)>,
    draining: bool,
    peers: BTreeSet<ReplicaId>,
    unchanged: u32,
}

#[derive(Debug, Default)]
struct World {
    now: i64,
    table: LockTable,
    before: LockTable,
    stale: bool,
    pods: BTreeSet<PodUid>,
    replicas: BTreeMap<ReplicaId, Replica>,
    /// When each pod was last in somebody's hands, or appeared.
    attended: BTreeMap<PodUid, i64>,
    names: usize,
    fences: u64,
    moved: usize,
    asked: usize,
    limit: usize,
}

impl World {
    fn new(stale: bool) -> Self {
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
            wanted_by: None,
            about: podlog::domain::About::default(),
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

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Join => {
                let id = ReplicaId::from(self.name("replica"));
                self.set(LockKey::Replica(id.clone()), Some(&id));
                self.replicas.insert(id, Replica::default());
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
                    self.attended.insert(uid.clone(), self.now);
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
    fn round(&mut self) {
        self.now += ROUND;
        self.before = self.table.clone();
        for row in self.table.rows.values_mut() {
            let renewed = row.owner.as_ref().is_some_and(|id| self.replicas.contains_key(id));
            let held = row.owner.is_some() && renewed;
            row.expires_in = if held { TTL } else { row.expires_in - ROUND };
        }
        let ids: Vec<_> = self.replicas.keys().cloned().collect();
        for id in ids {
            self.hand_over(&id);
            if self.replicas[&id].draining {
                self.leave(&id);
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
    fn leave(&mut self, id: &ReplicaId) {
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
        let peers: BTreeSet<_> = table.replicas().cloned().collect();
        replica.unchanged = if peers == replica.peers {
            replica.unchanged + 1
        } else {
            0
        };
        replica.peers = peers;
        let view = View {
            me: id,
            table,
            pods: &pods,
            held: &replica.held,
            grace: Duration::from_millis(GRACE as u64),
            settled: replica.unchanged >= SETTLE,
            max_pods: limit,
        };
        let made = plan(&view);
        assert_eq!(made, plan(&view), "the same view gives the same plan");
        assert!(view.settled || made.ask.is_empty(), "{id} asks while members change");
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
        assert!(plan.ask.len() <= ASKS_PER_ROUND);
        self.asked += plan.ask.len();
        for (uid, fence) in &plan.ask {
            let row = self
                .table
                .rows
                .get_mut(&LockKey::Pod(uid.clone()))
                .filter(|row| row.fence == *fence);
            if let Some(row) = row.filter(|row| row.wanted_by.is_none()) {
                row.wanted_by = Some(id.clone());
            }
        }
        for (uid, fence) in &plan.refuse {
            let row = self.table.rows.get_mut(&LockKey::Pod(uid.clone()));
            row.filter(|row| row.fence == *fence).unwrap().wanted_by = None;
        }
        self.replicas.get_mut(id).unwrap().handing = plan.hand;
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
                self.attended.insert(uid.clone(), self.now);
            }
            let waited = self.now - self.attended[uid];
            assert!(waited <= LONGEST_WAIT, "{uid} has waited {waited} ms");
        }
    }

    fn loads(&self) -> Vec<usize> {
        self.replicas.values().map(|r| r.held.len()).collect()
    }

    /// Whether no load is further from the mean than a tenth of it or one pod.
    fn even(&self) -> bool {
        let loads = self.loads();
        let mean = loads.iter().sum::<usize>() as f64 / loads.len() as f64;
        loads
            .iter()
            .all(|load| (*load as f64 - mean).abs() <= (mean / 10.0).max(1.0))
    }

    /// How many pods must move at least before all loads are within one of each other.
    fn deficit(&self) -> usize {
        let loads = self.loads();
        let floor = loads.iter().sum::<usize>() / loads.len();
        loads.iter().map(|load| floor.saturating_sub(*load)).sum()
    }

    fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Join),
        1 => any::<usize>().prop_map(Event::Crash),
        1 => any::<usize>().prop_map(Event::Drain),
        3 => (1_usize..60).prop_map(Event::Start),
        3 => any::<usize>().prop_map(Event::Delete),
        2 => any::<usize>().prop_map(Event::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_history_settles_with_one_holder_per_pod_and_even_loads(
        stale in any::<bool>(),
        start in 0_usize..300,
        events in prop::collection::vec((event(), 0_usize..6), 0..40),
    ) {
        let mut world = World::new(stale);
        world.happen(&Event::Join);
        world.happen(&Event::Start(start));
        for (event, rounds) in &events {
            world.happen(event);
            world.rounds(*rounds);
        }
        // Crashed replicas expire, every pod finds a holder; what moves from then on is balancing.
        world.rounds(30);
        let (deficit, moved) = (world.deficit(), world.moved);
        world.rounds(60);
        let asked = world.asked;
        world.rounds(20);
        prop_assert_eq!(world.asked, asked, "still asking after a quiet minute");
        prop_assert!(world.even(), "uneven: {:?}", world.loads());
        let moved = world.moved - moved;
        prop_assert!(moved <= deficit * 12 / 10 + world.replicas.len(), "{} moves for a deficit of {}", moved, deficit);
    }
}

#[test]
fn a_newcomer_gets_its_share_in_hardly_more_moves_than_there_must_be() {
    for stale in [false, true] {
        let mut world = World::new(stale);
        (0..3).for_each(|_| world.happen(&Event::Join));
        world.happen(&Event::Start(900));
        world.rounds(20);
        assert_eq!((world.loads(), world.moved), (vec![300, 300, 300], 0), "stale: {stale}");
        world.happen(&Event::Join);
        world.rounds(60);
        assert!(world.even(), "stale: {stale}, {:?}", world.loads());
        assert!(world.moved <= 225, "stale: {stale}, {} moves", world.moved);
    }
}

#[test]
fn replicas_that_see_the_same_pods_take_each_its_own_in_the_first_round() {
    let mut world = World::new(true);
    (0..5).for_each(|_| world.happen(&Event::Join));
    world.rounds(2);
    world.happen(&Event::Start(1000));
    let fences = world.fences;
    world.round();
    assert_eq!(world.loads(), [200; 5]);
    assert_eq!(world.fences - fences, 1000);
}

#[test]
fn full_replicas_take_no_more_and_the_rest_waits_for_room() {
    let mut world = World::new(false);
    world.limit = 10;
    (0..2).for_each(|_| world.happen(&Event::Join));
    world.happen(&Event::Start(25));
    world.rounds(15);
    assert_eq!(world.loads(), [10, 10]);
    world.happen(&Event::Join);
    world.rounds(1);
    assert_eq!(world.loads().iter().sum::<usize>(), 25);
}
