//! Several whole collectors in virtual time: which replica holds which pod, and that no line is lost, when replicas
//! start, stop, freeze, and ask one another for pods.

use podlog::lab::simulate::find_imbalance;
use std::time::Duration;

use podlog::domain::LockKey;

use crate::harness::Harness;

const SECOND: Duration = Duration::from_secs(1);
const TTL: u32 = 20;

#[test]
fn three_replicas_share_the_pods_evenly_and_deliver_each_line_once() {
    let mut harness = Harness::balanced(false, 3, 60);
    assert_eq!(
        harness.pods_by_replica().into_values().collect::<Vec<_>>(),
        [20, 20, 20]
    );
    harness.write_each_second(10);
    harness.pass(2);
    harness.assert_all_stored_once();
}

#[test]
fn the_pods_of_a_killed_replica_are_taken_over_within_a_ttl_and_two_seconds() {
    let mut harness = Harness::balanced(true, 3, 60);
    harness.write_each_second(7);
    let dead = harness.kill(1);
    harness.write_all();
    let took = harness.wait_until(60, "live replicas hold all pods", |harness| {
        let holders = harness.holders();
        holders.len() == 60 && holders.values().all(|name| *name != dead)
    });
    assert!(took <= (TTL + 2) * SECOND, "{took:?}");
    harness.write_each_second(5);
    harness.pass(5);
    harness.assert_all_stored_once();
    harness.assert_balanced();
}

#[test]
fn the_pods_of_a_stopping_replica_move_within_two_seconds_and_no_line_is_stored_twice() {
    let mut harness = Harness::balanced(false, 3, 60);
    harness.write_each_second(7);
    harness.write_all();
    let name = harness.replicas[0].name.clone();
    harness.ask_to_stop(0);
    let took = harness.wait_until(30, "others hold all pods", |harness| {
        let holders = harness.holders();
        holders.len() == 60 && holders.values().all(|holder| *holder != name)
    });
    assert!(took <= 2 * SECOND, "{took:?}");
    harness.stop(0);
    harness.write_each_second(5);
    harness.pass(5);
    harness.assert_all_stored_once();
    harness.assert_balanced();
}

#[test]
fn a_new_replica_gets_its_share_by_handover_and_no_more_pods_move_than_needed() {
    let mut harness = Harness::balanced(false, 3, 60);
    let before = harness.holders();
    harness.add_replica();
    harness.write_each_second(50);
    harness.pass(5);
    harness.assert_balanced();
    let after = harness.holders();
    let moved = before.iter().filter(|(uid, name)| after[*uid] != **name).count();
    // The new replica's share is 15.
    assert!(moved <= 18, "{moved} moved");
    harness.assert_all_stored_once();
}

#[test]
fn a_holder_frozen_beyond_its_ttl_writes_nothing_when_it_resumes() {
    let mut harness = Harness::balanced(true, 3, 30);
    harness.write_each_second(3);
    harness.write_all();
    // In the middle of reading and writing.
    harness.pass_for(SECOND / 5);
    harness.freeze(0);
    harness.write_each_second(u64::from(TTL) + 10);
    harness.thaw(0);
    harness.write_each_second(40);
    harness.pass(5);
    harness.assert_all_stored_once();
    harness.assert_balanced();
}

#[test]
fn a_short_freeze_loses_and_repeats_no_line() {
    let mut harness = Harness::balanced(false, 3, 30);
    harness.write_each_second(3);
    harness.freeze(0);
    harness.write_each_second(8);
    harness.thaw(0);
    harness.write_each_second(10);
    harness.pass(5);
    harness.assert_all_stored_once();
}

#[test]
fn the_requests_of_a_dead_replica_are_dropped_and_the_pods_stay_collected() {
    let mut harness = Harness::balanced(false, 2, 40);
    for wait in [21, 22, 23] {
        let new_replica = harness.add_replica();
        harness.write_each_second(wait);
        harness.kill(new_replica);
        harness.write_each_second(30);
        harness.pass(5);
        assert_eq!(harness.holders().len(), 40);
        let found = harness.audit();
        assert_eq!((found.lost, found.out_of_order), (0, 0));
    }
    let wanted = harness
        .lock_table()
        .rows
        .into_values()
        .filter(|row| row.requested_by.is_some())
        .count();
    assert_eq!(wanted, 0);
}

#[test]
fn a_holder_that_dies_after_a_request_is_replaced() {
    let mut harness = Harness::balanced(true, 2, 40);
    harness.add_replica();
    let asked = |harness: &Harness| harness.lock_table().rows.values().any(|row| row.requested_by.is_some());
    harness.wait_until(60, "the new replica asks", asked);
    harness.kill(0);
    harness.write_each_second(50);
    harness.pass(5);
    harness.assert_all_stored_once();
    harness.assert_balanced();
}

#[test]
fn a_pod_with_a_stuck_sink_stays_collected_until_it_can_be_handed_over() {
    let mut harness = Harness::balanced(true, 1, 12);
    harness.write_each_second(3);
    harness.replicas[0].sink.set_write_duration(Duration::from_mins(5));
    harness.write_each_second(2);
    harness.add_replica();
    harness.write_each_second(70);
    // A refused replica asks again within a second, so the table hardly ever shows the refusal.
    let refusals = |harness: &Harness| harness.replicas[0].lock_calls("decline_handover");
    harness.wait_until(40, "the requests are refused", |harness| refusals(harness) > 0);
    harness.replicas[0].sink.set_write_duration(Duration::from_millis(10));
    harness.write_each_second(300);
    harness.pass(60);
    harness.assert_all_stored_once();
    harness.assert_balanced();
}

