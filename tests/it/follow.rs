//! One pod followed over the simulated cluster on a paused clock. Whatever the log API does to a reader, every line is
//! delivered once.

use std::time::Duration;

use kube_sim::{Cut, Fault, PodSpec, RestartPolicy, Target, Text};
use podlog::domain::GapReason;
use podlog::follow::TaskEnd;

use crate::follow_fixture::{FollowFixture, MINUTE};
use crate::recording_sink::SinkFault;

#[tokio::test(start_paused = true)]
async fn a_running_container_is_read_from_its_beginning_and_then_followed() {
    let mut fixture = FollowFixture::running().await;
    fixture.lines(["a", "", "b"]);
    fixture.follow();
    fixture.stored(&["a", "", "b"]).await;
    fixture.lines(["c", "c"]);
    fixture.stored(&["a", "", "b", "c", "c"]).await;
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_read_once_including_its_unterminated_last_line() {
    let mut fixture = FollowFixture::new(kube_sim::SimSettings::default(), RestartPolicy::Never).await;
    fixture.lines(["a"]);
    fixture.pod.write("app", &Text::out("no line end").partial()).unwrap();
    fixture.pod.exit("app", 0).unwrap();
    fixture.refresh().await;
    fixture.follow();
    assert_eq!(fixture.ended().await, TaskEnd::Finished);
    fixture.stored(&["a", "no line end"]).await;
    fixture.follow();
    assert_eq!(fixture.ended().await, TaskEnd::Finished);
    fixture.stored(&["a", "no line end"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_at_any_byte_resumes_where_it_stopped() {
    let base = jiff::Timestamp::now().as_nanosecond() as i64;
    // Equal stamps, stamps that go backwards, identical lines.
    let log = [
        (5, "x"),
        (5, "x"),
        (7, ""),
        (6, "y"),
        (6, "x"),
        (9, "long line, long enough to be cut inside"),
        (9, "z"),
    ];
    let expected: Vec<&str> = log.iter().map(|(_, text)| *text).collect();
    for after in 0..300 {
        let mut fixture = FollowFixture::running().await;
        fixture.sim.inject(
            Target::logs_of("shop", "cart"),
            Fault::Cut { after, how: Cut::Clean },
            2,
        );
        fixture.follow();
        for (offset, text) in log {
            fixture.pod.write("app", &Text::out(text).at(base + offset)).unwrap();
        }
        fixture.stored(&expected).await;
        tokio::time::sleep(MINUTE).await;
        fixture.stored(&expected).await;
        assert!(fixture.sink.gaps().is_empty(), "cut after {after} bytes");
        fixture.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_takes_over_resumes_after_the_checkpoint() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a", "b"]);
    fixture.stored(&["a", "b"]).await;
    fixture.stop().await;
    fixture.lines(["b", "c"]);
    tokio::time::sleep(MINUTE).await;
    fixture.follow();
    fixture.stored(&["a", "b", "b", "c"]).await;
    assert!(fixture.sink.gaps().is_empty());
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_previous_instance_is_read_to_its_end_before_the_new_one() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.stop().await;
    fixture.lines(["b"]);
    fixture.pod.restart("app", 1).unwrap();
    fixture.lines(["c"]);
    fixture.refresh().await;
    fixture.follow();
    fixture.stored(&["a", "b", "c"]).await;
    assert!(fixture.sink.gaps().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_instance_lost_by_restarts_is_reported_as_a_gap() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.stop().await;
    fixture.lines(["never seen"]);
    fixture.pod.restart("app", 1).unwrap();
    fixture.lines(["b"]);
    fixture.pod.restart("app", 1).unwrap();
    fixture.lines(["c"]);
    fixture.refresh().await;
    fixture.follow();
    fixture.stored(&["a", "b", "c"]).await;
    assert_eq!(
        fixture.sink.gaps().iter().map(|g| g.reason).collect::<Vec<_>>(),
        [GapReason::Restarted]
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_started_and_ended_unseen_is_reported_as_a_gap() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.pod.exit("app", 1).unwrap();
    fixture.refresh().await;
    fixture.stored(&["a"]).await;
    tokio::time::sleep(MINUTE).await;
    fixture.stop().await;
    fixture.pod.start("app").unwrap();
    fixture.lines(["never seen"]);
    for line in ["b", "c"] {
        fixture.pod.restart("app", 1).unwrap();
        fixture.lines([line]);
    }
    fixture.refresh().await;
    fixture.follow();
    fixture.stored(&["a", "b", "c"]).await;
    let gaps: Vec<_> = fixture.sink.gaps().iter().map(|gap| gap.reason).collect();
    assert_eq!(gaps, [GapReason::Restarted]);
}

#[tokio::test(start_paused = true)]
async fn lines_rotated_away_while_nobody_read_are_a_gap_and_the_rest_is_delivered() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a", "b"]);
    fixture.stored(&["a", "b"]).await;
    fixture.stop().await;
    fixture.lines(["rotated away"]);
    tokio::time::sleep(MINUTE).await;
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["c", "d"]);
    fixture.follow();
    fixture.stored(&["a", "b", "c", "d"]).await;
    let gaps = fixture.sink.gaps();
    assert_eq!(gaps.len(), 1);
    let lost = fixture.sim.written()[0].lines[2].time;
    assert!(gaps[0].from.unwrap().0 <= lost && lost <= gaps[0].to.unwrap().0);
}

#[tokio::test(start_paused = true)]
async fn lines_after_an_empty_file_are_stored_although_the_stored_line_was_rotated_away() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.stop().await;
    tokio::time::sleep(MINUTE).await;
    fixture.pod.rotate("app").unwrap();
    fixture.follow();
    tokio::time::sleep(MINUTE).await;
    // Rotated away again before a plain read could find them.
    fixture.lines(["b"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["c"]);
    fixture.stored(&["a", "b", "c"]).await;
    assert_eq!(
        fixture.sink.gaps().len(),
        1,
        "what was written while nobody read is not known"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rotation_seen_by_a_stream_is_no_gap_even_after_the_stream_is_reopened() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.pod.rotate("app").unwrap();
    tokio::time::sleep(70 * MINUTE).await;
    fixture.lines(["b"]);
    fixture.stored(&["a", "b"]).await;
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn messages_of_the_kubelet_are_not_delivered() {
    let mut fixture = FollowFixture::running().await;
    let text = "unable to retrieve container logs for containerd://1".to_owned();
    fixture.sim.inject(
        Target::logs_of("shop", "cart"),
        Fault::KubeletMessage {
            text,
            replaces_log: true,
        },
        3,
    );
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    assert!(fixture.metrics.kubelet_messages.get() >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_closes_the_stream_and_loses_nothing() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.sink.next(SinkFault::Slow(MINUTE));
    fixture.lines(["b"]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(fixture.sim.streams().is_empty(), "a stream is left open and unread");
    fixture.lines(["c"]);
    fixture.stored(&["a", "b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn lines_that_the_sink_rejects_do_not_stop_the_others() {
    let mut fixture = FollowFixture::running().await;
    fixture.sink.next(SinkFault::Reject);
    fixture.follow();
    fixture.lines(["refused"]);
    tokio::time::sleep(MINUTE).await;
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    assert_eq!(fixture.metrics.lines_rejected.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stopped_delivering_is_detected_and_reopened() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    assert_eq!(fixture.sim.mute(&Target::logs_of("shop", "cart")), 1);
    fixture.lines(["b"]);
    fixture.stored(&["a", "b"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stopped_delivering_is_detected_before_the_next_rotation() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    assert_eq!(fixture.sim.mute(&Target::logs_of("shop", "cart")), 1);
    fixture.lines(["b"]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["c"]);
    fixture.stored(&["a", "b", "c"]).await;
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_after_the_claim_is_lost() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.grant.revoke();
    fixture.lines(["b"]);
    assert_eq!(fixture.ended().await, TaskEnd::ClaimLost);
    tokio::time::sleep(MINUTE).await;
    fixture.stored(&["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_terminating_pod_is_read_to_its_last_line() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.pod.terminate().unwrap();
    fixture.refresh().await;
    fixture.lines(["last words"]);
    fixture.pod.exit_all(143).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.pod.remove().unwrap();
    fixture.refresh().await;
    assert_eq!(fixture.ended().await, TaskEnd::PodDeleted);
    fixture.stored(&["a", "last words"]).await;
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_nobody_read_leaves_a_gap_record() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.stop().await;
    fixture.lines(["never seen"]);
    tokio::time::sleep(MINUTE).await;
    fixture.pod.remove().unwrap();
    fixture.refresh().await;
    fixture.follow();
    assert_eq!(fixture.ended().await, TaskEnd::PodDeleted);
    assert_eq!(
        fixture.sink.gaps().iter().map(|g| g.reason).collect::<Vec<_>>(),
        [GapReason::Deleted]
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_of_the_same_name_is_not_mistaken_for_the_old_one() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    fixture.stop().await;
    fixture.pod.remove().unwrap();
    let other = fixture
        .sim
        .create(PodSpec::new("shop", "cart").node("n1").app("app"))
        .unwrap();
    other.start("app").unwrap();
    other.line("app", "of the other pod").unwrap();
    fixture.follow();
    tokio::time::sleep(MINUTE).await;
    fixture.stored(&["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_line_written_in_parts_is_stored_whole() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    let part = "x".repeat(16 * 1024);
    fixture.pod.write("app", &Text::out(part.clone()).partial()).unwrap();
    fixture.pod.write("app", &Text::out(part.clone()).partial()).unwrap();
    tokio::time::sleep(MINUTE).await;
    fixture.pod.write("app", &Text::out("end")).unwrap();
    fixture.stored(&[&format!("{part}{part}end")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_several_days_survives_the_time_limit_of_the_kubelet() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    let texts: Vec<String> = (0..100).map(|i| format!("line {i}")).collect();
    for text in &texts {
        fixture.lines([text]);
        tokio::time::sleep(30 * MINUTE).await;
    }
    fixture
        .stored(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    assert!(fixture.sink.gaps().is_empty());
}
