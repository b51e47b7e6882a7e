//! Whole collectors in virtual time whose lock store is unavailable, silent or slow, loses answers, or has a wrong
//! clock.

use std::sync::Arc;
use std::time::Duration;

use podlog::clock::Clock;
use podlog::domain::claim::Lease;
use podlog::domain::{AcquireRequest, Deadline, LockKey, PodRef};
use podlog::grant::Grant;
use podlog::lab::memory::MemoryTable;
use podlog::locks::{Holder, LockStore};
use podlog::metrics::Metrics;
use podlog::renewer::renewer;
use podlog::status::health::Health;
use tokio::task::JoinSet;

use crate::harness::Harness;
use podlog::lab::simulate::LEASE;
use podlog::lab::simulate::repeats::Repeats;
use podlog::lab::simulate::rule::Breaches;
use podlog::lab::simulate::store::{FaultyLocks, Fences, StoreControl, StoreFaults};

/// Pods with the replicas that have them.
type HolderByPod = std::collections::BTreeMap<String, String>;

const SECOND: Duration = Duration::from_secs(1);

fn cut() -> StoreFaults {
    StoreFaults {
        refused: true,
        ..StoreFaults::default()
    }
}

fn silent() -> StoreFaults {
    StoreFaults {
        silent: true,
        ..StoreFaults::default()
    }
}

fn slow(delay: Duration) -> StoreFaults {
    StoreFaults {
        delay,
        ..StoreFaults::default()
    }
}

#[test]
fn a_replica_cut_off_from_the_store_stops_before_its_pods_are_taken() {
    for faults in [cut(), silent()] {
        let mut harness = Harness::balanced(false, 3, 30);
        harness.write_each_second(7);
        harness.replicas[0].store.set(faults);
        harness.write_each_second(60);
        let name = harness.replicas[0].name.clone();
        assert_eq!(harness.pods_by_replica().get(&name), None);
        harness.replicas[0].store.set(StoreFaults::default());
        harness.write_each_second(60);
        harness.pass(5);
        let found = harness.audit();
        assert_eq!((found.lost, found.out_of_order, found.gaps), (0, 0, 0), "{found:?}");
        harness.assert_balanced();
    }
}

#[test]
fn a_single_replica_continues_from_its_own_positions_when_the_store_returns() {
    for faults in [cut(), silent()] {
        let mut harness = Harness::balanced(false, 1, 20);
        harness.write_each_second(7);
        harness.replicas[0].store.set(faults);
        harness.write_each_second(40);
        let stored = harness.audit().stored;
        harness.write_each_second(5);
        assert_eq!(harness.audit().stored, stored, "it continues after its deadline");
        harness.replicas[0].store.set(StoreFaults::default());
        let took = harness.wait_until(60, "the pods are held again", |harness| harness.holders().len() == 20);
        assert!(took <= 6 * SECOND, "{took:?}");
        harness.write_each_second(5);
        harness.pass(5);
        harness.assert_all_stored_once();
    }
}

#[test]
fn all_replicas_stop_while_the_store_is_unavailable_and_nothing_is_lost() {
    let mut harness = Harness::balanced(true, 3, 30);
    harness.write_each_second(7);
    for replica in &harness.replicas {
        replica.store.set(silent());
    }
    harness.write_each_second(20);
    let stored = harness.audit().stored;
    harness.write_each_second(20);
    assert_eq!(harness.audit().stored, stored);
    harness
        .replicas
        .iter()
        .for_each(|replica| replica.store.set(StoreFaults::default()));
    harness.wait_until(20, "all pods are held", |harness| harness.holders().len() == 30);
    harness.write_each_second(20);
    harness.pass(5);
    harness.assert_all_stored_once();
}

#[test]
fn a_lost_answer_after_a_successful_write_changes_nothing() {
    for kind in [
        "acquire",
        "renew",
        "release",
        "table",
        "request_handover",
        "delete_rows",
    ] {
        let mut harness = Harness::balanced(true, 2, 20);
        let lost = StoreFaults {
            lost: [(kind, 2)].into(),
            ..StoreFaults::default()
        };
        harness.write_each_second(3);
        harness.replicas[0].store.set(lost.clone());
        harness.replicas[1].store.set(lost.clone());
        (0..4).for_each(|_| drop(harness.create_pod()));
        harness.write_each_second(8);
        let third = harness.add_replica();
        harness.replicas[third].store.set(lost);
        harness.write_each_second(60);
        harness.stop(0);
        harness.write_each_second(30);
        harness.pass(5);
        harness.assert_all_stored_once();
        harness.assert_balanced();
    }
}

