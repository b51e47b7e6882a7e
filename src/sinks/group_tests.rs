//! Tests of group commit on a paused clock, with a sink that follows a script.

use std::time::Duration;

use futures::poll;
use tokio::task::JoinSet;

use super::*;
use crate::domain::Deadline;
use crate::sinks::probe::{Act, Scripted, chunk, origin};

const ATTEMPT: Duration = Duration::from_secs(5);

fn limits(in_flight: usize) -> Limits {
    Limits {
        records: 4,
        bytes: 100,
        in_flight,
        attempt: ATTEMPT,
    }
}

struct World {
    script: Arc<Scripted>,
    sink: Grouped<Arc<Scripted>>,
    /// The driver, and the writers that tests let run by themselves.
    tasks: JoinSet<Answers>,
}

fn world(limits: Limits, script: impl IntoIterator<Item = Act>) -> World {
    let script = Scripted::new(script);
    let (sink, driver) = grouped(Arc::new(script.clone()), limits, Clock::tokio());
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        driver.await;
        Vec::new()
    });
    World { script, sink, tasks }
}

impl World {
    fn write(&mut self, uid: &str, message: &str) {
        let (sink, one) = (self.sink.clone(), one(uid, message));
        self.tasks.spawn(async move { sink.write(&[one]).await });
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.script.requests.lock().unwrap().clone()
    }

    /// Lets every task run until nothing moves, without moving the clock.
    async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Drops the handle; the driver must end by itself. Answers everything that was answered.
    async fn end(self) -> Vec<Answers> {
        let Self { sink, mut tasks, .. } = self;
        drop(sink);
        let mut all = Vec::new();
        while let Some(answers) = tasks.join_next().await {
            all.push(answers.unwrap());
        }
        all
    }
}

fn one(uid: &str, message: &str) -> Arc<Chunk> {
    Arc::new(chunk(&origin(uid, "app"), 1, &[(1, message.as_bytes())]))
}

#[tokio::test(start_paused = true)]
async fn writers_that_come_during_a_request_share_the_next_one() {
    let mut world = world(limits(1), [Act::Gate]);
    world.write("a", "a");
    world.settle().await;
    for uid in ["b", "c", "d"] {
        world.write(uid, uid);
    }
    world.settle().await;
    assert_eq!(world.requests(), [["a"]]);
    world.script.gate.add_permits(1);
    world.settle().await;
    assert_eq!(world.requests()[1..], [["b", "c", "d"]]);
    let answers = world.end().await;
    assert_eq!(answers.iter().flatten().filter(|a| a.is_ok()).count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_group_keeps_within_its_limits() {
    let mut world = world(limits(1), [Act::Gate]);
    world.write("first", "first");
    world.settle().await;
    for uid in 0..9 {
        world.write(&uid.to_string(), "x");
    }
    world.write("big", &"y".repeat(100));
    world.settle().await;
    world.script.gate.add_permits(1);
    world.settle().await;
    let sizes: Vec<usize> = world.requests().iter().map(Vec::len).collect();
    assert_eq!(
        sizes,
        [1, 4, 4, 1, 1],
        "at most 4 records, and the big one does not fit beside another"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn chunks_of_one_stream_never_overtake_each_other() {
    let mut world = world(limits(3), [Act::Gate]);
    for message in ["1", "2", "3"] {
        world.write("a", message);
        world.settle().await;
    }
    world.write("b", "other");
    world.settle().await;
    assert_eq!(
        world.requests(),
        [["1"], ["other"]],
        "the stream is under way once, others go on"
    );
    world.script.gate.add_permits(1);
    world.settle().await;
    assert_eq!(*world.script.stored.lock().unwrap(), ["other", "1", "2", "3"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_whose_writer_has_gone_is_not_written() {
    let mut world = world(limits(1), [Act::Gate]);
    world.write("a", "a");
    world.settle().await;
    let gone = [one("b", "gone")];
    let mut call = Box::pin(world.sink.write(&gone));
    assert!(poll!(&mut call).is_pending());
    world.settle().await;
    drop(call);
    world.script.gate.add_permits(1);
    world.settle().await;
    world.write("c", "c");
    world.settle().await;
    assert_eq!(world.requests(), [["a"], ["c"]]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_is_fenced_when_its_claim_may_end_during_the_attempt_and_the_others_are_stored() {
    let mut world = world(limits(1), []);
    let clock = Clock::tokio();
    let mut late = one("late", "late");
    Arc::make_mut(&mut late).deadline = Deadline::new(clock.now() + Duration::from_millis(4_999));
    let mut good = one("good", "good");
    Arc::make_mut(&mut good).deadline = Deadline::new(clock.now() + ATTEMPT);
    let answers = world.sink.write(&[late, good]).await;
    assert!(matches!(answers[..], [Err(SinkError::Fenced), Ok(())]), "{answers:?}");
    world.write("x", "x");
    world.settle().await;
    assert_eq!(world.requests(), [["good"], ["x"]]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_claim_is_checked_when_the_turn_comes_and_not_when_the_writer_came() {
    let mut world = world(limits(1), [Act::Gate]);
    world.write("a", "a");
    world.settle().await;
    let claim = Deadline::new(Clock::tokio().now() + ATTEMPT * 2);
    let mut waits = one("b", "b");
    Arc::make_mut(&mut waits).deadline = claim.clone();
    let sink = world.sink.clone();
    world.tasks.spawn(async move { sink.write(&[waits]).await });
    world.settle().await;
    claim.revoke();
    world.script.gate.add_permits(1);
    world.settle().await;
    assert_eq!(world.requests(), [["a"]]);
    let answers = world.end().await;
    assert!(answers.iter().flatten().any(|a| matches!(a, Err(SinkError::Fenced))));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_given_up_and_its_writers_told_to_try_again() {
    let world = world(limits(1), [Act::Stall]);
    let begun = tokio::time::Instant::now();
    let answers = world.sink.write(&[one("a", "a")]).await;
    assert!(matches!(answers[..], [Err(SinkError::Again { .. })]), "{answers:?}");
    assert_eq!(begun.elapsed(), ATTEMPT);
    assert!(world.sink.write(&[one("a", "a")]).await[0].is_ok());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_writer_gets_its_own_answers() {
    let rejected = || Err(SinkError::Rejected("no".into()));
    let script = [Act::Gate, Act::Answer(vec![Ok(()), rejected(), Ok(())])];
    let mut world = world(limits(1), script);
    world.write("a", "a");
    world.settle().await;
    let pair = [one("b", "b"), one("c", "c")];
    let last = [one("d", "d")];
    let (pair, last, ()) = tokio::join!(world.sink.write(&pair), world.sink.write(&last), async {
        world.settle().await;
        world.script.gate.add_permits(1);
    });
    assert!(matches!(pair[..], [Ok(()), Err(SinkError::Rejected(_))]), "{pair:?}");
    assert!(matches!(last[..], [Ok(())]), "{last:?}");
    world.end().await;
}
