//! On a paused clock: who passes the gate, in which order and how fast.

use tokio::task::JoinSet;

use super::*;

fn gate(per_node: usize, total: usize, opens_per_second: f64, burst: u32) -> (Gate, Metrics) {
    let metrics = Metrics::default();
    let limits = Limits {
        per_node,
        total,
        opens_per_second,
        burst,
    };
    (Gate::new(limits, &metrics), metrics)
}

#[tokio::test]
async fn a_full_node_does_not_keep_others_out() {
    let (gate, _) = gate(2, 10, 1.0, 1);
    let held = (gate.try_enter("a").unwrap(), gate.try_enter("a").unwrap());
    assert!(gate.try_enter("a").is_none());
    assert!(gate.try_enter("b").is_some());
    drop(held);
    assert!(gate.try_enter("a").is_some());
}

#[tokio::test]
async fn the_total_holds_over_all_nodes() {
    let (gate, _) = gate(2, 3, 1.0, 1);
    let _held: Vec<Turn> = ["a", "b", "c"]
        .iter()
        .map(|node| gate.try_enter(node).unwrap())
        .collect();
    assert!(gate.try_enter("d").is_none());
}

#[tokio::test]
async fn a_node_that_nobody_uses_is_forgotten() {
    let (gate, _) = gate(2, 10, 1.0, 1);
    let (one, two) = (gate.try_enter("a").unwrap(), gate.try_enter("a").unwrap());
    drop(one);
    assert_eq!(gate.0.nodes.lock().unwrap().len(), 1);
    drop(two);
    assert_eq!(gate.0.nodes.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_can_wait_gets_a_turn_at_once_or_not_at_all_and_never_one_that_somebody_waits_for() {
    let (gate, _) = gate(1, 1, 1.0, 1);
    assert!(gate.try_open_turn());
    assert!(!gate.try_open_turn(), "the turn is used");
    let began = Instant::now();
    let waiting = async {
        gate.open_turn().await;
        assert!(
            began.elapsed() >= Duration::from_millis(500),
            "the turn was not counted"
        );
    };
    let trying = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!gate.try_open_turn(), "somebody waits");
    };
    tokio::join!(biased; waiting, trying);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(gate.try_open_turn());
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
    let (gate, _) = gate(1, 1, 10.0, 20);
    let start = Instant::now();
    // A jittered turn takes 0.5 to 1.5 intervals of what was saved, so 13 of 20 pass for certain.
    for _ in 0..13 {
        gate.open_turn().await;
    }
    assert!(start.elapsed() < Duration::from_millis(2), "{:?}", start.elapsed());
    for _ in 0..1000 {
        gate.open_turn().await;
    }
    let took = start.elapsed().as_secs_f64();
    assert!((93.0..107.0).contains(&took), "1000 opens at 10 a second took {took} s");
}

#[tokio::test(start_paused = true)]
async fn a_pause_saves_no_more_than_the_burst() {
    let (gate, _) = gate(1, 1, 10.0, 4);
    tokio::time::sleep(Duration::from_hours(1)).await;
    let start = Instant::now();
    for _ in 0..14 {
        gate.open_turn().await;
    }
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_uses_no_turn() {
    let (gate, metrics) = gate(1, 1, 1.0, 1);
    gate.open_turn().await;
    let mut waiters = JoinSet::new();
    for _ in 0..1000 {
        let gate = gate.clone();
        waiters.spawn(async move { gate.open_turn().await });
    }
    while metrics.streams_waiting.get() < 1000 {
        tokio::task::yield_now().await;
    }
    waiters.shutdown().await;
    assert_eq!(metrics.streams_waiting.get(), 0);
    let start = Instant::now();
    gate.open_turn().await;
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
}
