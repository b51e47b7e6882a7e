//! What a replica does next about claims: acquire pods, hand pods over, decline and make requests.
//!
//! One pure function from a [`PlanInput`] to a [`Plan`]. It never claims a pod whose claim by another replica has not
//! expired, and never leaves a pod without a holder to balance the load.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claim::{LockRow, LockTable};
use super::id::{Fence, PodUid, ReplicaId};
use super::share::Shares;

pub use super::share::MAX_REQUESTS;

/// How long each rank for a pod waits for the rank before it. An acquiring statement takes milliseconds, and at most 3 s
/// when the store is slow.
pub const RANK_WAIT: Duration = Duration::from_secs(1);

/// How soon the table is read again while pods are about to be released. The pods of a replica that shuts down must be
/// taken within 2 s: 1 s for this, and 1 s for claiming them.
pub const RECHECK: Duration = Duration::from_secs(1);

/// The last rank. After 3 * [`RANK_WAIT`] = 3 s, each replica may claim the pod.
pub const LAST_RANK: usize = 3;

/// What a replica knows when it plans: the input.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// This replica. It counts as alive even if its own row is not in the table yet.
    pub me: &'a ReplicaId,
    /// The lock table, read after the latest release of this replica had returned.
    pub table: &'a LockTable,
    /// The pods to collect, each with the time for which this replica has known it without a holder. The time matters
    /// for pods without a row or with a free row; for expired rows the table has it. Pods that must not be claimed now,
    /// such as one whose task has just failed, are left out.
    pub pods: &'a BTreeMap<PodUid, Duration>,
    /// The pods that this replica holds, including those whose tasks are stopping.
    pub held: &'a BTreeMap<PodUid, Fence>,
    /// How long after its expiry the claim of another replica may be acquired.
    pub takeover_grace: Duration,
    /// Whether the live replicas have been the same for long enough to move pods.
    pub settled: bool,
    /// The most pods this replica may hold.
    pub max_pods: usize,
}

/// What a replica should do now: the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pods to acquire: first those handed to this replica, then those that have waited longest.
    pub acquire: Vec<PodUid>,
    /// Pods held by this replica that a live replica has requested: to be drained, then released to it. They are named in
    /// each plan until that is done.
    pub hand_over: Vec<(PodUid, ReplicaId)>,
    /// Pods held by this replica that a dead replica has requested.
    pub decline_handover: Vec<(PodUid, Fence)>,
    /// Pods to request from their holders.
    pub request_handover: Vec<(PodUid, Fence)>,
    /// Time after which the table should be read again, because a pod may be claimed then. `None` if no such time is
    /// known. At most [`RECHECK`] while another replica releases pods or hands them over, since those pods are not
    /// collected until they are claimed.
    pub wake: Option<Duration>,
}

/// Decides what to do. The same input always gives the same plan.
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let overview = Overview::new(input);
    let mut shares = Shares::new(&overview.loads, overview.total(), input.max_pods);
    let mut plan = Plan::default();
    plan_acquisitions(input, &overview, &mut shares, &mut plan);
    plan_answers(input, &overview, &mut plan);
    if input.settled && shares.is_uneven() {
        let requested = shares.plan_moves(overview.movable, input.me).into_iter();
        let fenced = |uid: PodUid| {
            let fence = input.table.pod(&uid)?.fence;
            Some((uid, fence))
        };
        plan.request_handover = requested.filter_map(fenced).collect();
        if !plan.request_handover.is_empty() {
            plan.wake = Some(plan.wake.map_or(RECHECK, |other| other.min(RECHECK)));
        }
    }
    plan
}

/// A pod that no live replica holds.
#[derive(Debug)]
struct Unheld<'a> {
    /// Time in milliseconds for which it has been acquirable; negative if it is not acquirable yet.
    age: i64,
    /// The replica that let the claim expire.
    previous_holder: Option<&'a ReplicaId>,
}

/// Who holds which pods, seen from one replica.
#[derive(Debug)]
struct Overview<'a> {
    /// The live replicas, each with the number of pods that it holds or is about to get.
    loads: BTreeMap<&'a ReplicaId, usize>,
    /// Pods without a live holder.
    unheld: BTreeMap<&'a PodUid, Unheld<'a>>,
    /// Pods handed to this replica and not claimed yet.
    handed: Vec<&'a PodUid>,
    /// Pods that a replica may request, by holder.
    movable: BTreeMap<&'a ReplicaId, Vec<&'a PodUid>>,
    /// Milliseconds until the first claim of a live peer may be taken, if it is not renewed.
    peer_expiry: Option<i64>,
    /// Whether pods are about to become free: a replica shuts down, or hands pods to this one.
    pods_coming: bool,
}

