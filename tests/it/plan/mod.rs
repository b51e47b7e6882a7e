//! Histories of replicas that plan and act on one small table. Whichever replicas join, die or drain, and whichever
//! pods come and go, every pod soon has one holder and the loads are even.

mod table_model;

use self::table_model::{Event, TableModel};
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
        let mut model = TableModel::new(stale);
        model.apply(&Event::Join);
        model.apply(&Event::Start(start));
        for (event, rounds) in &events {
            model.apply(event);
            model.rounds(*rounds);
        }
        // Crashed replicas expire, every pod finds a holder; what moves from then on is balancing.
        model.rounds(30);
        let (deficit, moved) = (model.deficit(), model.moved);
        model.rounds(60);
        let asked = model.asked;
        model.rounds(20);
        prop_assert_eq!(model.asked, asked, "replicas still ask after a minute without changes");
        prop_assert!(model.even(), "uneven: {:?}", model.loads());
        let moved = model.moved - moved;
        prop_assert!(moved <= deficit * 12 / 10 + model.replicas.len(), "{} moves for a deficit of {}", moved, deficit);
    }
}

#[test]
fn a_new_replica_gets_its_share_with_few_unnecessary_moves() {
    for stale in [false, true] {
        let mut model = TableModel::new(stale);
        (0..3).for_each(|_| model.apply(&Event::Join));
        model.apply(&Event::Start(900));
        model.rounds(20);
        assert_eq!((model.loads(), model.moved), (vec![300, 300, 300], 0), "stale: {stale}");
        model.apply(&Event::Join);
        model.rounds(60);
        assert!(model.even(), "stale: {stale}, {:?}", model.loads());
        assert!(model.moved <= 225, "stale: {stale}, {} moves", model.moved);
    }
}

#[test]
fn replicas_that_see_the_same_pods_claim_different_ones_in_the_first_round() {
    let mut model = TableModel::new(true);
    (0..5).for_each(|_| model.apply(&Event::Join));
    model.rounds(2);
    model.apply(&Event::Start(1000));
    let fences = model.fences;
    model.round();
    assert_eq!(model.loads(), [200; 5]);
    assert_eq!(model.fences - fences, 1000);
}

#[test]
fn full_replicas_claim_nothing_and_the_other_pods_wait_for_capacity() {
    let mut model = TableModel::new(false);
    model.limit = 10;
    (0..2).for_each(|_| model.apply(&Event::Join));
    model.apply(&Event::Start(25));
    model.rounds(15);
    assert_eq!(model.loads(), [10, 10]);
    model.apply(&Event::Join);
    model.rounds(1);
    assert_eq!(model.loads().iter().sum::<usize>(), 25);
}

#[test]
fn the_pods_of_a_replica_that_shuts_down_wait_at_most_one_round() {
    let mut model = TableModel::new(false);
    (0..3).for_each(|_| model.apply(&Event::Join));
    model.apply(&Event::Start(300));
    model.rounds(5);
    model.longest = 0;
    model.apply(&Event::Drain(1));
    model.rounds(10);
    assert_eq!(model.loads(), [150, 150]);
    assert!(model.longest <= 1000, "{} ms", model.longest);
}

#[test]
fn a_pod_that_is_handed_over_to_a_replica_that_shuts_down_waits_as_for_one_that_dies() {
    let mut model = TableModel::new(true);
    model.apply(&Event::Join);
    model.apply(&Event::Start(258));
    for (event, rounds) in [
        (Event::Drain(2160), 4),
        (Event::Join, 4),
        (Event::Start(1), 3),
        (Event::Finish(10_829_832_258_738_823_495), 4),
        (Event::Start(26), 4),
        (Event::Drain(5_033_939_120_650_217_945), 5),
    ] {
        model.apply(&event);
        model.rounds(rounds);
    }
    model.rounds(30);
    assert!(
        model.moved > 0 && model.longest >= 21_000,
        "{} moved, {} ms",
        model.moved,
        model.longest
    );
}