#[test]
fn a_store_that_answers_in_almost_three_seconds_costs_no_claim() {
    let mut harness = Harness::balanced(false, 3, 30);
    let slowly = slow(Duration::from_millis(2900));
    harness
        .replicas
        .iter()
        .for_each(|replica| replica.store.set(slowly.clone()));
    harness.write_each_second(60);
    (0..6).for_each(|_| drop(harness.create_pod()));
    let took = harness.wait_until(60, "new pods are claimed", |harness| harness.holders().len() == 36);
    assert!(took <= 25 * SECOND, "{took:?}");
    harness.write_each_second(20);
    harness.pass(5);
    harness.assert_all_stored_once();
    assert!(harness.replicas.iter().all(|replica| replica.health.stuck().is_empty()));
}

#[test]
fn a_force_released_row_gets_a_new_holder_after_the_old_one_has_stopped() {
    // This sink does not fence: nothing but time keeps two from writing.
    let mut harness = Harness::balanced(false, 3, 12);
    harness.write_each_second(5);
    let pods = harness.sim.pods();
    for pod in &pods {
        let key = Harness::key(pod);
        assert!(harness.query_locks(|locks| async move { locks.force_release(&key).await.unwrap() }));
    }
    let released = |harness: &Harness| {
        harness
            .lock_table()
            .rows
            .values()
            .filter(|row| row.is_force_released())
            .count()
    };
    assert_eq!(released(&harness), 12);
    harness.write_each_second(25);
    assert_eq!(released(&harness), 0);
    harness.write_each_second(5);
    harness.pass(5);
    assert_eq!(harness.holders().len(), 12);
    let found = harness.audit();
    // What was written after the last checkpoint comes once more.
    assert_eq!((found.lost, found.out_of_order, found.gaps), (0, 0, 0), "{found:?}");
    assert!(found.duplicated <= 12 * 6, "{found:?}");
}

#[test]
fn a_stopping_replica_does_not_wait_for_an_answer_it_no_longer_needs() {
    for tenths in 0..30 {
        let mut harness = Harness::balanced(false, 1, 0);
        harness.replicas[0].store.set(silent());
        harness.pass_for(SECOND * tenths / 10);
        // A renewal that is under way, and giving back the replica's own row: three seconds each.
        let took = harness.stop(0);
        assert!(took <= 13 * SECOND / 2, "{took:?} after {tenths}");
    }
}

/// Lets the database's clock jump by an hour where three replicas share thirty pods, and returns who held them before,
/// and at the end of each of the 70 s after it.
fn jump(harness: &mut Harness, millis: i64) -> (HolderByPod, Vec<HolderByPod>) {
    harness.write_each_second(7);
    let before = harness.holders();
    assert_eq!(before.len(), 30);
    harness.table.skew(millis);
    let mut after = Vec::new();
    for _ in 0..70 {
        harness.write_each_second(1);
        after.push(harness.holders());
    }
    harness.pass(5);
    let holdoffs = harness.replicas.iter().map(|replica| replica.metrics.holdoffs.get());
    assert_eq!(holdoffs.collect::<Vec<_>>(), [1, 1, 1]);
    (before, after)
}

/// Pods that a replica holds now and did not hold before.
fn moved(before: &HolderByPod, after: &HolderByPod) -> usize {
    after.iter().filter(|(pod, holder)| before[*pod] != **holder).count()
}

#[test]
fn a_database_clock_that_jumps_back_moves_no_pod_of_a_live_replica() {
    let mut harness = Harness::balanced(false, 3, 30);
    let (before, after) = jump(&mut harness, -3_600_000);
    assert!(after.iter().all(|after| *after == before), "{before:?}\n{after:?}");
    harness.assert_all_stored_once();
}

#[test]
fn a_database_clock_that_jumps_forward_ends_all_claims_and_none_is_taken_for_one_ttl() {
    for fencing in [true, false] {
        let mut harness = Harness::balanced(fencing, 3, 30);
        let (before, after) = jump(&mut harness, 3_600_000);
        // Nobody hears of the jump before it, and everybody waits for one ttl after hearing of it.
        let ttl = usize::try_from(LEASE.ttl.as_secs()).unwrap();
        let moves: Vec<usize> = after.iter().map(|after| moved(&before, after)).collect();
        assert_eq!(moves[..ttl - 1], vec![0; ttl - 1]);
        // One poll to hear of it, a second for each rank, and one to claim.
        let all_again = after.iter().position(|after| after.len() == 30).unwrap();
        assert!(all_again <= ttl + 14, "held again after {} s", all_again + 1);
        assert!(after[all_again..].iter().all(|after| after.len() == 30), "{after:?}");
        harness.assert_balanced();
        if fencing {
            harness.assert_all_stored_once();
            continue;
        }
        let found = harness.audit();
        assert_eq!((found.lost, found.out_of_order, found.gaps), (0, 0, 0), "{found:?}");
        // Of a pod that moved, what was written after the last checkpoint comes once more.
        let most = *moves.iter().max().unwrap();
        assert!(found.duplicated <= most * 6, "{found:?}, {most} moved");
    }
}

