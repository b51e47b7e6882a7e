//! What a replica does next about claims: take, hand over, refuse, ask.
//!
//! One pure function from a [`View`] to a [`Plan`]. It never takes a pod that another holds
//! unexpired, and never leaves a pod without a holder for the sake of balance.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claim::{LockRow, LockTable};
use super::id::{Fence, LockKey, PodUid, ReplicaId};
use super::share::Shares;

pub use super::share::ASKS_PER_ROUND;

/// How long each place in a pod's ranking waits for the one before it. One second is longer than
/// an acquiring statement takes (milliseconds; 3 s when the store is at its worst).
pub const RANK_WAIT: Duration = Duration::from_secs(1);

/// How soon to look again for pods that are about to be given back: within the 2 s in which the
/// pods of a replica that shuts down shall be taken, with one second left for claiming them.
pub const LOOK: Duration = Duration::from_secs(1);

/// The place from which on everybody may take the pod at once: 3 s after it could be taken.
pub const LAST_RANK: usize = 3;

/// What a replica knows when it plans.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// This replica. It counts as alive whether or not its own row is seen already.
    pub me: &'a ReplicaId,
    /// The claims, read after the latest release of this replica had returned.
    pub table: &'a LockTable,
    /// The pods to collect, each with the time for which it has been known here without a holder.
    /// The age matters for pods that have no row or a free one; for expired rows the table tells.
    /// Leave out pods that must not be claimed now, such as one whose task failed a moment ago.
    pub pods: &'a BTreeMap<PodUid, Duration>,
    /// The pods whose claim this replica has, those being drained included.
    pub held: &'a BTreeMap<PodUid, Fence>,
    /// How long after its expiry a claim of another may be taken.
    pub takeover_grace: Duration,
    /// Whether the set of live replicas has been the same for long enough to move pods.
    pub settled: bool,
    /// The most pods this replica may hold.
    pub max_pods: usize,
}

/// What a replica should do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pods to claim: first those handed to this replica, then the longest waiting.
    pub acquire: Vec<PodUid>,
    /// Pods held here that a live replica asked for: drain, then release as handed to it. Named
    /// again in every plan until that is done.
    pub hand: Vec<(PodUid, ReplicaId)>,
    /// Pods held here that were asked for by a replica that is not alive any more.
    pub refuse: Vec<(PodUid, Fence)>,
    /// Rows to ask their holders for.
    pub ask: Vec<(PodUid, Fence)>,
    /// How long after the table was read there may be something to take that cannot be taken yet.
    /// Look at a fresh table then. `None` when nothing is known to be coming. At most [`LOOK`] while
    /// another replica gives pods back or hands them over, since they wait for whoever looks.
    pub wake: Option<Duration>,
}

/// Decides what to do. The same view always gives the same plan.
#[must_use]
pub fn plan(view: &View<'_>) -> Plan {
    let survey = Survey::of(view);
    let mut shares = Shares::new(&survey.loads, survey.total(), view.max_pods);
    let mut plan = Plan::default();
    take(view, &survey, &mut shares, &mut plan);
    answer(view, &survey, &mut plan);
    if view.settled && shares.uneven() {
        let asked = shares.moves(survey.movable, view.me).into_iter();
        let fenced = |uid: PodUid| {
            let fence = view.table.rows.get(&LockKey::Pod(uid.clone()))?.fence;
            Some((uid, fence))
        };
        plan.ask = asked.filter_map(fenced).collect();
        if !plan.ask.is_empty() {
            plan.wake = Some(plan.wake.map_or(LOOK, |other| other.min(LOOK)));
        }
    }
    plan
}

/// A pod that nobody holds, or whose holder is dead.
#[derive(Debug)]
struct Unheld<'a> {
    /// Milliseconds since it could first be taken; negative while it cannot.
    age: i64,
    /// The replica that let the claim expire.
    before: Option<&'a ReplicaId>,
}

/// The table seen from one replica.
#[derive(Debug)]
struct Survey<'a> {
    /// Live replicas with the pods they hold or have been promised.
    loads: BTreeMap<&'a ReplicaId, usize>,
    /// Pods to be given out.
    unheld: BTreeMap<&'a PodUid, Unheld<'a>>,
    /// Pods handed to this replica and not claimed yet.
    handed: Vec<&'a PodUid>,
    /// Pods that may be asked for, by holder.
    movable: BTreeMap<&'a ReplicaId, Vec<&'a PodUid>>,
    /// When the first claim of a live peer could be taken if it were not renewed, in milliseconds.
    peer_expiry: Option<i64>,
    /// Whether pods are on their way: given back by a replica that shuts down, or handed to this one.
    coming: bool,
}