#[test]
fn a_pod_handed_over_to_a_dead_replica_is_free_at_once() {
    let mut harness = Harness::balanced(false, 1, 12);
    harness.write_each_second(3);
    harness.add_replica();
    harness.write_each_second(20);
    // Ten seconds are longer than a dead replica's own row lasts after this.
    harness.replicas[0].sink.set_write_duration(Duration::from_secs(28));
    let asked = |harness: &Harness| harness.lock_table().rows.values().any(|row| row.requested_by.is_some());
    harness.write_all();
    harness.pass_for(SECOND / 2);
    harness.wait_until(10, "the new replica asks", asked);
    harness.pass(2);
    let dead = harness.kill(1);
    harness.replicas[0].sink.set_write_duration(Duration::from_millis(10));
    harness.pass(27);
    let to_the_dead = harness.holders().values().filter(|name| **name == dead).count();
    assert_eq!(to_the_dead, 0);
    harness.write_each_second(5);
    harness.pass(5);
    harness.assert_all_stored_once();
}

#[test]
fn five_hundred_pods_at_once_are_all_collected() {
    let mut harness = Harness::balanced(false, 3, 0);
    let pods: Vec<_> = (0..500).map(|_| harness.create_pod()).collect();
    for pod in &pods {
        harness.write(pod);
    }
    let took = harness.wait_until(20, "all are held", |harness| harness.holders().len() == 500);
    assert!(took <= 5 * SECOND, "{took:?}");
    harness.pass(20);
    harness.assert_all_stored_once();
    harness.assert_balanced();
}

#[test]
fn three_replicas_that_start_at_once_acquire_each_of_two_thousand_pods_once() {
    let mut harness = Harness::new(false);
    (0..2000).for_each(|_| drop(harness.create_pod()));
    for _ in 0..3 {
        harness.add_replica();
    }
    let took = harness.wait_until(60, "all are held", |harness| harness.holders().len() == 2000);
    let tallies = harness.replicas.iter().map(|replica| replica.store.tally());
    let (requested, acquired) = tallies.fold((0, 0), |(requested, acquired), tally| {
        (requested + tally.requested, acquired + tally.acquired)
    });
    println!("after {took:?}; {requested} rows were requested and {acquired} acquired");
    // A row for each replica comes on top.
    assert_eq!(acquired, 2003);
    assert!(
        (requested - acquired) * 20 < acquired,
        "{requested} requested, {acquired} acquired"
    );
    // The first replica acquired most pods; the others request their shares.
    let even = harness.wait_until(120, "the pods are shared evenly", |harness| {
        find_imbalance(harness).is_none()
    });
    println!("even after {even:?} more");
    harness.write_all();
    harness.pass(10);
    harness.assert_all_stored_once();
}

#[test]
fn no_replica_holds_more_pods_than_its_limit() {
    let mut harness = Harness::new(false);
    harness.max_pods = 8;
    harness.add_replica();
    harness.add_replica();
    (0..20).for_each(|_| drop(harness.create_pod()));
    harness.write_each_second(30);
    assert!(
        harness.pods_by_replica().into_values().all(|share| share == 8),
        "{:?}",
        harness.pods_by_replica()
    );
    harness.add_replica();
    harness.write_each_second(40);
    harness.pass(5);
    assert_eq!(harness.holders().len(), 20);
    harness.assert_all_stored_once();
}

#[test]
fn store_calls_grow_only_by_one_renewal_per_two_hundred_pods() {
    const CALLS: [&str; 7] = [
        "acquire",
        "renew",
        "release",
        "request_handover",
        "decline_handover",
        "delete_rows",
        "table",
    ];
    // In a minute of rest, in which every pod writes.
    let calls = |pods: usize| {
        let mut harness = Harness::balanced(false, 1, pods);
        let counts = |harness: &Harness| CALLS.map(|call| harness.replicas[0].lock_calls(call));
        let before = counts(&harness);
        harness.write_each_second(60);
        let after = counts(&harness);
        let passed: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let (renew, table) = (passed[1], passed[6]);
        assert_eq!(passed.iter().sum::<u64>(), renew + table, "{passed:?}");
        (renew, table)
    };
    // The replica's own row is one of them.
    let (few, reads) = calls(3);
    assert!((11..=13).contains(&few) && (50..=75).contains(&reads), "{few} {reads}");
    let (many, reads) = calls(199);
    assert_eq!(many, few);
    assert!((50..=75).contains(&reads), "{reads}");
    let (more, reads) = calls(399);
    assert_eq!(more, 2 * few);
    assert!((50..=75).contains(&reads), "{reads}");
}

#[test]
fn dead_replicas_leave_no_rows() {
    let mut harness = Harness::balanced(false, 3, 3);
    harness.kill(0);
    harness.pass(100);
    let replicas = harness
        .lock_table()
        .rows
        .into_keys()
        .filter(|key| matches!(key, LockKey::Replica(_)));
    assert_eq!(replicas.count(), 2);
    assert_eq!(harness.pods_by_replica().values().sum::<usize>(), 3);
}