#[test]
fn many_claims_that_end_while_the_store_is_silent_do_not_block_the_loop() {
    let mut harness = Harness::balanced(false, 1, 60);
    harness.write_each_second(3);
    harness.replicas[0].store.set(silent());
    for _ in 0..60 {
        harness.pass(1);
        assert_eq!(harness.replicas[0].health.stuck(), []);
    }
    let took = harness.stop(0);
    assert!(took <= 20 * SECOND, "{took:?}");
}

/// A claim that a renewer with these times renews, and the handle on the faults of its store.
async fn kept(lease: Lease, clock: Clock, tasks: &mut JoinSet<()>) -> (Grant, StoreControl) {
    let inner = MemoryTable::new(clock).holder(Holder {
        replica: "r".into(),
        cluster: "test".into(),
        ttl: lease.ttl,
        takeover_grace: lease.takeover_grace,
    });
    let (key, pod_ref) = (LockKey::Pod("u".into()), PodRef::default());
    let claim = inner
        .acquire(&[AcquireRequest { key, pod_ref }])
        .await
        .unwrap()
        .remove(0);
    let grant = Grant::new(claim.fence, Deadline::new(lease.deadline(clock.now())), clock);
    let control = StoreControl::default();
    let flaky = FaultyLocks {
        inner,
        control: control.clone(),
        fences: Fences::default(),
        calls: Arc::default(),
        repeats: Repeats::default(),
        breaches: Breaches::default(),
    };
    let heartbeat = Health::new(clock).register("renewal", lease.ttl);
    let (renewer, driver) = renewer(lease, clock, Metrics::default(), heartbeat);
    renewer.add(claim, grant.clone(), None);
    tasks.spawn(async move {
        // The driver goes on for as long as there is a handle.
        let _renewer = renewer;
        driver.run(Arc::new(flaky)).await;
    });
    (grant, control)
}

#[tokio::test(start_paused = true)]
async fn a_renewal_answered_after_the_deadline_revives_no_claim() {
    let (clock, mut tasks) = (Clock::tokio(), JoinSet::new());
    let (grant, control) = kept(LEASE, clock, &mut tasks).await;
    control.set(cut());
    tokio::time::sleep(Duration::from_millis(12_500)).await;
    // Sent at 13 s, answered at 15.9 s, good until 15 s.
    control.set(slow(Duration::from_millis(2900)));
    tokio::time::sleep(4 * SECOND).await;
    assert!(clock.now() > grant.deadline.get(), "revived");
    tokio::time::sleep(20 * SECOND).await;
    assert!(clock.now() > grant.deadline.get(), "revived");
}

#[tokio::test(start_paused = true)]
async fn at_the_shortest_ttl_one_lost_renewal_between_two_slow_ones_costs_no_claim() {
    // The shortest that are taken, and one that is refused for it; see `config/checks.rs`.
    for (ttl, renew, survives) in [(16, 5, true), (14, 1, true), (10, 1, false)] {
        let (clock, mut tasks) = (Clock::tokio(), JoinSet::new());
        let lease = Lease {
            ttl: ttl * SECOND,
            renew: renew * SECOND,
            ..LEASE
        };
        let (grant, control) = kept(lease, clock, &mut tasks).await;
        let slowly = slow(Duration::from_millis(2900));
        control.set(slowly.clone());
        // Sent and answered; the next is sent one interval after it, or as soon as it has been answered.
        let answered = lease.renew + Duration::from_millis(2800);
        tokio::time::sleep(answered).await;
        control.set(silent());
        let sent = Duration::from_millis(100).max(lease.renew.saturating_sub(answered - lease.renew));
        tokio::time::sleep(sent + SECOND).await;
        control.set(slowly);
        let mut lost = false;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            lost |= clock.now() >= grant.deadline.get();
        }
        assert_eq!(!lost, survives, "ttl {ttl} s, renew {renew} s");
    }
}
