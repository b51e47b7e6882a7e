//! The protocol as it is: nothing that can happen in these worlds violates anything.
//!
//! Pods share nothing but clocks and the hold-off, so that what is late, strays or jumps is gone through at greatest
//! length with one pod; two pods show that one does not disturb the other.

use std::collections::BTreeSet;

use crate::search::explore;
use crate::world::World;

/// Two that are not told from slewing, one by which everything expires, one back.
const JUMPS: &[i8] = &[1, 2, 8, -2];

/// Explores a world in which nothing may go wrong, and prints its size. Answers which kinds of step occurred.
fn hold(name: &str, world: &World, alone: bool) -> BTreeSet<String> {
    let found = explore(world, alone);
    println!(
        "{name}: {} states, {} transitions, depth {}, {:.1} s",
        found.states, found.transitions, found.depth, found.seconds
    );
    if let Some((why, history)) = found.violation {
        for (step, state) in &history {
            println!("    {step:?}  {state:?}");
        }
        panic!("{name}: {why}");
    }
    found.kinds
}

#[test]
fn of_three_replicas_and_two_pods_never_do_two_act_on_one_pod() {
    let world = World {
        strays: false,
        ..World::of(3, 2, 1)
    };
    hold("3 replicas, 2 pods, 1 late", &world, false);
}

#[test]
fn of_three_replicas_never_do_two_act_whatever_strays() {
    let world = World {
        ends: true,
        ..World::of(3, 1, 2)
    };
    let kinds = hold("3 replicas, 1 pod, 2 late and astray", &world, false);
    let expected = [
        "Claims Late",
        "Claims AnswerLost",
        "GivenUp ClaimWon",
        "Arrives ClaimStray",
        "Renews AnswerLost",
        "Answers RenewHeld",
        "Answers RenewLost",
        "Arrives RenewStray",
        "HandsOver Answered",
        "Arrives Handed",
        "Refuses",
        "Frees Lost",
        "Arrives Free",
        "Finishes Answered",
        "Arrives Finished",
    ];
    for kind in expected {
        assert!(kinds.contains(kind), "{kind} never occurs: {kinds:?}");
    }
}

#[test]
fn of_three_replicas_never_do_two_act_however_the_databases_clock_jumps() {
    let jumps = World {
        jumps: JUMPS,
        strays: false,
        ..World::of(3, 1, 0)
    };
    let kinds = hold("3 replicas, 1 pod, a jump", &jumps, false);
    assert!(kinds.contains("Jump") && kinds.contains("HoldsOff"), "{kinds:?}");
    let world = World {
        replicas: 2,
        late: 1,
        ..jumps
    };
    hold("2 replicas, 1 pod, a jump, 1 late", &world, false);
}

#[test]
fn a_sink_takes_writes_from_the_newest_claim_only_however_late_they_come() {
    let world = World {
        writes: true,
        ..World::of(2, 1, 2)
    };
    let kinds = hold("2 replicas, 1 pod, late writes", &world, false);
    assert!(kinds.contains("Arrives Write"), "{kinds:?}");
}

#[test]
fn whatever_has_happened_a_replica_that_is_left_alone_gets_the_pod() {
    hold("left alone, 2 late and astray", &World::of(2, 1, 2), true);
    let world = World {
        jumps: JUMPS,
        strays: false,
        hands: false,
        ..World::of(2, 1, 0)
    };
    hold("left alone, a jump", &world, true);
}
