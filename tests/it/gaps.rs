//! Missing lines are reported as a gap: after streams that were not read, were silent, or ended too early. The tests
//! use the simulated cluster and a paused clock.

use std::time::Duration;

use kube_sim::{Cut, Fault, PodSpec, RestartPolicy, Target, Text, Verb};
use podlog::domain::GapReason;
use podlog::follow::TaskEnd;

use crate::follow_fixture::{FollowFixture, MINUTE};

const SECOND: Duration = Duration::from_secs(1);

/// Follows the pod until one line is stored and the process is known to have been awake.
async fn begun() -> FollowFixture {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    tokio::time::sleep(10 * SECOND).await;
    fixture
}

fn reasons(fixture: &FollowFixture) -> Vec<GapReason> {
    fixture.sink.gaps().iter().map(|gap| gap.reason).collect()
}

fn logs() -> Target {
    Target::logs_of("shop", "cart")
}

#[tokio::test(start_paused = true)]
async fn a_frozen_process_does_not_count_the_freeze_as_silence_of_the_stream() {
    let fixture = begun().await;
    // There is no await until the clock has jumped: for the follower all of this happens while it sleeps.
    fixture.sim.cut(&logs(), Cut::Clean);
    fixture.lines(["missed"]);
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["b"]);
    tokio::time::advance(12 * SECOND).await;
    fixture.stored(&["a", "b"]).await;
    assert_eq!(reasons(&fixture), [GapReason::Rotated]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_left_unread_while_the_process_slept_is_not_trusted_to_be_complete() {
    let fixture = begun().await;
    let full = "x".repeat(300 * 1024);
    fixture.lines([full.clone(), "missed".into()]);
    for _ in 0..2 {
        fixture.pod.rotate("app").unwrap();
        fixture.lines(["b"]);
    }
    tokio::time::advance(12 * SECOND).await;
    tokio::time::sleep(MINUTE).await;
    let stored = fixture.sink.messages("app");
    assert!(stored.ends_with(&["b".to_owned()]), "{}", stored.len());
    assert_eq!(reasons(&fixture), [GapReason::Rotated]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_does_not_prove_that_nothing_was_written() {
    let fixture = begun().await;
    assert_eq!(fixture.sim.mute(&logs()), 1);
    fixture.lines(["missed"]);
    tokio::time::sleep(10 * SECOND).await;
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["b"]);
    fixture.stored(&["a", "b"]).await;
    assert_eq!(reasons(&fixture), [GapReason::Rotated]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_outlives_its_pod_does_not_prove_that_nothing_was_written() {
    let mut fixture = begun().await;
    assert_eq!(fixture.sim.mute(&logs()), 1);
    fixture.lines(["missed"]);
    fixture.pod.remove().unwrap();
    fixture.refresh().await;
    assert_eq!(fixture.ended().await, TaskEnd::PodDeleted);
    fixture.stored(&["a"]).await;
    assert_eq!(reasons(&fixture), [GapReason::Deleted]);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_line_of_a_deleted_pod_is_a_gap() {
    let mut fixture = begun().await;
    fixture.pod.write("app", &Text::out("half").partial()).unwrap();
    tokio::time::sleep(5 * SECOND).await;
    fixture.pod.remove().unwrap();
    fixture.refresh().await;
    assert_eq!(fixture.ended().await, TaskEnd::PodDeleted);
    fixture.stored(&["a"]).await;
    assert_eq!(reasons(&fixture), [GapReason::Deleted]);
}

#[tokio::test(start_paused = true)]
async fn lines_written_between_a_clean_end_and_a_deletion_are_a_gap() {
    let mut fixture = begun().await;
    fixture.sim.cut(&logs(), Cut::Clean);
    // No log can be read until after the deletion.
    fixture.sim.inject(logs(), Fault::Disconnect, 100);
    tokio::time::sleep(2 * SECOND).await;
    fixture.lines(["missed"]);
    tokio::time::sleep(SECOND).await;
    fixture.pod.remove().unwrap();
    fixture.refresh().await;
    assert_eq!(fixture.ended().await, TaskEnd::PodDeleted);
    fixture.stored(&["a"]).await;
    assert_eq!(reasons(&fixture), [GapReason::Deleted]);
}

#[tokio::test(start_paused = true)]
async fn lines_with_timestamps_of_a_clock_set_back_are_read_before_the_rotation() {
    let fixture = begun().await;
    let burst: Vec<String> = (0..2_000).map(|n| format!("{n:01000}")).collect();
    for part in burst.chunks(20) {
        fixture.lines(part);
        tokio::time::sleep(SECOND / 20).await;
    }
    let hour = Duration::from_hours(1).as_nanos() as i64;
    let back = |text: &str| Text::out(text.to_owned()).at(fixture.sim.now() - hour);
    fixture.pod.write("app", &back("b")).unwrap();
    tokio::time::sleep(9 * SECOND).await;
    fixture.pod.rotate("app").unwrap();
    fixture.pod.write("app", &back("c")).unwrap();
    tokio::time::sleep(5 * MINUTE).await;
    let stored = fixture.sink.messages("app");
    let ends = &stored[stored.len().saturating_sub(3)..];
    assert_eq!(ends, [&burst[1_999], "b", "c"]);
    assert_eq!(stored.len(), 2_003);
    assert_eq!(reasons(&fixture), []);
}

#[tokio::test(start_paused = true)]
async fn the_next_instance_is_not_mistaken_for_the_one_the_status_still_shows() {
    let mut fixture = FollowFixture::running().await;
    fixture.sim.delay_status(true);
    fixture.pod.restart("app", 1).unwrap();
    fixture.lines(["of the next one"]);
    fixture.follow();
    tokio::time::sleep(SECOND * 3 / 10).await;
    fixture.sim.delay_status(false);
    fixture.refresh().await;
    fixture.stored(&["of the next one"]).await;
    let streams = fixture.sink.streams().into_values();
    let lines: Vec<_> = streams.map(|kept| (kept.restart_count, kept.lines.len())).collect();
    assert_eq!(lines, [(1, 1)]);
    assert_eq!(reasons(&fixture), []);
}

#[tokio::test(start_paused = true)]
async fn a_log_opened_just_before_its_pod_was_deleted_is_read_to_its_end() {
    let mut fixture = FollowFixture::new(kube_sim::SimSettings::default(), RestartPolicy::Never).await;
    fixture.lines(["a", "b"]);
    fixture.pod.exit("app", 0).unwrap();
    fixture.refresh().await;
    // One read of the pod before the opening and one after it.
    fixture.sim.inject(Target::verb(Verb::Get), Fault::Delay(SECOND / 5), 2);
    fixture.follow();
    tokio::time::sleep(SECOND * 3 / 10).await;
    fixture.pod.remove().unwrap();
    assert_eq!(fixture.ended().await, TaskEnd::Finished);
    fixture.stored(&["a", "b"]).await;
    assert_eq!(reasons(&fixture), []);
}

#[tokio::test(start_paused = true)]
async fn a_log_is_not_read_if_it_may_belong_to_another_pod_of_the_same_name() {
    let mut fixture = FollowFixture::new(kube_sim::SimSettings::default(), RestartPolicy::Never).await;
    fixture.lines(["a"]);
    fixture.pod.exit("app", 0).unwrap();
    fixture.refresh().await;
    // Between the two reads of the pod there is enough time for another pod to be created and deleted.
    fixture.sim.inject(logs(), Fault::Delay(3 * SECOND), 1);
    fixture.sim.inject(Target::verb(Verb::Get), Fault::Delay(SECOND / 5), 2);
    fixture.follow();
    tokio::time::sleep(SECOND).await;
    fixture.pod.remove().unwrap();
    let spec = PodSpec::new("shop", "cart").node("n1").app("app");
    let other = fixture.sim.create(spec).unwrap();
    other.start("app").unwrap();
    other.line("app", "of the other pod").unwrap();
    tokio::time::sleep(SECOND * 5 / 2).await;
    other.remove().unwrap();
    assert_eq!(fixture.ended().await, TaskEnd::Finished);
    fixture.stored(&[]).await;
    assert_eq!(reasons(&fixture), [GapReason::Deleted]);
}