impl<'a> Survey<'a> {
    fn of(view: &View<'a>) -> Self {
        let mut survey = Self {
            loads: view.table.replicas().map(|id| (id, 0)).collect(),
            unheld: BTreeMap::new(),
            handed: Vec::new(),
            movable: BTreeMap::new(),
            peer_expiry: None,
            coming: false,
        };
        survey.loads.insert(view.me, 0);
        for (key, row) in &view.table.rows {
            if let Some(uid) = key.pod().filter(|uid| !row.finished || view.held.contains_key(uid)) {
                survey.row(view, uid, row);
            }
        }
        let absent = |uid: &PodUid| !view.table.rows.contains_key(&LockKey::Pod(uid.clone()));
        for (uid, age) in view
            .pods
            .iter()
            .filter(|(uid, _)| absent(uid) && !view.held.contains_key(uid))
        {
            let (age, before) = (millis(*age), None);
            survey.unheld.insert(uid, Unheld { age, before });
        }
        *survey.loads.entry(view.me).or_default() += view.held.keys().filter(|uid| absent(uid)).count();
        survey
    }

    fn row(&mut self, view: &View<'a>, uid: &'a PodUid, row: &'a LockRow) {
        let owner = row.owner.as_ref();
        // A row in this replica's name that it does not hold was handed to it, or it let go of it
        // when the store was away: nobody else has it, expired or not.
        let holder = if view.held.contains_key(uid) || owner == Some(view.me) {
            Some(view.me)
        } else {
            owner.filter(|id| row.expires_in > 0 && self.loads.contains_key(id))
        };
        if let Some(holder) = holder {
            self.held(view, uid, row, holder);
        } else if let Some(age) = view.pods.get(uid) {
            let age = match owner {
                Some(_) => row
                    .expires_in
                    .saturating_neg()
                    .saturating_sub(millis(view.takeover_grace)),
                None => millis(*age),
            };
            self.coming |= owner.is_some() && row.expires_in > 0;
            self.unheld.insert(uid, Unheld { age, before: owner });
        }
    }

    fn held(&mut self, view: &View<'a>, uid: &'a PodUid, row: &'a LockRow, holder: &'a ReplicaId) {
        let mine = view.held.contains_key(uid);
        let asker = row
            .wanted_by
            .as_ref()
            .filter(|id| *id != holder && self.loads.contains_key(id));
        *self.loads.entry(asker.unwrap_or(holder)).or_default() += 1;
        self.coming |= asker == Some(view.me);
        if !view.pods.contains_key(uid) {
            return;
        }
        if holder == view.me && !mine {
            self.handed.push(uid);
            return;
        }
        if !mine {
            let takeable = row.expires_in.saturating_add(millis(view.takeover_grace));
            self.peer_expiry = Some(self.peer_expiry.map_or(takeable, |other| other.min(takeable)));
        }
        if row.wanted_by.is_none() && row.owner.as_ref() == Some(holder) {
            self.movable.entry(holder).or_default().push(uid);
        }
    }

    fn total(&self) -> usize {
        self.loads.values().sum::<usize>() + self.unheld.len()
    }
}

/// Which unheld pods to claim, and when the next one may be.
fn take(view: &View<'_>, survey: &Survey<'_>, shares: &mut Shares, plan: &mut Plan) {
    let mut ready = Vec::new();
    let look = survey.coming.then_some(millis(LOOK));
    let mut wake = survey.peer_expiry.into_iter().chain(look).min();
    for (uid, unheld) in &survey.unheld {
        let place = shares.assign(uid, view.me, unheld.before).min(LAST_RANK);
        let left = millis(RANK_WAIT) * place as i64 - unheld.age;
        if left <= 0 {
            ready.push((-unheld.age, *uid));
        } else {
            wake = Some(wake.map_or(left, |other| other.min(left)));
        }
    }
    ready.sort_unstable();
    let room = view.max_pods.saturating_sub(view.held.len());
    let handed = survey.handed.iter().copied();
    plan.acquire = handed
        .chain(ready.into_iter().map(|(_, uid)| uid))
        .take(room)
        .cloned()
        .collect();
    if plan.acquire.len() < room {
        plan.wake = wake.map(|left| Duration::from_millis(left.max(0).unsigned_abs()));
    }
}

