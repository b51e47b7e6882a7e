//! Whole collectors in virtual time while something outside fails: `/readyz` shows it within a minute, `/healthz` never,
//! and everything comes back by itself.

use std::time::Duration;

use podlog::lab::simulate::sink::SinkFaults;
use podlog::lab::simulate::store::StoreFaults;

use crate::harness::Harness;

/// What keeps a replica from being ready.
fn missing(harness: &Harness) -> String {
    harness.replicas[0].not_ready().join(", ")
}

fn assert_healthy(harness: &Harness) {
    let stuck = harness.replicas[0].health.stuck();
    assert!(stuck.is_empty(), "a restart would not help: {stuck:?}");
}

/// One replica that collects three pods, and lines of each second.
fn collecting() -> Harness {
    let mut harness = Harness::balanced(true, 1, 3);
    harness.write_each_second(5);
    assert_eq!(missing(&harness), "");
    harness
}

fn assert_comes_back(mut harness: Harness) {
    harness.wait_until(60, "ready again", |harness| missing(harness).is_empty());
    assert_healthy(&harness);
    harness.write_each_second(5);
    harness.pass(40);
    harness.assert_all_stored_once();
}

#[test]
fn an_outage_of_the_lock_store_shows_in_readiness_and_not_in_health() {
    let failing = [
        StoreFaults {
            refused: true,
            ..StoreFaults::default()
        },
        StoreFaults {
            silent: true,
            ..StoreFaults::default()
        },
    ];
    for faults in failing {
        let mut harness = collecting();
        harness.replicas[0].store.set(faults);
        harness.pass(15);
        assert_eq!(missing(&harness), "", "what passes within seconds is not shown");
        let took = harness.wait_until(45, "not ready", |harness| {
            missing(harness).starts_with("store (not for ")
        });
        assert!(took < Duration::from_secs(45), "{took:?}");
        for _ in 0..20 {
            harness.pass(30);
            assert_healthy(&harness);
        }
        harness.replicas[0].store.set(StoreFaults::default());
        assert_comes_back(harness);
    }
}

#[test]
fn an_outage_of_the_api_server_shows_in_readiness_and_not_in_health() {
    let mut harness = collecting();
    harness.replicas[0].api.set(false);
    // The gate drops every packet: the watch stays open, and only the question for the version shows it.
    harness.wait_until(60, "not ready", |harness| {
        missing(harness).starts_with("list (not for ")
    });
    for _ in 0..20 {
        harness.pass(30);
        assert_healthy(&harness);
    }
    harness.replicas[0].api.set(true);
    assert_comes_back(harness);
}

#[test]
fn an_outage_of_the_sink_shows_in_readiness_and_not_in_health() {
    let mut harness = collecting();
    harness.replicas[0].sink.set(SinkFaults {
        down: true,
        ..SinkFaults::default()
    });
    harness.write_all();
    let took = harness.wait_until(45, "not ready", |harness| {
        missing(harness).starts_with("sink (nothing was stored for ")
    });
    assert!(
        took >= Duration::from_secs(15),
        "what passes within seconds is not shown: {took:?}"
    );
    for _ in 0..20 {
        harness.pass(30);
        assert_healthy(&harness);
    }
    harness.replicas[0].sink.set(SinkFaults::default());
    assert_comes_back(harness);
}

#[test]
fn an_outage_at_the_start_keeps_a_replica_from_being_ready() {
    let mut harness = Harness::new(true);
    harness.add_replica();
    harness.replicas[0].api.set(false);
    harness.pass(300);
    assert_eq!(missing(&harness), "list");
    assert_healthy(&harness);
    harness.replicas[0].api.set(true);
    harness.wait_until(60, "ready", |harness| missing(harness).is_empty());
}
