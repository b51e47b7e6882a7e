//! The protocol as it is: nothing that can happen in these worlds violates anything.

use crate::search::explore;
use crate::world::World;

/// Explores a world in which nothing may go wrong, and prints its size.
fn hold(name: &str, world: &World, alone: bool) {
    let found = explore(world, alone);
    let per = found.transitions as f64 / found.seconds;
    println!(
        "{name}: {} states, {} transitions, depth {}, {:.1} s ({per:.0}/s)",
        found.states, found.transitions, found.depth, found.seconds
    );
    if let Some((why, history)) = found.violation {
        for (step, state) in &history {
            println!("  {step:?}  {state:?}");
        }
        panic!("{name}: {why}");
    }
    if world.late > 1 {
        println!("  {:?}", found.kinds);
    }
}

#[test]
fn sizes() {
    for (name, world) in [
        ("3x1 late 2", World { ..World::of(3, 1, 2) }),
        (
            "3x2 late 0",
            World {
                strays: false,
                ..World::of(3, 2, 0)
            },
        ),
        (
            "3x2 late 1",
            World {
                strays: false,
                ..World::of(3, 2, 1)
            },
        ),
        (
            "2x1 late 1 jumps",
            World {
                jumps: &[1, 2, 8, -2],
                ..World::of(2, 1, 1)
            },
        ),
        (
            "2x1 late 1 nostray jumps",
            World {
                strays: false,
                jumps: &[1, 2, 8, -2],
                ..World::of(2, 1, 1)
            },
        ),
        (
            "2x1 late 2 nostray jumps",
            World {
                strays: false,
                jumps: &[1, 2, 8, -2],
                ..World::of(2, 1, 2)
            },
        ),
        (
            "3x1 late 0 jumps",
            World {
                jumps: &[1, 2, 8, -2],
                ..World::of(3, 1, 0)
            },
        ),
        (
            "3x1 late 0 nostray jumps",
            World {
                strays: false,
                jumps: &[1, 2, 8, -2],
                ..World::of(3, 1, 0)
            },
        ),
    ] {
        hold(name, &world, false);
    }
}
