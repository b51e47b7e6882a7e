//! Random histories of whole collectors, as `podlog simulate` plays them: pods, replicas, the store and streams suffer
//! what comes by chance from a seed, and at the end everything is stored or covered by a gap.
//!
//! `PODLOG_TEST_SEEDS=from..to` plays others than the usual ones.

use podlog::simulate::History;
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
fn the_same_seed_plays_the_same_history() {
    for seed in [3, 4] {
        let traces = [(); 2].map(|()| play(&History::of(seed)).trace);
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
