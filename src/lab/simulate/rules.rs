//! The rules that are checked by looking at a fleet as a whole: its table of claims, who holds what, what is left over.
//!
//! The checks bypass all faults and change nothing.

use std::time::Duration;

use super::fleet::{Fleet, pod_key};
use super::lease::LEASE;
use super::replica::SimReplica;
use super::rule::{Breach, Rule};
use super::sink::TIMER_SLACK;
use crate::domain::{LockKey, LockRow};

/// Calls to the lock store that a replica may make in a second, on average: 1.25 for the table, 0.2 for renewals (1
/// while they fail), and as much again for claiming, asking, handing over and releasing.
const CALLS: u64 = 4;

/// Calls beyond, for the beginning.
const START: u64 = 100;

/// What is wrong with the shares: every replica that lives is to hold its own, within a tenth or one pod.
#[must_use]
pub fn uneven(fleet: &Fleet) -> Option<Breach> {
    let shares = fleet.shares();
    let total: usize = shares.values().sum();
    let mean = total as f64 / fleet.replicas.len() as f64;
    let off = |replica: &&SimReplica| {
        let share = shares.get(&replica.name).copied().unwrap_or_default() as f64;
        (share - mean).abs() > (mean / 10.0).max(1.0)
    };
    let replica = fleet.replicas.iter().find(off)?;
    Some(Breach::new(Rule::Even, format!("{} of {shares:?}", replica.name)))
}

/// What is wrong with the rows once all has come to rest: each pod is held, or finished if it does not run, and no
/// other row is left.
#[must_use]
pub(super) fn pods_without_holder(fleet: &Fleet) -> Option<Breach> {
    let (pods, table) = (fleet.sim.pods(), fleet.rows());
    for pod in &pods {
        let row = table.rows.get(&pod_key(pod));
        let over = |row: &LockRow| row.finished && !pod.is_running("app");
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

/// What is wrong with the deadlines that replicas have set themselves, while the store's clock has not jumped: each
/// is to be a margin before its row expires, and none may be left when the row is another's.
#[must_use]
pub(super) fn late_deadlines(fleet: &Fleet) -> Option<Breach> {
    let (table, now) = (fleet.rows(), fleet.time());
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

/// Whether the lock store was asked more than the number of replicas explains, whatever the number of pods: once
/// a second for the table, every five seconds for renewals, and for what changes.
#[must_use]
pub(super) fn too_many_calls(fleet: &Fleet) -> Option<Breach> {
    let (calls, lived) = fleet.calls();
    let most = CALLS * lived.as_secs() + START;
    (calls > most).then(|| {
        Breach::new(
            Rule::FewCalls,
            format!("{calls} calls in {lived:?} of replicas, at most {most}"),
        )
    })
}

/// What is left although all replicas were asked to stop long ago.
#[must_use]
pub(super) fn left_over(fleet: &Fleet) -> Option<Breach> {
    let running: Vec<&str> = fleet.replicas.iter().map(|replica| &*replica.name).collect();
    let streams = fleet.sim.streams();
    let held = |row: &&LockRow| row.owner.is_some() && row.expires_in > 0;
    let rows = fleet.rows().rows.values().filter(held).count();
    (!running.is_empty() || !streams.is_empty() || rows > 0).then(|| {
        let what = format!("replicas {running:?}, streams {streams:?}, {rows} rows that are held");
        Breach::new(Rule::NothingLeft, what)
    })
}