impl<'a> Overview<'a> {
    fn new(input: &PlanInput<'a>) -> Self {
        let mut overview = Self {
            loads: input.table.live_replicas().map(|id| (id, 0)).collect(),
            unheld: BTreeMap::new(),
            handed: Vec::new(),
            movable: BTreeMap::new(),
            peer_expiry: None,
            pods_coming: false,
        };
        overview.loads.insert(input.me, 0);
        for (key, row) in &input.table.rows {
            if let Some(uid) = key.pod().filter(|uid| !row.finished || input.held.contains_key(uid)) {
                overview.add_row(input, uid, row);
            }
        }
        let absent = |uid: &PodUid| input.table.pod(uid).is_none();
        for (uid, age) in input
            .pods
            .iter()
            .filter(|(uid, _)| absent(uid) && !input.held.contains_key(uid))
        {
            let age = millis(*age);
            overview.unheld.insert(
                uid,
                Unheld {
                    age,
                    previous_holder: None,
                },
            );
        }
        *overview.loads.entry(input.me).or_default() += input.held.keys().filter(|uid| absent(uid)).count();
        overview
    }

    fn add_row(&mut self, input: &PlanInput<'a>, uid: &'a PodUid, row: &'a LockRow) {
        let owner = row.owner.as_ref();
        // A row in this replica's name that it does not hold was handed to it, or could not be released while the store
        // did not answer. No other replica holds it, even if it has expired.
        let holder = if input.held.contains_key(uid) || owner == Some(input.me) {
            Some(input.me)
        } else {
            owner.filter(|id| row.expires_in > 0 && self.loads.contains_key(id))
        };
        if let Some(holder) = holder {
            self.add_held(input, uid, row, holder);
        } else if let Some(age) = input.pods.get(uid) {
            let age = match owner {
                Some(_) => row
                    .expires_in
                    .saturating_neg()
                    .saturating_sub(millis(input.takeover_grace)),
                None => millis(*age),
            };
            self.pods_coming |= owner.is_some() && row.expires_in > 0;
            self.unheld.insert(
                uid,
                Unheld {
                    age,
                    previous_holder: owner,
                },
            );
        }
    }

    fn add_held(&mut self, input: &PlanInput<'a>, uid: &'a PodUid, row: &'a LockRow, holder: &'a ReplicaId) {
        let mine = input.held.contains_key(uid);
        let requester = row
            .requested_by
            .as_ref()
            .filter(|id| *id != holder && self.loads.contains_key(id));
        *self.loads.entry(requester.unwrap_or(holder)).or_default() += 1;
        self.pods_coming |= requester == Some(input.me);
        if !input.pods.contains_key(uid) {
            return;
        }
        if holder == input.me && !mine {
            self.handed.push(uid);
            return;
        }
        if !mine {
            let acquirable = row.expires_in.saturating_add(millis(input.takeover_grace));
            self.peer_expiry = Some(self.peer_expiry.map_or(acquirable, |other| other.min(acquirable)));
        }
        if row.requested_by.is_none() && row.owner.as_ref() == Some(holder) {
            self.movable.entry(holder).or_default().push(uid);
        }
    }

    fn total(&self) -> usize {
        self.loads.values().sum::<usize>() + self.unheld.len()
    }
}

/// Plans which pods without a holder to acquire, and when the table should be read again.
fn plan_acquisitions(input: &PlanInput<'_>, overview: &Overview<'_>, shares: &mut Shares, plan: &mut Plan) {
    let mut ready = Vec::new();
    let recheck = overview.pods_coming.then_some(millis(RECHECK));
    let mut wake = overview.peer_expiry.into_iter().chain(recheck).min();
    for (uid, unheld) in &overview.unheld {
        let rank = shares.assign(uid, input.me, unheld.previous_holder).min(LAST_RANK);
        let left = millis(RANK_WAIT) * rank as i64 - unheld.age;
        if left <= 0 {
            ready.push((-unheld.age, *uid));
        } else {
            wake = Some(wake.map_or(left, |other| other.min(left)));
        }
    }
    ready.sort_unstable();
    let room = input.max_pods.saturating_sub(input.held.len());
    let handed = overview.handed.iter().copied();
    plan.acquire = handed
        .chain(ready.into_iter().map(|(_, uid)| uid))
        .take(room)
        .cloned()
        .collect();
    if plan.acquire.len() < room {
        plan.wake = wake.map(|left| Duration::from_millis(left.max(0).unsigned_abs()));
    }
}

