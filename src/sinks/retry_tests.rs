//! Tests of trying again on a paused clock, with a sink that follows a script.

use std::time::Duration;

use super::*;
use crate::domain::Deadline;
use crate::sinks::group::{Limits, grouped};
use crate::sinks::probe::{Act, Scripted, again, chunk, origin};

fn retrying(script: &Arc<Scripted>) -> Retrying<Arc<Scripted>> {
    Retrying::new(script.clone(), Clock::tokio(), Metrics::default())
}

fn one(uid: &str) -> Arc<Chunk> {
    Arc::new(chunk(&origin(uid, "app"), 1, &[(1, uid.as_bytes())]))
}

#[tokio::test(start_paused = true)]
async fn only_what_answered_again_is_sent_again() {
    let rejected = || Err(SinkError::Rejected("no".into()));
    let mixed = vec![
        Ok(()),
        Err(again(None)),
        rejected(),
        Err(SinkError::Fenced),
        Err(again(None)),
    ];
    let script = Scripted::new([Act::Answer(mixed)]);
    let sink = retrying(&script);
    let answers = sink.write(&["a", "b", "c", "d", "e"].map(one)).await;
    assert!(
        matches!(
            answers[..],
            [
                Ok(()),
                Ok(()),
                Err(SinkError::Rejected(_)),
                Err(SinkError::Fenced),
                Ok(())
            ]
        ),
        "{answers:?}"
    );
    assert_eq!(script.requests.lock().unwrap()[1..], [["b", "e"]]);
    assert_eq!(sink.metrics.write_retries.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn waits_grow_to_the_limit_and_honour_what_the_sink_asks_for() {
    let script = Scripted::new((0..12).map(|_| Act::Again(None)));
    let begun = tokio::time::Instant::now();
    retrying(&script).write(&[one("a")]).await;
    // 0.2 + 0.4 + … + 25.6 = 51 s, then 4 x 30 s; jitter takes off up to half.
    let took = begun.elapsed().as_secs();
    assert!((85..=171).contains(&took), "{took}");

    let script = Scripted::new([Act::Again(Some(Duration::from_mins(2)))]);
    let begun = tokio::time::Instant::now();
    retrying(&script).write(&[one("a")]).await;
    assert_eq!(begun.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_ended_during_the_wait_is_fenced_and_nothing_is_sent() {
    let script = Scripted::new([Act::Again(None)]);
    let mut late = one("late");
    Arc::make_mut(&mut late).deadline = Deadline::new(Clock::tokio().now() + Duration::from_millis(50));
    let answers = retrying(&script).write(&[late, one("good")]).await;
    assert!(matches!(answers[..], [Err(SinkError::Fenced), Ok(())]), "{answers:?}");
    assert_eq!(script.requests.lock().unwrap()[1..], [["good"]]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_tried_again_and_a_stalled_one_too() {
    let script = Scripted::new([Act::LoseReply, Act::Stall, Act::Store]);
    let limits = Limits::default();
    let (sink, driver) = grouped(Arc::new(script.clone()), limits, Clock::tokio());
    let sink = Retrying::new(sink, Clock::tokio(), Metrics::default());
    let write = async move {
        let answers = sink.write(&[one("a")]).await;
        drop(sink);
        answers
    };
    let (answers, ()) = tokio::join!(write, driver);
    assert!(answers[0].is_ok());
    assert_eq!(script.requests.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_ends_the_tries_and_the_trouble() {
    let script = Scripted::new((0..1000).map(|_| Act::Again(None)));
    let sink = retrying(&script);
    let chunks = [one("a")];
    let call = sink.write(&chunks);
    assert!(tokio::time::timeout(Duration::from_mins(1), call).await.is_err());
    let tries = script.requests.lock().unwrap().len();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(script.requests.lock().unwrap().len(), tries);
    let trouble = sink.trouble.lock().unwrap();
    assert_eq!((trouble.writers, trouble.begun.is_none()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_trouble_of_many_writers_is_logged_once() {
    let script = Scripted::new((0..20).map(|_| Act::Again(None)));
    let sink = retrying(&script);
    let chunks: Vec<[Arc<Chunk>; 1]> = (0..5).map(|n| [one(&n.to_string())]).collect();
    let logged = || sink.trouble.lock().unwrap().logged;
    futures::future::join_all(chunks.iter().map(|c| sink.write(c))).await;
    let first = logged();
    assert!(first.is_some());
    sink.failed(true, "again, within half a minute");
    sink.ended();
    assert_eq!(logged(), first);
    tokio::time::sleep(QUIET).await;
    sink.failed(true, "much later");
    assert_ne!(logged(), first);
}

#[tokio::test(start_paused = true)]
async fn a_trouble_that_lasts_is_logged_though_it_began_soon_after_another() {
    let sink = retrying(&Scripted::new([]));
    let logged = || sink.trouble.lock().unwrap().logged;
    sink.failed(true, "for a moment");
    sink.ended();
    let first = logged();
    tokio::time::sleep(Duration::from_secs(5)).await;
    sink.failed(true, "for long");
    assert_eq!(logged(), first, "it may pass as the first did");
    tokio::time::sleep(QUIET).await;
    sink.failed(false, "for long");
    let second = logged();
    assert_ne!(second, first);
    tokio::time::sleep(QUIET).await;
    sink.failed(false, "for long");
    assert_eq!(logged(), second, "once is enough");
}
