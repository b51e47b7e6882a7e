//! The protocol as it is: nothing that can happen in these worlds violates anything.
//!
//! Pods share nothing but clocks and the hold-off, so that what is late, strays or jumps is gone through at greatest
//! length with one pod; two pods show that one does not disturb the other.

use std::collections::BTreeSet;

use crate::protocol::explore;
use crate::world::World;

/// Two that are not told from slewing, one by which everything expires, one back.
const JUMPS: &[i8] = &[1, 2, 8, -2];

/// Explores a world in which nothing may go wrong, and prints its size. Answers which kinds of step were possible.
fn prove(name: &str, world: &World) -> BTreeSet<String> {
    let found = explore(world);
    println!("{name}: {}", found.size);
    if let Some((property, history)) = found.violation {
        for (step, state) in &history {
            println!("    {step:?}  {state:?}");
        }
        panic!("{name}: not so: {property}");
    }
    found.kinds
}

/// Three replicas while the clock jumps. Statements and answers come at once or are lost.
const fn jumping(pods: usize, jump_by: &'static [i8]) -> World {
    World {
        jump_by,
        strays: false,
        ..World::of(3, pods, 0)
    }
}

#[test]
fn no_two_of_three_replicas_act_on_the_same_of_two_pods() {
    let world = World {
        strays: false,
        ..World::of(3, 2, 1)
    };
    prove("3 replicas, 2 pods, 1 late", &world);
}

#[test]
fn no_two_replicas_act_on_one_of_two_pods_when_the_database_clock_jumps_beyond_every_expiry() {
    let kinds = prove("3 replicas, 2 pods, a jump by 8", &jumping(2, &[8]));
    let expected = [
        "Jump",
        "HoldsOff",
        "Claims AnswerLost",
        "Renews AnswerLost",
        "HandsOver Answered",
        "Frees Lost",
    ];
    for kind in expected {
        assert!(kinds.contains(kind), "{kind} never occurs: {kinds:?}");
    }
}

#[test]
#[ignore = "a quarter of an hour and 6 GB: cargo test --release --test model -- --ignored --nocapture"]
fn no_two_replicas_act_on_one_of_two_pods_however_the_database_clock_jumps() {
    prove("3 replicas, 2 pods, a jump", &jumping(2, JUMPS));
    let twice = World {
        jumps: 2,
        ..jumping(2, &[8])
    };
    prove("3 replicas, 2 pods, two jumps by 8", &twice);
}

#[test]
fn no_two_of_three_replicas_act_when_statements_are_late_or_lost() {
    let world = World {
        ends: true,
        ..World::of(3, 1, 2)
    };
    let kinds = prove("3 replicas, 1 pod, 2 late and astray", &world);
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
fn no_two_of_three_replicas_act_however_the_database_clock_jumps() {
    let kinds = prove("3 replicas, 1 pod, a jump", &jumping(1, JUMPS));
    assert!(kinds.contains("Jump") && kinds.contains("HoldsOff"), "{kinds:?}");
    let twice = World {
        jumps: 2,
        ..jumping(1, &[8])
    };
    prove("3 replicas, 1 pod, two jumps by 8", &twice);
    let late = World {
        replicas: 2,
        late: 1,
        ..jumping(1, JUMPS)
    };
    prove("2 replicas, 1 pod, a jump, 1 late", &late);
    let astray = World {
        jump_by: JUMPS,
        ..World::of(2, 1, 1)
    };
    prove("2 replicas, 1 pod, a jump, 1 late or astray", &astray);
}

#[test]
fn a_clock_jump_of_less_than_margin_plus_grace_is_harmless_even_before_the_first_read() {
    let world = World {
        newcomers: true,
        ..jumping(1, &[2])
    };
    prove("3 replicas that are new, 1 pod, a jump by 2", &world);
}

#[test]
fn a_replica_left_alone_gets_the_pod_after_any_history() {
    let world = World {
        alone: true,
        ..World::of(2, 1, 2)
    };
    prove("left alone, 2 late and astray", &world);
    let world = World {
        alone: true,
        replicas: 2,
        hands: false,
        ..jumping(1, JUMPS)
    };
    prove("left alone, a jump", &world);
}
