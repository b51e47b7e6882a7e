//! Fair shares: which live replica claims a pod without a holder, and which pods move.
//!
//! Each replica computes the same answer from the same table, so there is no leader. Nothing here knows about expiry,
//! fences or time; `plan` does.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::id::{PodUid, ReplicaId};

/// The most pods that one replica requests in one plan: as many as a holder drains and hands over in a few seconds. So a
/// new replica does not cause all streams of the cluster to be opened again at once.
pub const MAX_REQUESTS: usize = 50;

/// A live replica, and the number of pods that it holds or is about to get.
#[derive(Debug)]
struct Member {
    id: ReplicaId,
    /// The hash of its name.
    seed: u64,
    load: usize,
}

impl Member {
    /// Its score for a pod: the replica with the highest score ranks first (rendezvous hashing).
    fn score(&self, uid: &PodUid) -> u64 {
        xxh3_64_with_seed(uid.as_str().as_bytes(), self.seed)
    }
}

/// The loads of all live replicas. Each decision changes them.
#[derive(Debug)]
pub(super) struct Shares {
    members: Vec<Member>,
    /// All pods: held, about to be handed over, and without a holder.
    total: usize,
    /// The most pods that a replica may hold. All replicas are assumed to have the same limit.
    limit: usize,
    /// How many more replicas may hold one pod more than the rounded-down mean.
    extras: usize,
}

impl Shares {
    /// The state before any decision. `loads` has all live replicas; `total` includes the pods without a holder.
    pub(super) fn new(loads: &BTreeMap<&ReplicaId, usize>, total: usize, limit: usize) -> Self {
        let members: Vec<_> = loads
            .iter()
            .map(|(id, load)| Member {
                id: (*id).clone(),
                seed: xxh3_64(id.as_str().as_bytes()),
                load: *load,
            })
            .collect();
        let count = members.len().max(1);
        let above: usize = members.iter().map(|m| m.load.saturating_sub(total / count)).sum();
        Self {
            members,
            total,
            limit,
            extras: (total % count).saturating_sub(above),
        }
    }

    fn floor(&self) -> usize {
        self.total / self.members.len().max(1)
    }

    /// Assigns a pod without a holder to the highest-ranking replica that has room within its even share. Returns the rank
    /// of `me`: 0 for the replica that got the pod, 1 for the next one.
    ///
    /// `previous_holder` let its claim expire, so it is passed over while there is another replica. The order of pods is
    /// the same everywhere, and pods that a replica has already claimed do not change who gets the others. So replicas
    /// that read the table at different times agree.
    pub(super) fn assign(&mut self, uid: &PodUid, me: &ReplicaId, previous_holder: Option<&ReplicaId>) -> usize {
        let mut order: Vec<usize> = (0..self.members.len())
            .filter(|i| self.members.len() == 1 || Some(&self.members[*i].id) != previous_holder)
            .collect();
        order.sort_by_cached_key(|i| std::cmp::Reverse((self.members[*i].score(uid), *i)));
        let floor = self.floor();
        let has_room = |i: usize| self.members[i].load < self.limit;
        let within_share =
            |i: usize| self.members[i].load < floor || (self.members[i].load == floor && self.extras > 0);
        let taker = order
            .iter()
            .position(|i| has_room(*i) && within_share(*i))
            .or_else(|| order.iter().position(|i| has_room(*i)));
        if let Some(place) = taker {
            let i = order.remove(place);
            order.insert(0, i);
            let member = &mut self.members[i];
            if member.load >= floor {
                self.extras = self.extras.saturating_sub(1);
            }
            member.load += 1;
        }
        order
            .iter()
            .position(|i| self.members[*i].id == *me)
            .unwrap_or(order.len())
    }

    /// Whether the load of some replica differs from the mean by more than a tenth of it and by more than one pod. No pod
    /// is moved for less: pods come and go anyway.
    pub(super) fn is_uneven(&self) -> bool {
        let count = self.members.len();
        let slack = (10 * count).max(self.total);
        self.members
            .iter()
            .any(|m| (m.load * count).abs_diff(self.total) * 10 > slack)
    }

