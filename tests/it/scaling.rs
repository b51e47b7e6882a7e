//! Replicas start and stop while five hundred pods write. Moved claims are counted one by one. The sink does not fence,
//! so a line that two replicas deliver is stored twice.

use podlog::lab::simulate::find_imbalance;
use std::collections::BTreeSet;
use std::time::Duration;

use podlog::lab::simulate::store::StoreTally;

use crate::harness::Harness;

const PODS: usize = 500;

/// The claims that each replica has acquired so far, its own row not counted.
fn acquired(harness: &Harness) -> usize {
    let pods = |tally: StoreTally| tally.acquired.saturating_sub(1);
    harness.replicas.iter().map(|replica| pods(replica.store.tally())).sum()
}

/// Lets the pods write once a second until every replica has its share; returns how many seconds that took.
fn until_even(harness: &mut Harness) -> u64 {
    for second in 0..150 {
        if harness.holders().len() == PODS && find_imbalance(harness).is_none() {
            return second;
        }
        harness.write_each_second(1);
    }
    panic!("{:?}", harness.pods_by_replica());
}

#[test]
fn scaling_from_three_to_six_to_two_replicas_moves_only_needed_pods_and_repeats_no_line() {
    let mut harness = Harness::balanced(false, 3, PODS);
    until_even(&mut harness);
    let before = acquired(&harness);
    for _ in 0..3 {
        harness.add_replica();
    }
    harness.write_each_second(1);
    let took = until_even(&mut harness);
    harness.write_each_second(15);
    harness.assert_balanced();
    let moved = acquired(&harness) - before;
    println!(
        "to six: {moved} pods moved, even after {took} s: {:?}",
        harness.pods_by_replica()
    );
    // Half of the pods must move.
    assert!(
        moved >= PODS / 2 * 9 / 10 && moved * 10 <= PODS / 2 * 12,
        "{moved} moved"
    );

    // As when a Deployment is scaled down: all four are asked to end at the same time.
    let leave: BTreeSet<String> = harness.replicas[..4]
        .iter()
        .map(|replica| replica.name.clone())
        .collect();
    let must = harness
        .holders()
        .into_values()
        .filter(|name| leave.contains(name))
        .count();
    let before = acquired(&harness);
    (0..4).for_each(|at| harness.ask_to_stop(at));
    for _ in 0..30 {
        harness.write_each_second(1);
        if (0..4).all(|at| harness.has_ended(at)) {
            break;
        }
    }
    let moved = acquired(&harness) - before;
    assert!((0..4).all(|at| harness.has_ended(at)), "they do not end");
    (0..4).for_each(|_| drop(harness.kill(0)));
    let before = acquired(&harness);
    let took = until_even(&mut harness);
    harness.write_each_second(15);
    harness.assert_balanced();
    let moved = moved + acquired(&harness) - before;
    println!(
        "to two: {moved} pods moved where {must} must, even after {took} s: {:?}",
        harness.pods_by_replica()
    );
    assert!(moved * 10 <= must * 12, "{moved} moved where {must} must");
    harness.pass(10);
    harness.assert_all_stored_once();
}

#[test]
fn a_rolling_restart_of_all_replicas_delivers_no_line_twice() {
    let mut harness = Harness::balanced(false, 3, PODS);
    for _ in 0..3 {
        // One more before one goes, as a Deployment does it; it is ready before it has any pod.
        harness.add_replica();
        harness.write_each_second(4);
        // It is asked to end in the middle of reading and writing.
        harness.write_all();
        harness.pass_for(Duration::from_millis(200));
        harness.ask_to_stop(0);
        harness.write_all();
        harness.stop(0);
        harness.wait_until(2, "all pods are held", |harness| harness.holders().len() == PODS);
        harness.write_each_second(2);
    }
    until_even(&mut harness);
    harness.pass(10);
    harness.assert_all_stored_once();
}
