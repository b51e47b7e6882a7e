//! Random histories of whole replicas, as `podlog simulate` plays them. Random faults from a seed happen to pods,
//! replicas, the lock store and streams. At the end every line is stored or covered by a gap.
//!
//! `PODLOG_TEST_SEEDS=from..to` plays other seeds than the default.

use kube_sim::Verb;
use podlog::lab::simulate::history::{Action, ApiFault, SinkFault, Step, StoreFault};
use podlog::lab::simulate::play::play;
use podlog::lab::simulate::{History, random_history};

#[test]
fn in_random_histories_every_line_is_stored_or_covered_by_a_gap() {
    let seeds = std::env::var("PODLOG_TEST_SEEDS").unwrap_or_else(|_| "0..20".into());
    let (from, to) = seeds.split_once("..").unwrap();
    let mut failed = Vec::new();
    for seed in from.parse().unwrap()..to.parse().unwrap() {
        if let Some(breach) = play(&random_history(seed)).breach {
            println!("seed {seed}: {breach}");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "podlog simulate --seeds shows these seeds: {failed:?}"
    );
}

/// A history with a sink that is a database.
fn history(seed: u64, steps: &[(Action, u32)]) -> History {
    History {
        seed,
        fencing: true,
        calm: false,
        replicas: 1,
        steps: steps.iter().map(|(action, wait)| Step(action.clone(), *wait)).collect(),
    }
}

#[test]
fn histories_that_failed_in_the_past_pass() {
    let calm = |steps: &[(Action, u32)]| History {
        fencing: false,
        calm: true,
        ..history(19, steps)
    };
    let kept = [
        // A stream that sent nothing more and stayed open when its pod was deleted.
        calm(&[
            (Action::Create(false), 1354),
            (Action::Write(0, 3), 5000),
            (Action::Api(ApiFault::Mute(Verb::Log)), 832),
            (Action::Write(0, 6), 809),
            (Action::Remove(0), 1471),
        ]),
        // An incomplete line, and then the pod was deleted.
        calm(&[
            (Action::Create(true), 863),
            (Action::Write(0, 5), 2022),
            (Action::WriteHalfLine(0), 2125),
            (Action::Remove(0), 2249),
        ]),
        // A log was rotated while no replica held the pod. The next holder found the log empty, then got the log of the
        // next instance, and took its lines as proof that nothing was missing.
        history(
            3032,
            &[
                (Action::Store(None, StoreFault::Silent), 1076),
                (Action::Create(false), 403),
                (Action::Nothing, 1812),
                (Action::Write(0, 1), 1769),
                (Action::StartReplica, 878),
                (Action::Write(0, 5), 1874),
                (Action::Partition(1), 993),
                (Action::Api(ApiFault::CutAfter(Verb::Log, 61, 1)), 2241),
                (Action::Write(0, 4), 25),
                (Action::Rotate(0), 75),
                (Action::BreakHandOver(false), 67),
                (Action::LateRestart(0), 2212),
            ],
        ),
    ];
    for (number, history) in kept.iter().enumerate() {
        let breach = play(history).breach;
        assert!(breach.is_none(), "{number}: {breach:?}");
    }
}

#[test]
fn a_replica_frozen_while_it_reads_the_table_does_not_act_on_it_after_a_clock_jump() {
    let history = history(
        19242,
        &[
            (Action::Api(ApiFault::Mute(Verb::Log)), 2224),
            (Action::Store(None, StoreFault::Lost("release", 2)), 1223),
            (Action::Store(None, StoreFault::Lost("table", 3)), 872),
            (Action::Stop(297_713_045), 430),
            (Action::Write(4_014_809_274, 3), 408),
            (Action::Store(None, StoreFault::Slow(1422)), 1569),
            (Action::Create(true), 815),
            (Action::Rotate(2_483_109_472), 1501),
            (Action::Freeze(2_031_823_506), 1470),
            (Action::StartReplica, 982),
            (Action::Write(1_060_630_863, 4), 2354),
            (Action::Sink(Some(1_819_711_431), SinkFault::Rejects), 1998),
            (Action::Jump(3_600_000), 921),
            (Action::Write(196_491_372, 1), 710),
        ],
    );
    let breach = play(&history).breach;
    assert!(breach.is_none(), "{breach:?}");
}

#[test]
fn the_same_seed_plays_the_same_history() {
    for seed in [3, 4] {
        let traces = [(); 2].map(|()| play(&random_history(seed)).trace);
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
