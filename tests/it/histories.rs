//! Random histories of whole collectors, as `podlog simulate` plays them: pods, replicas, the store and streams suffer
//! what comes by chance from a seed, and at the end everything is stored or covered by a gap.
//!
//! `PODLOG_TEST_SEEDS=from..to` plays others than the usual ones.

use podlog::simulate::History;
use podlog::simulate::history::{Act, ApiFault, Kind, Step};
use podlog::simulate::play::play;

#[test]
fn whatever_happens_every_line_is_stored_or_covered_by_a_gap() {
    let seeds = std::env::var("PODLOG_TEST_SEEDS").unwrap_or_else(|_| "0..20".into());
    let (from, to) = seeds.split_once("..").unwrap();
    let mut failed = Vec::new();
    for seed in from.parse().unwrap()..to.parse().unwrap() {
        if let Some(breach) = play(&History::of(seed)).breach {
            println!("seed {seed}: {breach}");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "podlog simulate --seeds shows these seeds: {failed:?}"
    );
}

#[test]
fn histories_that_once_failed_do_so_no_more() {
    let kept = [
        // A stream that went mute and stayed open when its pod was deleted.
        (
            1,
            vec![
                Step(Act::Create(false), 1354),
                Step(Act::Write(0, 3), 5000),
                Step(Act::Api(ApiFault::Mute(Kind::Log)), 832),
                Step(Act::Write(0, 6), 809),
                Step(Act::Remove(0), 1471),
            ],
        ),
        // Half a line, and then the pod was deleted.
        (
            1,
            vec![
                Step(Act::Create(true), 863),
                Step(Act::Write(0, 5), 2022),
                Step(Act::Half(0), 2125),
                Step(Act::Remove(0), 2249),
            ],
        ),
    ];
    for (number, (replicas, steps)) in kept.into_iter().enumerate() {
        let history = History {
            seed: 19,
            fencing: false,
            calm: true,
            replicas,
            steps,
        };
        let breach = play(&history).breach;
        assert!(breach.is_none(), "{number}: {breach:?}");
    }
}

#[test]
fn the_same_seed_plays_the_same_history() {
    for seed in [3, 4] {
        let traces = [(); 2].map(|()| play(&History::of(seed)).trace);
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
