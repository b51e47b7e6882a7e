//! Replicas that come and go while five hundred pods write: what moves is counted claim by claim, around a sink that does
//! not fence, so that a line which two replicas deliver is stored twice.

use std::collections::BTreeSet;
use std::time::Duration;

use podlog::simulate::store::Tally;

use crate::world::World;

const PODS: usize = 500;

/// The claims that each replica has won so far, its own row not counted.
fn won(world: &World) -> usize {
    let pods = |tally: Tally| tally.won.saturating_sub(1);
    world.replicas.iter().map(|replica| pods(replica.store.tally())).sum()
}

/// Lets the pods write once a second until every replica has its share; answers how many seconds that took.
fn until_even(world: &mut World) -> u64 {
    for second in 0..150 {
        if world.holders().len() == PODS && world.uneven().is_none() {
            return second;
        }
        world.busy(1);
    }
    panic!("{:?}", world.shares());
}

#[test]
fn scaling_from_three_to_six_to_two_replicas_moves_only_needed_pods_and_repeats_no_line() {
    let mut world = World::shared(false, 3, PODS);
    until_even(&mut world);
    let before = won(&world);
    for _ in 0..3 {
        world.add();
    }
    world.busy(1);
    let took = until_even(&mut world);
    world.busy(15);
    world.assert_even();
    let moved = won(&world) - before;
    println!("to six: {moved} pods moved, even after {took} s: {:?}", world.shares());
    // Half of the pods must move.
    assert!(
        moved >= PODS / 2 * 9 / 10 && moved * 10 <= PODS / 2 * 12,
        "{moved} moved"
    );

    // As when a Deployment is scaled down: all four are asked to end at the same time.
    let leave: BTreeSet<String> = world.replicas[..4].iter().map(|replica| replica.name.clone()).collect();
    let must = world
        .holders()
        .into_values()
        .filter(|name| leave.contains(name))
        .count();
    let before = won(&world);
    (0..4).for_each(|at| world.ask_to_stop(at));
    for _ in 0..30 {
        world.busy(1);
        if (0..4).all(|at| world.ended(at)) {
            break;
        }
    }
    let moved = won(&world) - before;
    assert!((0..4).all(|at| world.ended(at)), "they do not end");
    (0..4).for_each(|_| drop(world.kill(0)));
    let before = won(&world);
    let took = until_even(&mut world);
    world.busy(15);
    world.assert_even();
    let moved = moved + won(&world) - before;
    println!(
        "to two: {moved} pods moved where {must} must, even after {took} s: {:?}",
        world.shares()
    );
    assert!(moved * 10 <= must * 12, "{moved} moved where {must} must");
    world.pass(10);
    world.assert_exact();
}

#[test]
fn a_rolling_restart_of_all_replicas_delivers_no_line_twice() {
    let mut world = World::shared(false, 3, PODS);
    for _ in 0..3 {
        // One more before one goes, as a Deployment does it; it is ready before it has any pod.
        world.add();
        world.busy(4);
        // It is asked to end in the middle of reading and writing.
        world.write_all();
        world.pass_for(Duration::from_millis(200));
        world.ask_to_stop(0);
        world.write_all();
        world.stop(0);
        world.until(2, "all pods are held", |world| world.holders().len() == PODS);
        world.busy(2);
    }
    until_even(&mut world);
    world.pass(10);
    world.assert_exact();
}
