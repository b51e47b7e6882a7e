//! Random histories of whole collectors, as `podlog simulate` plays them: pods, replicas, the store and streams suffer
//! what comes by chance from a seed, and at the end everything is stored or covered by a gap.
//!
//! `PODLOG_TEST_SEEDS=from..to` plays others than the usual ones.

use podlog::simulate::History;
use podlog::simulate::history::{Act, ApiFault, Kind, Step, StoreFault};
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
    let of = |seed, steps| History {
        seed,
        fencing: false,
        calm: true,
        replicas: 1,
        steps,
    };
    let kept = [
        // A stream that went mute and stayed open when its pod was deleted.
        of(
            19,
            vec![
                Step(Act::Create(false), 1354),
                Step(Act::Write(0, 3), 5000),
                Step(Act::Api(ApiFault::Mute(Kind::Log)), 832),
                Step(Act::Write(0, 6), 809),
                Step(Act::Remove(0), 1471),
            ],
        ),
        // Half a line, and then the pod was deleted.
        of(
            19,
            vec![
                Step(Act::Create(true), 863),
                Step(Act::Write(0, 5), 2022),
                Step(Act::Half(0), 2125),
                Step(Act::Remove(0), 2249),
            ],
        ),
        // A log was rotated while nobody held the pod; the next holder found it empty, was shown the log of the next
        // instance, and took those lines for the proof that nothing was missing.
        History {
            fencing: true,
            calm: false,
            ..of(
                3032,
                vec![
                    Step(Act::Store(None, StoreFault::Silent), 1076),
                    Step(Act::Create(false), 403),
                    Step(Act::Remove(0), 1812),
                    Step(Act::Write(0, 1), 1769),
                    Step(Act::Add, 878),
                    Step(Act::Write(0, 5), 1874),
                    Step(Act::Partition(1), 993),
                    Step(Act::Api(ApiFault::Short(Kind::Log, 61, 1)), 2241),
                    Step(Act::Write(0, 4), 25),
                    Step(Act::Rotate(0), 75),
                    Step(Act::BreakHandOver(false), 67),
                    Step(Act::LateRestart(0), 2212),
                ],
            )
        },
    ];
    for (number, history) in kept.iter().enumerate() {
        let breach = play(history).breach;
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
