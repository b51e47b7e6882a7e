//! Tests of group commit on a paused clock, with a sink that follows a script.

use std::time::Duration;

use futures::poll;
use tokio::task::JoinSet;

use super::*;
use crate::domain::Deadline;
use crate::sinks::fixtures::{Reaction, ScriptedSink, chunk, origin};

const ATTEMPT: Duration = Duration::from_secs(5);

fn limits(in_flight: usize) -> GroupLimits {
    GroupLimits {
        records: 4,
        bytes: 100,
        in_flight,
        attempt: ATTEMPT,
    }
}

struct GroupFixture {
    script: Arc<ScriptedSink>,
    sink: Grouped<Arc<ScriptedSink>>,
    /// The driver, and the writers that run in the background.
    tasks: JoinSet<WriteResults>,
}

fn fixture(limits: GroupLimits, script: impl IntoIterator<Item = Reaction>) -> GroupFixture {
    let script = ScriptedSink::new(script);
    let (sink, driver) = grouped(Arc::new(script.clone()), limits, Clock::tokio());
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        driver.await;
        Vec::new()
    });
    GroupFixture { script, sink, tasks }
}

impl GroupFixture {
    fn write(&mut self, uid: &str, message: &str) {
        let (sink, one) = (self.sink.clone(), one(uid, message));
        self.tasks.spawn(async move { sink.write(&[one]).await });
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.script.requests.lock().unwrap().clone()
    }

    /// Lets every task run until all of them wait, without advancing the clock.
    async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Drops the handle, so that the driver must end. Returns the results of all background writes.
    async fn end(self) -> Vec<WriteResults> {
        let Self { sink, mut tasks, .. } = self;
        drop(sink);
        let mut all = Vec::new();
        while let Some(results) = tasks.join_next().await {
            all.push(results.unwrap());
        }
        all
    }
}

fn one(uid: &str, message: &str) -> Arc<Chunk> {
    Arc::new(chunk(&origin(uid, "app"), 1, &[(1, message.as_bytes())]))
}

#[tokio::test(start_paused = true)]
async fn writes_that_arrive_during_a_request_share_the_next_one() {
    let mut fixture = fixture(limits(1), [Reaction::Gate]);
    fixture.write("a", "a");
    fixture.settle().await;
    for uid in ["b", "c", "d"] {
        fixture.write(uid, uid);
    }
    fixture.settle().await;
    assert_eq!(fixture.requests(), [["a"]]);
    fixture.script.gate.add_permits(1);
    fixture.settle().await;
    assert_eq!(fixture.requests()[1..], [["b", "c", "d"]]);
    let results = fixture.end().await;
    assert_eq!(results.iter().flatten().filter(|a| a.is_ok()).count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_group_stays_within_its_limits() {
    let mut fixture = fixture(limits(1), [Reaction::Gate]);
    fixture.write("first", "first");
    fixture.settle().await;
    for uid in 0..9 {
        fixture.write(&uid.to_string(), "x");
    }
    fixture.write("big", &"y".repeat(100));
    fixture.settle().await;
    fixture.script.gate.add_permits(1);
    fixture.settle().await;
    let sizes: Vec<usize> = fixture.requests().iter().map(Vec::len).collect();
    assert_eq!(
        sizes,
        [1, 4, 4, 1, 1],
        "at most 4 records, and the big one in a request of its own"
    );
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn chunks_of_one_stream_are_written_in_order() {
    let mut fixture = fixture(limits(3), [Reaction::Gate]);
    for message in ["1", "2", "3"] {
        fixture.write("a", message);
        fixture.settle().await;
    }
    fixture.write("b", "other");
    fixture.settle().await;
    assert_eq!(
        fixture.requests(),
        [["1"], ["other"]],
        "one chunk of a stream is written at a time, and other streams are not delayed"
    );
    fixture.script.gate.add_permits(1);
    fixture.settle().await;
    assert_eq!(*fixture.script.stored.lock().unwrap(), ["other", "1", "2", "3"]);
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_whose_write_was_cancelled_is_not_written() {
    let mut fixture = fixture(limits(1), [Reaction::Gate]);
    fixture.write("a", "a");
    fixture.settle().await;
    let gone = [one("b", "gone")];
    let mut call = Box::pin(fixture.sink.write(&gone));
    assert!(poll!(&mut call).is_pending());
    fixture.settle().await;
    drop(call);
    fixture.script.gate.add_permits(1);
    fixture.settle().await;
    fixture.write("c", "c");
    fixture.settle().await;
    assert_eq!(fixture.requests(), [["a"], ["c"]]);
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_whose_claim_may_end_during_the_attempt_is_fenced_and_the_others_are_stored() {
    let mut fixture = fixture(limits(1), []);
    let clock = Clock::tokio();
    let mut expiring = one("late", "late");
    Arc::make_mut(&mut expiring).deadline = Deadline::new(clock.now() + Duration::from_millis(4_999));
    let mut good = one("good", "good");
    Arc::make_mut(&mut good).deadline = Deadline::new(clock.now() + ATTEMPT);
    let results = fixture.sink.write(&[expiring, good]).await;
    assert!(matches!(results[..], [Err(SinkError::Fenced), Ok(())]), "{results:?}");
    fixture.write("x", "x");
    fixture.settle().await;
    assert_eq!(fixture.requests(), [["good"], ["x"]]);
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_claim_is_checked_when_the_attempt_begins() {
    let mut fixture = fixture(limits(1), [Reaction::Gate]);
    fixture.write("a", "a");
    fixture.settle().await;
    let claim = Deadline::new(Clock::tokio().now() + ATTEMPT * 2);
    let mut waits = one("b", "b");
    Arc::make_mut(&mut waits).deadline = claim.clone();
    let sink = fixture.sink.clone();
    fixture.tasks.spawn(async move { sink.write(&[waits]).await });
    fixture.settle().await;
    claim.revoke();
    fixture.script.gate.add_permits(1);
    fixture.settle().await;
    assert_eq!(fixture.requests(), [["a"]]);
    let results = fixture.end().await;
    assert!(results.iter().flatten().any(|a| matches!(a, Err(SinkError::Fenced))));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_cancelled_and_answered_with_again() {
    let fixture = fixture(limits(1), [Reaction::Stall]);
    let begun = tokio::time::Instant::now();
    let results = fixture.sink.write(&[one("a", "a")]).await;
    assert!(matches!(results[..], [Err(SinkError::Again { .. })]), "{results:?}");
    assert_eq!(begun.elapsed(), ATTEMPT);
    assert!(fixture.sink.write(&[one("a", "a")]).await[0].is_ok());
    fixture.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_writer_gets_its_own_results() {
    let rejected = || Err(SinkError::Rejected("no".into()));
    let script = [Reaction::Gate, Reaction::Answer(vec![Ok(()), rejected(), Ok(())])];
    let mut fixture = fixture(limits(1), script);
    fixture.write("a", "a");
    fixture.settle().await;
    let pair = [one("b", "b"), one("c", "c")];
    let last = [one("d", "d")];
    let (pair, last, ()) = tokio::join!(fixture.sink.write(&pair), fixture.sink.write(&last), async {
        fixture.settle().await;
        fixture.script.gate.add_permits(1);
    });
    assert!(matches!(pair[..], [Ok(()), Err(SinkError::Rejected(_))]), "{pair:?}");
    assert!(matches!(last[..], [Ok(())]), "{last:?}");
    fixture.end().await;
}
