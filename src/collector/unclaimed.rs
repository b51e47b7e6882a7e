//! Pods that no living replica has for long: says so once, with their names. Decides nothing and takes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::{LockKey, LockTable, PodUid};

use super::Collector;

/// Ttls for which a pod may be without a living holder: one in which a dead one's claim lasts or a hold-off does, and
/// one for the grace, the ranks and a slow store.
const TTLS: u32 = 2;

/// Names in a line of the log: there may be thousands, of one cause.
const NAMED: usize = 10;

/// Since when pods have had no living holder, and whether that was said.
#[derive(Debug, Default)]
pub(super) struct Unclaimed(BTreeMap<PodUid, (Duration, bool)>);

impl Collector {
    /// Says which pods have had no living holder for long, once of each.
    pub(super) fn warn_of_unclaimed(&mut self, table: &LockTable, now: Duration) {
        let set = self.deps.pods.borrow().clone();
        let is_unclaimed = |uid: &PodUid| {
            let row = table.rows.get(&LockKey::Pod(uid.clone()));
            let is_alive = |owner| self.members.0.contains(owner);
            let dead = row.is_none_or(|row| !row.finished && !row.owner.as_ref().is_some_and(is_alive));
            // Of one that rests it has been said.
            dead && !self.held.contains_key(uid) && !self.resting.contains_key(uid)
        };
        let (limit, mut unclaimed) = (self.deps.lease.ttl * TTLS, BTreeMap::new());
        let (mut named, mut count) = (Vec::new(), 0_usize);
        for (uid, pod) in set.pods.iter().filter(|(uid, _)| is_unclaimed(uid)) {
            let (since, told) = self.unclaimed.0.get(uid).copied().unwrap_or((now, false));
            let long = now >= since + limit;
            if long && !told {
                count += 1;
                if named.len() < NAMED {
                    named.push(format!("{}/{}", pod.namespace, pod.name));
                }
            }
            unclaimed.insert(uid.clone(), (since, long));
        }
        self.unclaimed.0 = unclaimed;
        if count > 0 {
            tracing::warn!(
                count,
                pods = named.join(" "),
                "no living replica has had these pods for two ttls: their claims are a dead one's and last too long, their rows are locked or cannot be counted on, or no replica may hold more; see podlog locks list, and free a claim with podlog locks release"
            );
        }
    }
}
