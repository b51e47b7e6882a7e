//! Several whole collectors in virtual time: who holds which pod, and what becomes of the lines, when
//! replicas come, go, freeze, and ask one another for pods.

use std::time::Duration;

use podlog::domain::LockKey;

use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const TTL: u32 = 20;

#[test]
fn three_replicas_share_the_pods_evenly_and_deliver_each_line_once() {
    let mut world = World::shared(false, 3, 60);
    assert_eq!(world.shares().into_values().collect::<Vec<_>>(), [20, 20, 20]);
    world.busy(10);
    world.pass(2);
    world.assert_exact();
}

#[test]
fn the_pods_of_a_killed_replica_are_taken_over_within_a_ttl_and_two_seconds() {
    let mut world = World::shared(true, 3, 60);
    world.busy(7);
    let dead = world.kill(1);
    world.write_all();
    let took = world.until(60, "all pods are held by the living", |world| {
        let holders = world.holders();
        holders.len() == 60 && holders.values().all(|name| *name != dead)
    });
    assert!(took <= (TTL + 2) * SECOND, "{took:?}");
    world.busy(5);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn the_pods_of_a_stopping_replica_move_within_two_seconds_and_no_line_is_stored_twice() {
    let mut world = World::shared(false, 3, 60);
    world.busy(7);
    world.write_all();
    let name = world.replicas[0].name.clone();
    world.ask_to_stop(0);
    let took = world.until(30, "others hold all pods", |world| {
        let holders = world.holders();
        holders.len() == 60 && holders.values().all(|holder| *holder != name)
    });
    assert!(took <= 2 * SECOND, "{took:?}");
    world.stop(0);
    world.busy(5);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_new_replica_gets_its_share_by_handover_and_no_more_pods_move_than_needed() {
    let mut world = World::shared(false, 3, 60);
    let before = world.holders();
    world.add();
    world.busy(50);
    world.pass(5);
    world.assert_even();
    let after = world.holders();
    let moved = before.iter().filter(|(uid, name)| after[*uid] != **name).count();
    // The newcomer's share is 15.
    assert!(moved <= 18, "{moved} moved");
    world.assert_exact();
}

#[test]
fn a_holder_frozen_beyond_its_ttl_writes_nothing_when_it_resumes() {
    let mut world = World::shared(true, 3, 30);
    world.busy(3);
    world.write_all();
    // In the middle of reading and writing.
    world.pass_for(SECOND / 5);
    world.freeze(0);
    world.busy(u64::from(TTL) + 10);
    world.thaw(0);
    world.busy(40);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_short_freeze_loses_and_repeats_no_line() {
    let mut world = World::shared(false, 3, 30);
    world.busy(3);
    world.freeze(0);
    world.busy(8);
    world.thaw(0);
    world.busy(10);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn the_requests_of_a_dead_replica_are_dropped_and_the_pods_stay_collected() {
    let mut world = World::shared(false, 2, 40);
    for wait in [21, 22, 23] {
        let newcomer = world.add();
        world.busy(wait);
        world.kill(newcomer);
        world.busy(30);
        world.pass(5);
        assert_eq!(world.holders().len(), 40);
        let found = world.reckon();
        assert_eq!((found.lost, found.disordered), (0, 0));
    }
    let wanted = world
        .rows()
        .rows
        .into_values()
        .filter(|row| row.wanted_by.is_some())
        .count();
    assert_eq!(wanted, 0);
}

#[test]
fn a_holder_that_dies_after_a_request_is_replaced() {
    let mut world = World::shared(true, 2, 40);
    world.add();
    let asked = |world: &World| world.rows().rows.values().any(|row| row.wanted_by.is_some());
    world.until(60, "the newcomer asks", asked);
    world.kill(0);
    world.busy(50);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_pod_with_a_stuck_sink_stays_collected_until_it_can_be_handed_over() {
    let mut world = World::shared(true, 1, 12);
    world.busy(3);
    world.replicas[0].sink.take(Duration::from_mins(5));
    world.busy(2);
    world.add();
    world.busy(70);
    // Whoever was refused asks again within a second, so the table hardly shows it.
    let refusals = |world: &World| world.replicas[0].statements("refuse");
    world.until(40, "requests in vain are refused", |world| refusals(world) > 0);
    world.replicas[0].sink.take(Duration::from_millis(10));
    world.busy(300);
    world.pass(60);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_pod_handed_over_to_a_dead_replica_is_free_at_once() {
    let mut world = World::shared(false, 1, 12);
    world.busy(3);
    world.add();
    world.busy(20);
    // Ten seconds are longer than a dead replica's own row lasts after this.
    world.replicas[0].sink.take(Duration::from_secs(28));
    let asked = |world: &World| world.rows().rows.values().any(|row| row.wanted_by.is_some());
    world.write_all();
    world.pass_for(SECOND / 2);
    world.until(10, "the newcomer asks", asked);
    world.pass(2);
    let dead = world.kill(1);
    world.replicas[0].sink.take(Duration::from_millis(10));
    world.pass(27);
    let to_the_dead = world.holders().values().filter(|name| **name == dead).count();
    assert_eq!(to_the_dead, 0);
    world.busy(5);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn five_hundred_pods_at_once_are_all_collected() {
    let mut world = World::shared(false, 3, 0);
    let pods: Vec<_> = (0..500).map(|_| world.pod()).collect();
    for pod in &pods {
        world.write(pod);
    }
    let took = world.until(20, "all are held", |world| world.holders().len() == 500);
    assert!(took <= 5 * SECOND, "{took:?}");
    world.pass(20);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn three_replicas_that_start_at_once_claim_each_of_two_thousand_pods_once() {
    let mut world = World::new(false);
    (0..2000).for_each(|_| drop(world.pod()));
    for _ in 0..3 {
        world.add();
    }
    let took = world.until(60, "all are held", |world| world.holders().len() == 2000);
    let tallies = world.replicas.iter().map(|replica| replica.store.tally());
    let (wanted, won) = tallies.fold((0, 0), |(wanted, won), tally| (wanted + tally.wanted, won + tally.won));
    println!("after {took:?}; {wanted} rows were wanted and {won} won");
    // A row for each replica comes on top.
    assert_eq!(won, 2003);
    assert!((wanted - won) * 20 < won, "{wanted} wanted, {won} won");
    // Who came first took most; the others ask for their shares.
    let even = world.until(120, "the pods are shared evenly", |world| world.uneven().is_none());
    println!("even after {even:?} more");
    world.write_all();
    world.pass(10);
    world.assert_exact();
}

#[test]
fn no_replica_holds_more_pods_than_its_limit() {
    let mut world = World::new(false);
    world.max_pods = 8;
    world.add();
    world.add();
    (0..20).for_each(|_| drop(world.pod()));
    world.busy(30);
    assert!(
        world.shares().into_values().all(|share| share == 8),
        "{:?}",
        world.shares()
    );
    world.add();
    world.busy(40);
    world.pass(5);
    assert_eq!(world.holders().len(), 20);
    world.assert_exact();
}

#[test]
fn store_calls_grow_only_by_one_renewal_per_two_hundred_pods() {
    const CALLS: [&str; 7] = ["acquire", "renew", "release", "ask", "refuse", "forget", "table"];
    // In a minute of rest, in which every pod writes.
    let calls = |pods: usize| {
        let mut world = World::shared(false, 1, pods);
        let counts = |world: &World| CALLS.map(|call| world.replicas[0].statements(call));
        let before = counts(&world);
        world.busy(60);
        let after = counts(&world);
        let passed: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let (renew, table) = (passed[1], passed[6]);
        assert_eq!(passed.iter().sum::<u64>(), renew + table, "{passed:?}");
        (renew, table)
    };
    // The replica's own row is one of them.
    let (few, looks) = calls(3);
    assert!((11..=13).contains(&few) && (50..=75).contains(&looks), "{few} {looks}");
    let (many, looks) = calls(199);
    assert_eq!(many, few);
    assert!((50..=75).contains(&looks), "{looks}");
    let (more, looks) = calls(399);
    assert_eq!(more, 2 * few);
    assert!((50..=75).contains(&looks), "{looks}");
}

#[test]
fn dead_replicas_leave_no_rows() {
    let mut world = World::shared(false, 3, 3);
    world.kill(0);
    world.pass(100);
    let replicas = world
        .rows()
        .rows
        .into_keys()
        .filter(|key| matches!(key, LockKey::Replica(_)));
    assert_eq!(replicas.count(), 2);
    assert_eq!(world.shares().values().sum::<usize>(), 3);
}