/// Plans the answers about pods of this replica that others have requested.
fn plan_answers(input: &PlanInput<'_>, overview: &Overview<'_>, plan: &mut Plan) {
    for (uid, fence) in input.held {
        let row = input.table.pod(uid);
        let Some(row) = row.filter(|row| row.owner.as_ref() == Some(input.me) && row.fence == *fence) else {
            continue;
        };
        match &row.requested_by {
            Some(requester) if requester != input.me && overview.loads.contains_key(requester) => {
                plan.hand_over.push((uid.clone(), requester.clone()));
            }
            Some(_) => plan.decline_handover.push((uid.clone(), *fence)),
            None => {}
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::super::id::LockKey;
    use super::*;

    /// A table of two live replicas, `me` and `you`, and of rows as (pod, owner, requester, milliseconds to expiry).
    fn table(rows: &[(&str, &str, &str, i64)]) -> LockTable {
        let row = |owner: &str, requester: &str, expires_in| LockRow {
            owner: (!owner.is_empty()).then(|| owner.into()),
            fence: Fence(7),
            expires_in,
            finished: false,
            requested_by: (!requester.is_empty()).then(|| requester.into()),
            pod_ref: super::super::claim::PodRef::default(),
            checkpoint_len: 0,
        };
        let pods = rows
            .iter()
            .map(|(uid, owner, requester, left)| (LockKey::Pod((*uid).into()), row(owner, requester, *left)));
        let live = ["me", "you"].map(|id| (LockKey::Replica(id.into()), row(id, "", 9000)));
        LockTable {
            rows: pods.chain(live).collect(),
            ..LockTable::default()
        }
    }

    fn planned(rows: &[(&str, &str, &str, i64)]) -> Plan {
        let me = ReplicaId::from("me");
        let mine = rows.iter().filter(|(_, owner, ..)| *owner == "me");
        let input = PlanInput {
            me: &me,
            table: &table(rows),
            pods: &rows
                .iter()
                .map(|(uid, ..)| (PodUid::from(*uid), Duration::ZERO))
                .collect(),
            held: &mine.map(|(uid, ..)| (PodUid::from(*uid), Fence(7))).collect(),
            takeover_grace: Duration::from_secs(1),
            settled: true,
            max_pods: 100,
        };
        plan(&input)
    }

    #[test]
    fn live_replicas_get_the_pods_they_request_and_requests_of_dead_ones_are_declined() {
        let plan = planned(&[
            ("a", "me", "you", 9000),
            ("b", "me", "dead", 9000),
            ("c", "me", "me", 9000),
            ("d", "me", "", 9000),
        ]);
        assert_eq!(plan.hand_over, [("a".into(), "you".into())]);
        assert_eq!(plan.decline_handover, [("b".into(), Fence(7)), ("c".into(), Fence(7))]);
    }

    #[test]
    fn a_requested_pod_is_not_requested_again() {
        let all = |requester| ["a", "b", "c", "d", "e", "f"].map(|uid| (uid, "you", requester, 9000));
        assert_eq!(planned(&all("")).request_handover.len(), 3);
        let mut rows = all("dead");
        assert_eq!(planned(&rows).request_handover, []);
        rows[0].2 = "me";
        (rows[1].2, rows[2].2) = ("", "");
        let asked: Vec<_> = planned(&rows)
            .request_handover
            .into_iter()
            .map(|(uid, _)| uid)
            .collect();
        assert_eq!(asked.len(), 2, "one is on its way: {asked:?}");
        assert!(asked.iter().all(|uid| ["b", "c"].contains(&uid.as_str())), "{asked:?}");
    }

    #[test]
    fn the_plan_wakes_when_the_first_row_of_another_could_be_acquired() {
        let plan = planned(&[("a", "you", "", 4000), ("b", "you", "", 6000)]);
        assert_eq!(plan.wake, Some(Duration::from_secs(5)));
        assert_eq!(planned(&[("a", "me", "", 4000)]).wake, None);
    }

    #[test]
    fn the_table_is_read_again_soon_while_pods_are_about_to_become_free() {
        let leaving = planned(&[("a", "dead", "", 9000)]);
        assert_eq!((leaving.acquire.len(), leaving.wake), (0, Some(RECHECK)));
        let asked = planned(&[("a", "you", "me", 9000)]);
        assert_eq!((asked.request_handover.len(), asked.wake), (0, Some(RECHECK)));
        let asking = planned(&["a", "b", "c", "d"].map(|uid| (uid, "you", "", 9000)));
        assert_eq!((asking.request_handover.len(), asking.wake), (2, Some(RECHECK)));
    }

    #[test]
    fn an_expired_row_is_acquired_after_the_grace_and_in_the_end_by_any_replica() {
        assert_eq!(planned(&[("a", "dead", "", -900)]).acquire, []);
        assert_eq!(planned(&[("a", "dead", "", -4000)]).acquire, ["a".into()]);
        let beside_its_holder = planned(&[("a", "you", "", -1000)]);
        assert_eq!(
            beside_its_holder.acquire,
            ["a".into()],
            "the one that let it expire is passed over"
        );
    }
}
