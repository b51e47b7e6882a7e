//! One pod followed over a kubelet whose log reader behaves like the real one: it skips files, repeats files, leaves
//! out timestamps, and ends while lines are unread. Each case was first observed on the real reader.

use std::time::Duration;

use kube_sim::{Cut, Fault, RestartPolicy, SimSettings, Target, Text, Verb};
use podlog::follow::TaskEnd;
use podlog::metrics::{Reason, Request};

use crate::follow_fixture::{FollowFixture, MINUTE};
use crate::recording_sink::SinkFault;

/// A pod whose log reader is held up as soon as the client does not read: nothing fits in between.
async fn narrow(policy: RestartPolicy) -> FollowFixture {
    let settings = SimSettings {
        buffer_bytes: 8,
        ..SimSettings::default()
    };
    FollowFixture::new(settings, policy).await
}

/// The kubelet's default interval between two checks whether a file must be rotated.
const ROTATING: Duration = Duration::from_secs(10);

/// Follows the pod until its stream is known to watch for new files.
async fn settled(fixture: &mut FollowFixture) {
    fixture.follow();
    fixture.lines(["z"]);
    fixture.stored(&["z"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    fixture.lines(["a"]);
    fixture.stored(&["z", "a"]).await;
}

/// A pod of which three lines are stored, and whose stream has been opened anew and is not yet read, because reading
/// the pod takes long.
async fn reopening() -> FollowFixture {
    let mut fixture = narrow(RestartPolicy::Always).await;
    fixture.lines(["a", "b", "c"]);
    fixture.follow();
    fixture.stored(&["a", "b", "c"]).await;
    let second = Duration::from_secs(1);
    fixture.sim.inject(Target::verb(Verb::Get), Fault::Delay(2 * second), 2);
    fixture.sim.cut(&log(), Cut::Clean);
    // The first of the two reads of the pod follows a plain read of the log.
    tokio::time::sleep(2 * second + Duration::from_millis(250)).await;
    while fixture.sim.streams().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(second).await;
    fixture
}

async fn is_probed_once_a_minute(fixture: &FollowFixture) {
    let before = reads(fixture);
    tokio::time::sleep(10 * MINUTE).await;
    let asked = reads(fixture) - before;
    assert!((9..=11).contains(&asked), "{asked} reads in ten minutes of silence");
}

/// How often the log was read or followed.
fn reads(fixture: &FollowFixture) -> u64 {
    let counted = Request { verb: "log", code: 200 };
    fixture.metrics.api_requests.get_or_create(&counted).get()
}

fn log() -> Target {
    Target::logs_of("shop", "cart")
}

#[tokio::test(start_paused = true)]
async fn a_file_skipped_by_a_reader_delayed_before_its_first_end_of_file_is_a_gap() {
    let mut fixture = narrow(RestartPolicy::Always).await;
    fixture.lines(["a", "b", "c"]);
    fixture.follow();
    fixture.stored(&["a", "b", "c"]).await;
    // The next stream replays these lines, more than fits in between, and is held up from its first byte on.
    fixture.sim.inject(log(), Fault::Mute { after: 0 }, 1);
    fixture.sim.cut(&log(), Cut::Clean);
    tokio::time::sleep(Duration::from_secs(3)).await;
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["in the file that is skipped"]);
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["d"]);
    fixture.stored(&["a", "b", "c", "d"]).await;
    assert_eq!(fixture.sink.gaps().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_reached_an_end_of_file_loses_nothing_when_delayed_during_one_rotation() {
    let mut fixture = narrow(RestartPolicy::Always).await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    assert_eq!(fixture.sim.mute(&log()), 1);
    fixture.lines(["b", "c"]);
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["d"]);
    fixture.sim.unmute(&log());
    fixture.stored(&["a", "b", "c", "d"]).await;
    tokio::time::sleep(5 * MINUTE).await;
    fixture.stored(&["a", "b", "c", "d"]).await;
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_skips_one_file_and_repeats_another_leaves_a_gap_and_no_duplicates() {
    let mut fixture = narrow(RestartPolicy::Always).await;
    settled(&mut fixture).await;
    // Something in between holds the stream up, and lets it go when the kubelet has rotated twice.
    assert_eq!(fixture.sim.mute(&log()), 1);
    fixture.lines(["b0", "b1", "b2", "b3"]);
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["in the file that is skipped"]);
    tokio::time::sleep(ROTATING).await;
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["d0", "d1", "d2", "d3"]);
    fixture.sim.unmute(&log());
    // The rest of the first file cannot be distinguished from what follows it.
    let expected = ["z", "a", "d0", "d1", "d2", "d3"];
    fixture.stored(&expected).await;
    tokio::time::sleep(5 * MINUTE).await;
    fixture.stored(&expected).await;
    assert_eq!(fixture.sink.gaps().len(), 1, "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_late_lines_is_reopened_once_and_loses_nothing() {
    let mut fixture = FollowFixture::running().await;
    settled(&mut fixture).await;
    assert_eq!(fixture.sim.mute(&log()), 1);
    fixture.lines(["b", "c"]);
    tokio::time::sleep(ROTATING).await;
    fixture.sim.unmute(&log());
    fixture.stored(&["z", "a", "b", "c"]).await;
    fixture.lines(["d"]);
    fixture.stored(&["z", "a", "b", "c", "d"]).await;
    tokio::time::sleep(5 * MINUTE).await;
    let ends = &fixture.metrics.stream_ends;
    assert_eq!(ends.get_or_create(&Reason { reason: "late_lines" }).get(), 1);
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_missed_a_rotation_skips_no_file_although_the_pod_was_silent_before() {
    let fixture = reopening().await;
    // The reader has not come to its first end of file.
    fixture.pod.rotate("app").unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    fixture.lines(["in the file after the missed rotation"]);
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["d"]);
    fixture
        .stored(&["a", "b", "c", "in the file after the missed rotation", "d"])
        .await;
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_delivered_nothing_does_not_prove_that_nothing_was_written_before_a_rotation() {
    let fixture = reopening().await;
    // It is held up from its first byte on.
    assert_eq!(fixture.sim.mute(&log()), 1);
    fixture.lines(["in the file that is gone"]);
    fixture.pod.rotate("app").unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    fixture.lines(["d"]);
    fixture.stored(&["a", "b", "c", "d"]).await;
    assert_eq!(fixture.sink.gaps().len(), 1, "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn late_lines_of_a_deleted_pod_are_stored_because_they_cannot_be_read_again() {
    let mut fixture = FollowFixture::running().await;
    settled(&mut fixture).await;
    assert_eq!(fixture.sim.mute(&log()), 1);
    fixture.lines(["last words"]);
    fixture.pod.exit_all(143).unwrap();
    fixture.pod.remove().unwrap();
    fixture.refresh().await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    fixture.sim.unmute(&log());
    assert_eq!(fixture.ended().await, TaskEnd::PodDeleted);
    fixture.stored(&["z", "a", "last words"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_line_finished_long_after_it_was_started_is_not_late() {
    let mut fixture = FollowFixture::running().await;
    settled(&mut fixture).await;
    for round in 0..3 {
        fixture.pod.write("app", &Text::out("begun ").partial()).unwrap();
        tokio::time::sleep(ROTATING).await;
        fixture.lines([format!("and ended {round}")]);
        tokio::time::sleep(ROTATING).await;
    }
    let ended = ["z", "a", "begun and ended 0", "begun and ended 1", "begun and ended 2"];
    fixture.stored(&ended).await;
    assert_eq!(
        fixture
            .metrics
            .stream_ends
            .get_or_create(&Reason { reason: "late_lines" })
            .get(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_log_whose_end_cannot_be_compared_is_not_reopened_repeatedly() {
    // The end of a line that is longer than a record and differs from its beginning, and the beginning of one.
    let long = format!("{}{}", "x".repeat(20_000), "y".repeat(20_000));
    for end in [Text::out(long), Text::out("begun").partial()] {
        let mut fixture = FollowFixture::running().await;
        settled(&mut fixture).await;
        fixture.pod.write("app", &end).unwrap();
        tokio::time::sleep(2 * MINUTE).await;
        is_probed_once_a_minute(&fixture).await;
    }
    let mut unwritten = FollowFixture::running().await;
    unwritten.follow();
    tokio::time::sleep(2 * MINUTE).await;
    is_probed_once_a_minute(&unwritten).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_line_whose_beginning_is_not_replayed_is_not_stored_as_a_line() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    let base = jiff::Timestamp::now().as_nanosecond() as i64;
    let second = 1_000_000_000;
    // Resuming after z asks for what was written from three seconds after the line's beginning on.
    let parts = [
        Text::out("AAAA").partial().at(base),
        Text::out("BBBB").at(base + 5 * second),
        Text::out("z").at(base + 5 * second + second / 10),
    ];
    for part in &parts {
        fixture.pod.write("app", part).unwrap();
    }
    fixture.stored(&["AAAABBBB", "z"]).await;
    fixture.stop().await;
    fixture.follow();
    fixture.pod.write("app", &Text::out("y").at(base + 6 * second)).unwrap();
    fixture.stored(&["AAAABBBB", "z", "y"]).await;
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
    assert!(
        fixture.metrics.kubelet_messages.get() >= 1,
        "the end of the line was not replayed"
    );
}

#[tokio::test(start_paused = true)]
async fn stdout_and_stderr_joined_by_the_kubelet_are_delivered_as_it_sends_them() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    for text in [Text::out("OUT1-").partial(), Text::err("ERR"), Text::out("OUT2")] {
        fixture.pod.write("app", &text).unwrap();
    }
    fixture.lines(["next"]);
    fixture.stored(&["OUT1-ERR", "OUT2", "next"]).await;
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn lines_written_between_a_rotation_and_an_exit_are_read_although_the_stream_ended_without_them() {
    let mut fixture = narrow(RestartPolicy::Never).await;
    fixture.follow();
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    assert_eq!(fixture.sim.mute(&log()), 1);
    fixture.lines(["b0", "b1", "b2", "b3"]);
    fixture.pod.rotate("app").unwrap();
    fixture.lines(["c"]);
    fixture.pod.exit("app", 0).unwrap();
    fixture.refresh().await;
    fixture.sim.unmute(&log());
    assert_eq!(fixture.ended().await, TaskEnd::Finished);
    fixture.stored(&["a", "b0", "b1", "b2", "b3", "c"]).await;
    // The line stored last is not in the file that is left, so nobody can know that nothing lies between.
    assert!(fixture.sink.gaps().len() <= 1, "{:?}", fixture.sink.gaps());
}

/// How many streams ended for each of the reasons for which an open stream is not read: the sink, the API server, the
/// process.
fn unread(fixture: &FollowFixture) -> [u64; 3] {
    ["slow_sink", "slow_api", "process_paused"].map(|reason| {
        let ends = &fixture.metrics.stream_ends;
        ends.get_or_create(&Reason { reason }).get()
    })
}

#[tokio::test(start_paused = true)]
async fn a_stream_closed_for_a_slow_sink_is_counted_as_slow_sink() {
    let mut fixture = FollowFixture::running().await;
    settled(&mut fixture).await;
    fixture.sink.next(SinkFault::Slow(Duration::from_secs(3)));
    fixture.lines(["b"]);
    fixture.stored(&["z", "a", "b"]).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(unread(&fixture), [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_closed_for_a_slow_answer_of_the_api_server_is_counted_as_slow_api() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    // Nothing is stored yet, so the pod is fetched before the first line is handed on.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let slow = Fault::Delay(Duration::from_secs(3));
    fixture.sim.inject(Target::verb(Verb::Get), slow, 1);
    fixture.lines(["a"]);
    fixture.stored(&["a"]).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(unread(&fixture), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_closed_after_a_pause_of_the_process_is_counted_as_process_paused() {
    let mut fixture = FollowFixture::running().await;
    settled(&mut fixture).await;
    fixture.lines(["b"]);
    // Nothing is polled until the clock has jumped, as in a process that is stopped.
    tokio::time::advance(Duration::from_secs(12)).await;
    fixture.stored(&["z", "a", "b"]).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(unread(&fixture), [0, 0, 1]);
}
