//! Tests of retries on a paused clock, with a sink that follows a script.

use std::time::Duration;

use super::*;
use crate::domain::Deadline;
use crate::sinks::fixtures::{Reaction, ScriptedSink, again, chunk, origin};
use crate::sinks::group::{GroupLimits, grouped};

fn retrying(script: &Arc<ScriptedSink>) -> Retrying<Arc<ScriptedSink>> {
    Retrying::new(script.clone(), Clock::tokio(), Metrics::default())
}

fn one(uid: &str) -> Arc<Chunk> {
    Arc::new(chunk(&origin(uid, "app"), 1, &[(1, uid.as_bytes())]))
}

#[tokio::test(start_paused = true)]
async fn only_chunks_answered_with_again_are_sent_again() {
    let rejected = || Err(SinkError::Rejected("no".into()));
    let mixed = vec![
        Ok(()),
        Err(again(None)),
        rejected(),
        Err(SinkError::Fenced),
        Err(again(None)),
    ];
    let script = ScriptedSink::new([Reaction::Answer(mixed)]);
    let sink = retrying(&script);
    let results = sink.write(&["a", "b", "c", "d", "e"].map(one)).await;
    assert!(
        matches!(
            results[..],
            [
                Ok(()),
                Ok(()),
                Err(SinkError::Rejected(_)),
                Err(SinkError::Fenced),
                Ok(())
            ]
        ),
        "{results:?}"
    );
    assert_eq!(script.requests.lock().unwrap()[1..], [["b", "e"]]);
    assert_eq!(sink.metrics.write_retries.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_to_the_limit_and_respect_the_pause_the_sink_asks_for() {
    let script = ScriptedSink::new((0..12).map(|_| Reaction::Again(None)));
    let begun = tokio::time::Instant::now();
    retrying(&script).write(&[one("a")]).await;
    // 0.2 + 0.4 + … + 25.6 = 51 s, then 4 x 30 s; jitter takes off up to half.
    let took = begun.elapsed().as_secs();
    assert!((85..=171).contains(&took), "{took}");

    let script = ScriptedSink::new([Reaction::Again(Some(Duration::from_mins(2)))]);
    let begun = tokio::time::Instant::now();
    retrying(&script).write(&[one("a")]).await;
    assert_eq!(begun.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_whose_claim_ended_during_the_pause_is_fenced_and_not_sent() {
    let script = ScriptedSink::new([Reaction::Again(None)]);
    let mut expiring = one("late");
    Arc::make_mut(&mut expiring).deadline = Deadline::new(Clock::tokio().now() + Duration::from_millis(50));
    let results = retrying(&script).write(&[expiring, one("good")]).await;
    assert!(matches!(results[..], [Err(SinkError::Fenced), Ok(())]), "{results:?}");
    assert_eq!(script.requests.lock().unwrap()[1..], [["good"]]);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_reply_is_lost_or_late_is_repeated() {
    let script = ScriptedSink::new([Reaction::LoseReply, Reaction::Stall, Reaction::Store]);
    let limits = GroupLimits::default();
    let (sink, driver) = grouped(Arc::new(script.clone()), limits, Clock::tokio());
    let sink = Retrying::new(sink, Clock::tokio(), Metrics::default());
    let write = async move {
        let results = sink.write(&[one("a")]).await;
        drop(sink);
        results
    };
    let (results, ()) = tokio::join!(write, driver);
    assert!(results[0].is_ok());
    assert_eq!(script.requests.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_ends_the_attempts_and_the_outage() {
    let script = ScriptedSink::new((0..1000).map(|_| Reaction::Again(None)));
    let sink = retrying(&script);
    let chunks = [one("a")];
    let call = sink.write(&chunks);
    assert!(tokio::time::timeout(Duration::from_mins(1), call).await.is_err());
    let tries = script.requests.lock().unwrap().len();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(script.requests.lock().unwrap().len(), tries);
    let outage = sink.outage.lock().unwrap();
    assert_eq!((outage.writers, outage.begun.is_none()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_many_writers_is_logged_once() {
    let script = ScriptedSink::new((0..20).map(|_| Reaction::Again(None)));
    let sink = retrying(&script);
    let chunks: Vec<[Arc<Chunk>; 1]> = (0..5).map(|n| [one(&n.to_string())]).collect();
    let logged = || sink.outage.lock().unwrap().logged;
    futures::future::join_all(chunks.iter().map(|c| sink.write(c))).await;
    let first = logged();
    assert!(first.is_some());
    sink.record_failure(true, "half a minute has not passed");
    sink.record_end();
    assert_eq!(logged(), first);
    tokio::time::sleep(LOG_INTERVAL).await;
    sink.record_failure(true, "much later");
    assert_ne!(logged(), first);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_is_logged_even_if_it_began_soon_after_another() {
    let sink = retrying(&ScriptedSink::new([]));
    let logged = || sink.outage.lock().unwrap().logged;
    sink.record_failure(true, "for a moment");
    sink.record_end();
    let first = logged();
    tokio::time::sleep(Duration::from_secs(5)).await;
    sink.record_failure(true, "for long");
    assert_eq!(logged(), first, "it may be as short as the first");
    tokio::time::sleep(LOG_INTERVAL).await;
    sink.record_failure(false, "for long");
    let second = logged();
    assert_ne!(second, first);
    tokio::time::sleep(LOG_INTERVAL).await;
    sink.record_failure(false, "for long");
    assert_eq!(logged(), second, "an outage is logged once");
}
