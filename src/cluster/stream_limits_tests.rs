//! Tests of the stream limiter on a paused clock: which streams it admits, in which order and how fast.

use tokio::task::JoinSet;

use super::*;

fn limiter(per_node: usize, total: usize, opens_per_second: f64, burst: u32) -> (StreamLimiter, Metrics) {
    let metrics = Metrics::default();
    let limits = StreamLimits {
        per_node,
        total,
        opens_per_second,
        burst,
    };
    (StreamLimiter::new(limits, &metrics), metrics)
}

#[tokio::test]
async fn a_full_node_does_not_block_other_nodes() {
    let (limiter, _) = limiter(2, 10, 1.0, 1);
    let held = (limiter.try_acquire("a").unwrap(), limiter.try_acquire("a").unwrap());
    assert!(limiter.try_acquire("a").is_none());
    assert!(limiter.try_acquire("b").is_some());
    drop(held);
    assert!(limiter.try_acquire("a").is_some());
}

#[tokio::test]
async fn the_total_limit_applies_across_all_nodes() {
    let (limiter, _) = limiter(2, 3, 1.0, 1);
    let _held: Vec<StreamPermit> = ["a", "b", "c"]
        .iter()
        .map(|node| limiter.try_acquire(node).unwrap())
        .collect();
    assert!(limiter.try_acquire("d").is_none());
}

#[tokio::test]
async fn a_node_without_streams_is_removed() {
    let (limiter, _) = limiter(2, 10, 1.0, 1);
    let (one, two) = (limiter.try_acquire("a").unwrap(), limiter.try_acquire("a").unwrap());
    drop(one);
    assert_eq!(limiter.0.nodes.lock().unwrap().len(), 1);
    drop(two);
    assert_eq!(limiter.0.nodes.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn try_open_takes_a_free_turn_but_never_one_that_a_waiter_needs() {
    let (limiter, _) = limiter(1, 1, 1.0, 1);
    assert!(limiter.try_open());
    assert!(!limiter.try_open(), "the turn is used");
    let began = Instant::now();
    let waiting = async {
        limiter.wait_to_open().await;
        assert!(
            began.elapsed() >= Duration::from_millis(500),
            "the turn was not counted"
        );
    };
    let trying = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!limiter.try_open(), "another caller waits");
    };
    tokio::join!(biased; waiting, trying);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(limiter.try_open());
}

#[tokio::test(start_paused = true)]
async fn a_burst_opens_at_once_and_the_rest_at_the_rate() {
    let (limiter, _) = limiter(1, 1, 10.0, 20);
    let start = Instant::now();
    // A jittered turn takes 0.5 to 1.5 intervals of the saved time, so at least 13 of 20 pass.
    for _ in 0..13 {
        limiter.wait_to_open().await;
    }
    assert!(start.elapsed() < Duration::from_millis(2), "{:?}", start.elapsed());
    for _ in 0..1000 {
        limiter.wait_to_open().await;
    }
    let took = start.elapsed().as_secs_f64();
    assert!((93.0..107.0).contains(&took), "1000 opens at 10 a second took {took} s");
}

#[tokio::test(start_paused = true)]
async fn an_idle_time_saves_no_more_turns_than_the_burst() {
    let (limiter, _) = limiter(1, 1, 10.0, 4);
    tokio::time::sleep(Duration::from_hours(1)).await;
    let start = Instant::now();
    for _ in 0..14 {
        limiter.wait_to_open().await;
    }
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_uses_no_turn() {
    let (limiter, metrics) = limiter(1, 1, 1.0, 1);
    limiter.wait_to_open().await;
    let mut waiters = JoinSet::new();
    for _ in 0..1000 {
        let limiter = limiter.clone();
        waiters.spawn(async move { limiter.wait_to_open().await });
    }
    while metrics.streams_waiting.get() < 1000 {
        tokio::task::yield_now().await;
    }
    waiters.shutdown().await;
    assert_eq!(metrics.streams_waiting.get(), 0);
    let start = Instant::now();
    limiter.wait_to_open().await;
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
}