/// What to do about the pods held here that others asked for.
fn answer(view: &View<'_>, survey: &Survey<'_>, plan: &mut Plan) {
    for (uid, fence) in view.held {
        let row = view.table.rows.get(&LockKey::Pod(uid.clone()));
        let Some(row) = row.filter(|row| row.owner.as_ref() == Some(view.me) && row.fence == *fence) else {
            continue;
        };
        match &row.wanted_by {
            Some(asker) if asker != view.me && survey.loads.contains_key(asker) => {
                plan.hand.push((uid.clone(), asker.clone()));
            }
            Some(_) => plan.refuse.push((uid.clone(), *fence)),
            None => {}
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of two live replicas, `me` and `you`, and of rows as (pod, owner, asker, milliseconds left).
    fn table(rows: &[(&str, &str, &str, i64)]) -> LockTable {
        let row = |owner: &str, asker: &str, expires_in| LockRow {
            owner: (!owner.is_empty()).then(|| owner.into()),
            fence: Fence(7),
            expires_in,
            finished: false,
            wanted_by: (!asker.is_empty()).then(|| asker.into()),
            about: super::super::claim::About::default(),
            checkpoint_len: 0,
        };
        let pods = rows
            .iter()
            .map(|(uid, owner, asker, left)| (LockKey::Pod((*uid).into()), row(owner, asker, *left)));
        let live = ["me", "you"].map(|id| (LockKey::Replica(id.into()), row(id, "", 9000)));
        LockTable {
            rows: pods.chain(live).collect(),
            ..LockTable::default()
        }
    }

    fn planned(rows: &[(&str, &str, &str, i64)]) -> Plan {
        let me = ReplicaId::from("me");
        let mine = rows.iter().filter(|(_, owner, ..)| *owner == "me");
        let view = View {
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
        plan(&view)
    }

    #[test]
    fn the_living_get_what_they_ask_for_and_the_dead_are_refused() {
        let plan = planned(&[
            ("a", "me", "you", 9000),
            ("b", "me", "dead", 9000),
            ("c", "me", "me", 9000),
            ("d", "me", "", 9000),
        ]);
        assert_eq!(plan.hand, [("a".into(), "you".into())]);
        assert_eq!(plan.refuse, [("b".into(), Fence(7)), ("c".into(), Fence(7))]);
    }

    #[test]
    fn a_row_that_somebody_asked_for_is_not_asked_for_again() {
        let all = |asker| ["a", "b", "c", "d", "e", "f"].map(|uid| (uid, "you", asker, 9000));
        assert_eq!(planned(&all("")).ask.len(), 3);
        let mut rows = all("dead");
        assert_eq!(planned(&rows).ask, []);
        rows[0].2 = "me";
        (rows[1].2, rows[2].2) = ("", "");
        let asked: Vec<_> = planned(&rows).ask.into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(asked.len(), 2, "one is on its way: {asked:?}");
        assert!(asked.iter().all(|uid| ["b", "c"].contains(&uid.as_str())), "{asked:?}");
    }

    #[test]
    fn the_plan_wakes_when_the_first_claim_of_another_could_be_taken() {
        let plan = planned(&[("a", "you", "", 4000), ("b", "you", "", 6000)]);
        assert_eq!(plan.wake, Some(Duration::from_secs(5)));
        assert_eq!(planned(&[("a", "me", "", 4000)]).wake, None);
    }

    #[test]
    fn the_plan_looks_again_soon_while_pods_are_on_their_way() {
        let leaving = planned(&[("a", "gone", "", 9000)]);
        assert_eq!((leaving.acquire.len(), leaving.wake), (0, Some(LOOK)));
        let asked = planned(&[("a", "you", "me", 9000)]);
        assert_eq!((asked.ask.len(), asked.wake), (0, Some(LOOK)));
        let asking = planned(&["a", "b", "c", "d"].map(|uid| (uid, "you", "", 9000)));
        assert_eq!((asking.ask.len(), asking.wake), (2, Some(LOOK)));
    }

    #[test]
    fn a_claim_that_expired_is_taken_after_the_grace_and_by_anybody_in_the_end() {
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
