//! Histories of replicas that plan and act on one small table: whoever joins, dies or drains, and
//! whatever pods come and go, every pod soon has one holder and the loads are even.

mod world;

use self::world::{Event, World};
use proptest::prelude::*;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Join),
        1 => any::<usize>().prop_map(Event::Crash),
        1 => any::<usize>().prop_map(Event::Drain),
        3 => (1_usize..60).prop_map(Event::Start),
        3 => any::<usize>().prop_map(Event::Delete),
        2 => any::<usize>().prop_map(Event::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_history_settles_with_one_holder_per_pod_and_even_loads(
        stale in any::<bool>(),
        start in 0_usize..300,
        events in prop::collection::vec((event(), 0_usize..6), 0..40),
    ) {
        let mut world = World::new(stale);
        world.happen(&Event::Join);
        world.happen(&Event::Start(start));
        for (event, rounds) in &events {
            world.happen(event);
            world.rounds(*rounds);
        }
        // Crashed replicas expire, every pod finds a holder; what moves from then on is balancing.
        world.rounds(30);
        let (deficit, moved) = (world.deficit(), world.moved);
        world.rounds(60);
        let asked = world.asked;
        world.rounds(20);
        prop_assert_eq!(world.asked, asked, "still asking after a quiet minute");
        prop_assert!(world.even(), "uneven: {:?}", world.loads());
        let moved = world.moved - moved;
        prop_assert!(moved <= deficit * 12 / 10 + world.replicas.len(), "{} moves for a deficit of {}", moved, deficit);
    }
}

#[test]
fn a_new_replica_gets_its_share_with_few_unnecessary_moves() {
    for stale in [false, true] {
        let mut world = World::new(stale);
        (0..3).for_each(|_| world.happen(&Event::Join));
        world.happen(&Event::Start(900));
        world.rounds(20);
        assert_eq!((world.loads(), world.moved), (vec![300, 300, 300], 0), "stale: {stale}");
        world.happen(&Event::Join);
        world.rounds(60);
        assert!(world.even(), "stale: {stale}, {:?}", world.loads());
        assert!(world.moved <= 225, "stale: {stale}, {} moves", world.moved);
    }
}

#[test]
fn replicas_that_see_the_same_pods_claim_different_ones_in_the_first_round() {
    let mut world = World::new(true);
    (0..5).for_each(|_| world.happen(&Event::Join));
    world.rounds(2);
    world.happen(&Event::Start(1000));
    let fences = world.fences;
    world.round();
    assert_eq!(world.loads(), [200; 5]);
    assert_eq!(world.fences - fences, 1000);
}

#[test]
fn full_replicas_claim_nothing_and_the_other_pods_wait_for_capacity() {
    let mut world = World::new(false);
    world.limit = 10;
    (0..2).for_each(|_| world.happen(&Event::Join));
    world.happen(&Event::Start(25));
    world.rounds(15);
    assert_eq!(world.loads(), [10, 10]);
    world.happen(&Event::Join);
    world.rounds(1);
    assert_eq!(world.loads().iter().sum::<usize>(), 25);
}

#[test]
fn the_pods_of_a_replica_that_shuts_down_wait_at_most_one_round() {
    let mut world = World::new(false);
    (0..3).for_each(|_| world.happen(&Event::Join));
    world.happen(&Event::Start(300));
    world.rounds(5);
    world.longest = 0;
    world.happen(&Event::Drain(1));
    world.rounds(10);
    assert_eq!(world.loads(), [150, 150]);
    assert!(world.longest <= 1000, "{} ms", world.longest);
}
