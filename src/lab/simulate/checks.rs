//! The checks of a whole fleet: who holds which pods, by when replicas stop, how often they call the lock store, and
//! what they leave behind.
//!
//! The checks read the table of claims itself, without the injected faults. They change nothing.

use std::time::Duration;

use super::fleet::{CONTAINERS, Fleet, pod_key};
use super::lease::LEASE;
use super::replica::SimReplica;
use super::rule::{Breach, Rule};
use super::sink::TIMER_SLACK;
use crate::domain::{LockKey, LockRow};

/// How many calls to the lock store a replica may make per second, on average: 1.25 to read the table, 0.2 to renew (1
/// while renewals fail), and as many again to acquire, request, hand over and release.
const CALLS: u64 = 4;

/// How many more calls are allowed at the start.
const START: u64 = 100;

/// Finds a replica whose number of pods differs from the average by more than a tenth and more than one pod.
#[must_use]
pub fn find_imbalance(fleet: &Fleet) -> Option<Breach> {
    let shares = fleet.pods_by_replica();
    let total: usize = shares.values().sum();
    let mean = total as f64 / fleet.replicas.len() as f64;
    let off = |replica: &&SimReplica| {
        let share = shares.get(&replica.name).copied().unwrap_or_default() as f64;
        (share - mean).abs() > (mean / 10.0).max(1.0)
    };
    let replica = fleet.replicas.iter().find(off)?;
    Some(Breach::new(Rule::Even, format!("{} of {shares:?}", replica.name)))
}

/// Finds a pod that no replica holds, although it is not finished. Also finds a row that was left behind by a deleted
/// pod. Valid only after all faults have ended and the replicas have had time to settle.
#[must_use]
pub(super) fn find_unheld_pod(fleet: &Fleet) -> Option<Breach> {
    let (pods, table) = (fleet.sim.pods(), fleet.lock_table());
    for pod in &pods {
        let row = table.rows.get(&pod_key(pod));
        let over = |row: &LockRow| row.finished && !CONTAINERS.iter().any(|container| pod.is_running(container));
        if !row.is_some_and(|row| over(row) || row.expires_in > 0 && row.owner.is_some()) {
            return Some(Breach::new(
                Rule::Held,
                format!("{} {}: {row:?}", pod.name(), pod.uid()),
            ));
        }
    }
    let left = table.rows.iter().find(|(key, row)| {
        let deleted = |uid: &str| pods.iter().all(|pod| pod.uid() != uid);
        !row.finished && key.pod().is_some_and(|uid| deleted(uid.as_str()))
    });
    left.map(|(key, row)| Breach::new(Rule::NothingLeft, format!("{key} has no pod: {row:?}")))
}

/// Finds a deadline that is too late. A deadline must be a margin before its row expires, and a replica must not act on
/// a row of another. Valid only while the store's clock has not jumped.
#[must_use]
pub(super) fn find_late_deadline(fleet: &Fleet) -> Option<Breach> {
    let (table, now) = (fleet.lock_table(), fleet.time());
    fleet
        .ledger
        .deadlines_by_replica()
        .into_iter()
        .find_map(|(uid, name, deadline)| {
            let row = table.rows.get(&LockKey::Pod(uid))?;
            let own = row.owner.as_ref().is_some_and(|owner| owner.as_str() == name);
            let acts = deadline.checked_sub(now)?;
            let lasts = Duration::from_millis(row.expires_in.max(0).unsigned_abs());
            if own {
                let late = acts + LEASE.margin > lasts + TIMER_SLACK;
                late.then(|| {
                    Breach::new(
                        Rule::Margin,
                        format!("{name} acts for {acts:?}, the row lasts {lasts:?}"),
                    )
                })
            } else {
                let owner = row.owner.as_ref().filter(|_| acts > TIMER_SLACK)?;
                Some(Breach::new(
                    Rule::OneHolder,
                    format!("{name} acts for {acts:?}, the row is {owner}'s"),
                ))
            }
        })
}

/// Finds out whether the replicas called the lock store too often. The number of calls must depend on the number of
/// replicas and on changes, not on the number of pods.
#[must_use]
pub(super) fn find_excess_calls(fleet: &Fleet) -> Option<Breach> {
    let (calls, running_time) = fleet.lock_calls();
    let most = CALLS * running_time.as_secs() + START;
    (calls > most).then(|| {
        Breach::new(
            Rule::FewCalls,
            format!("{calls} calls in {running_time:?} of replicas, at most {most}"),
        )
    })
}

/// Finds replicas, streams or claims that are left although all replicas were asked to stop long ago.
#[must_use]
pub(super) fn find_leftovers(fleet: &Fleet) -> Option<Breach> {
    let running: Vec<&str> = fleet.replicas.iter().map(|replica| &*replica.name).collect();
    let streams = fleet.sim.streams();
    let held = |row: &&LockRow| row.owner.is_some() && row.expires_in > 0;
    let rows = fleet.lock_table().rows.values().filter(held).count();
    (!running.is_empty() || !streams.is_empty() || rows > 0).then(|| {
        let what = format!("replicas {running:?}, streams {streams:?}, {rows} rows that are held");
        Breach::new(Rule::NothingLeft, what)
    })
}
