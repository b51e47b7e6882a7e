//! Lines that were read and are not stored: a metric grows for as long as the sink stores nothing, and a chunk is as old
//! as its first line.

use std::time::Duration;

use kube_sim::Text;
use podlog::clock;
use podlog::metrics::Metrics;
use prometheus_client::registry::Registry;

use crate::follow_fixture::{FollowFixture, MINUTE};
use crate::recording_sink::SinkFault;

/// A fixture, and the registry of its metrics.
async fn measured() -> (FollowFixture, Registry) {
    let mut fixture = FollowFixture::running().await;
    let mut registry = Registry::default();
    fixture.metrics = Metrics::new(&mut registry);
    (fixture, registry)
}

/// The value of a metric as it is scraped.
fn scraped(registry: &Registry, name: &str) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in {text}"))
        .parse()
        .unwrap()
}

const OLDEST: &str = "podlog_oldest_unstored_seconds";

#[tokio::test(start_paused = true)]
async fn while_the_sink_stores_nothing_the_wait_of_the_oldest_line_grows() {
    let (mut fixture, registry) = measured().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    assert_eq!(scraped(&registry, OLDEST), "0.0", "nothing waits");
    fixture.sink.next(SinkFault::Slow(3 * MINUTE));
    fixture.lines(["b"]);
    for minute in 1..3 {
        tokio::time::sleep(MINUTE).await;
        let waited: f64 = scraped(&registry, OLDEST).parse().unwrap();
        assert!(
            (60.0 * f64::from(minute) - 1.0..60.0 * f64::from(minute)).contains(&waited),
            "{waited} s after {minute} min"
        );
    }
    fixture.stored(&["a", "b"]).await;
    assert_eq!(scraped(&registry, OLDEST), "0.0", "nothing waits any more");
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_sink_does_not_open_waits_too() {
    let (mut fixture, registry) = measured().await;
    fixture.sink.next_open_takes(MINUTE);
    fixture.lines(["a"]);
    fixture.follow();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(scraped(&registry, OLDEST), "50.0");
    fixture.stored(&["a"]).await;
    assert_eq!(scraped(&registry, OLDEST), "0.0");
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_does_not_wait_any_more() {
    let (mut fixture, registry) = measured().await;
    fixture.sink.next(SinkFault::Slow(10 * MINUTE));
    fixture.lines(["a"]);
    fixture.follow();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(scraped(&registry, OLDEST).split('.').next(), Some("59"));
    fixture.grant.revoke();
    fixture.ended().await;
    assert_eq!(scraped(&registry, OLDEST), "0.0");
}

#[tokio::test(start_paused = true)]
async fn a_chunk_is_as_old_as_its_first_line() {
    let (mut fixture, registry) = measured().await;
    let now = clock::wall().0;
    for (text, age) in [("old", 31), ("new", 0)] {
        let line = Text::out(text).at(now - age * 1_000_000_000);
        fixture.pod.write("app", &line).unwrap();
    }
    fixture.follow();
    fixture.stored(&["old", "new"]).await;
    fixture.stop().await;
    assert_eq!(scraped(&registry, "podlog_line_age_seconds_count"), "1");
    let age: f64 = scraped(&registry, "podlog_line_age_seconds_sum").parse().unwrap();
    assert!(age >= 31.0, "{age} s");
}