    /// The pods that `me` should request. It computes the moves of all replicas, from the most to the least loaded one,
    /// until loads differ by one at most, and returns those to `me`.
    ///
    /// `movable` has the pods of each holder that may be requested. A holder gives away first the pods for which it ranks
    /// lowest.
    pub(super) fn plan_moves(mut self, movable: BTreeMap<&ReplicaId, Vec<&PodUid>>, me: &ReplicaId) -> Vec<PodUid> {
        let mut requests: Vec<usize> = vec![0; self.members.len()];
        let mut movable_by_member: Vec<Vec<&PodUid>> = vec![Vec::new(); self.members.len()];
        for (holder, mut uids) in movable {
            if let Some(i) = self.members.iter().position(|m| m.id == *holder) {
                let member = &self.members[i];
                // They are taken from the end.
                uids.sort_by_cached_key(|uid| std::cmp::Reverse((member.score(uid), *uid)));
                movable_by_member[i] = uids;
            }
        }
        let mut my_requests = Vec::new();
        loop {
            let load = |i: &usize| (self.members[*i].load, *i);
            let all = 0..self.members.len();
            let least = all.clone().filter(|i| requests[*i] < MAX_REQUESTS).min_by_key(load);
            let most = all.filter(|i| !movable_by_member[*i].is_empty()).max_by_key(load);
            let (Some(least), Some(most)) = (least, most) else {
                break;
            };
            let smallest = self.members[least].load;
            if smallest >= self.limit || self.members[most].load < smallest + 2 {
                break;
            }
            let Some(uid) = movable_by_member[most].pop() else {
                break;
            };
            self.members[most].load -= 1;
            self.members[least].load += 1;
            requests[least] += 1;
            if self.members[least].id == *me {
                my_requests.push(uid.clone());
            }
        }
        my_requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<ReplicaId> {
        (0..count).map(|i| ReplicaId::from(format!("r{i}"))).collect()
    }

    fn loads<'a>(names: &'a [ReplicaId], loads: &[usize]) -> BTreeMap<&'a ReplicaId, usize> {
        names.iter().zip(loads.iter().copied()).collect()
    }

    #[test]
    fn pods_without_a_holder_are_spread_evenly_to_the_last_one() {
        let names = names(3);
        let mut shares = Shares::new(&loads(&names, &[0, 0, 0]), 100, 1000);
        for i in 0..100 {
            shares.assign(&format!("pod-{i}").into(), &names[0], None);
        }
        let mut loads: Vec<usize> = shares.members.iter().map(|m| m.load).collect();
        loads.sort_unstable();
        assert_eq!(loads, [33, 33, 34]);
    }

    #[test]
    fn exactly_one_replica_ranks_first_for_a_pod_and_the_others_follow() {
        let names = names(4);
        for i in 0..200 {
            let uid = PodUid::from(format!("pod-{i}"));
            let mut places: Vec<usize> = names
                .iter()
                .map(|me| Shares::new(&loads(&names, &[5, 5, 5, 5]), 21, 100).assign(&uid, me, None))
                .collect();
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn acquiring_some_pods_does_not_change_who_gets_the_others() {
        let names = names(3);
        let uids: Vec<PodUid> = (0..90).map(|i| format!("pod-{i}").into()).collect();
        let first = |loads: &[usize], uids: &[&PodUid]| -> BTreeMap<PodUid, usize> {
            let mut taken = BTreeMap::new();
            for (at, me) in names.iter().enumerate() {
                let mut shares = Shares::new(&self::loads(&names, loads), 90, 100);
                let mine = uids.iter().filter(|uid| shares.assign(uid, me, None) == 0);
                taken.extend(mine.map(|uid| ((*uid).clone(), at)));
            }
            taken
        };
        let whole = first(&[0, 0, 0], &uids.iter().collect::<Vec<_>>());
        let early: Vec<&PodUid> = whole
            .iter()
            .filter(|(_, at)| **at == 1)
            .map(|(uid, _)| uid)
            .step_by(2)
            .collect();
        let rest: Vec<&PodUid> = uids.iter().filter(|uid| !early.contains(uid)).collect();
        for (uid, at) in first(&[0, early.len(), 0], &rest) {
            assert_eq!(whole[&uid], at, "{uid}");
        }
    }

    #[test]
    fn a_full_replica_never_ranks_first() {
        let names = names(2);
        let mut shares = Shares::new(&loads(&names, &[3, 10]), 20, 10);
        let places: Vec<usize> = (0..7)
            .map(|i| shares.assign(&format!("pod-{i}").into(), &names[1], None))
            .collect();
        assert_eq!(places, [1; 7]);
    }

    #[test]
    fn a_difference_of_a_tenth_of_the_mean_or_one_pod_is_even() {
        let names = names(2);
        let is_uneven = |a, b| Shares::new(&loads(&names, &[a, b]), a + b, 1000).is_uneven();
        assert!(!is_uneven(110, 90));
        assert!(is_uneven(111, 89));
        assert!(!is_uneven(3, 1));
        assert!(is_uneven(4, 1));
    }

    #[test]
    fn pods_move_from_the_most_to_the_least_loaded_and_no_more_than_needed() {
        let names = names(3);
        let uids: Vec<Vec<PodUid>> = [30, 12, 0]
            .iter()
            .enumerate()
            .map(|(r, count)| (0..*count).map(|i| format!("{r}-{i}").into()).collect())
            .collect();
        let asked = |me: usize| {
            let movable = names.iter().zip(&uids).map(|(n, u)| (n, u.iter().collect())).collect();
            Shares::new(&loads(&names, &[30, 12, 0]), 42, 100).plan_moves(movable, &names[me])
        };
        assert_eq!(asked(0).len(), 0);
        assert_eq!(asked(1).len(), 2);
        assert_eq!(asked(2).len(), 14);
        assert!(asked(2).iter().all(|uid| uid.as_str().starts_with("0-")));
        assert!(asked(1).iter().all(|uid| !asked(2).contains(uid)));
    }
}
