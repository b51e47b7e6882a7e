//! When lines are missing, a gap says so: streams that were not read, or said nothing, or ended too soon, on the
//! simulated cluster and a paused clock.

use std::time::Duration;

use podlog::domain::GapReason;
use podlog::follow::Ended;
use podlog::sim::{Cut, Effect, Target};

use crate::scene::{MINUTE, Scene};

const SECOND: Duration = Duration::from_secs(1);

/// Followed for so long that the process is known to have been awake, with one line stored.
async fn begun() -> Scene {
    let mut scene = Scene::running().await;
    scene.follow();
    scene.lines(["a"]);
    scene.stored(&["a"]).await;
    tokio::time::sleep(10 * SECOND).await;
    scene
}

fn reasons(scene: &Scene) -> Vec<GapReason> {
    scene.sink.gaps().iter().map(|gap| gap.reason).collect()
}

fn logs() -> Target {
    Target::logs_of("shop", "cart")
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_frozen_does_not_take_its_sleep_for_silence() {
    let scene = begun().await;
    // Nothing is awaited until the clock has jumped: to the follower all of it happens in its sleep.
    scene.sim.cut(&logs(), Cut::Clean);
    scene.lines(["missed"]);
    scene.pod.rotate("app").unwrap();
    scene.lines(["b"]);
    tokio::time::advance(12 * SECOND).await;
    scene.stored(&["a", "b"]).await;
    assert_eq!(reasons(&scene), [GapReason::Rotated]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_left_unread_while_the_process_slept_is_not_trusted_to_be_whole() {
    let scene = begun().await;
    let full = "x".repeat(300 * 1024);
    scene.lines([full.clone(), "missed".into()]);
    for _ in 0..2 {
        scene.pod.rotate("app").unwrap();
        scene.lines(["b"]);
    }
    tokio::time::advance(12 * SECOND).await;
    tokio::time::sleep(MINUTE).await;
    let stored = scene.sink.messages("app");
    assert!(stored.ends_with(&["b".to_owned()]), "{}", stored.len());
    assert_eq!(reasons(&scene), [GapReason::Rotated]);
}

#[tokio::test(start_paused = true)]
async fn a_mute_stream_is_no_proof_that_nothing_was_written() {
    let scene = begun().await;
    assert_eq!(scene.sim.freeze(&logs()), 1);
    scene.lines(["missed"]);
    tokio::time::sleep(10 * SECOND).await;
    scene.pod.rotate("app").unwrap();
    scene.lines(["b"]);
    scene.stored(&["a", "b"]).await;
    assert_eq!(reasons(&scene), [GapReason::Rotated]);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_between_a_clean_end_and_a_deletion_is_a_gap() {
    let mut scene = begun().await;
    scene.sim.cut(&logs(), Cut::Clean);
    // No log can be read until after the deletion.
    scene.sim.inject(logs(), Effect::Drop, 100);
    tokio::time::sleep(2 * SECOND).await;
    scene.lines(["missed"]);
    tokio::time::sleep(SECOND).await;
    scene.pod.remove().unwrap();
    scene.refresh().await;
    assert_eq!(scene.ended().await, Ended::Gone);
    scene.stored(&["a"]).await;
    assert_eq!(reasons(&scene), [GapReason::Deleted]);
}
