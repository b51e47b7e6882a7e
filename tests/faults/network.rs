//! One call to a lock store or a sink while its connection breaks: at every point before a request arrives, and at
//! every point after it took effect but before the reply. Also what problems of the server itself do to a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use podlog::clock::Clock;
use podlog::domain::{
    AcquireRequest, AfterRelease, BackendError, Claim, Fence, LockKey, PodRef, Release, Renewal, RenewalOutcome,
};
use podlog::locks::{self, Holder, LockStore};
use podlog::metrics::Metrics;
use podlog::sinks::{self, Sink};
use sqlx::Row;
use tokio::task::JoinSet;

use crate::chunks::{TestLine, chunk, origin};
use crate::cut_points::{CutCoverage, cut_points};
use crate::database::{Database, execute, on_both};
use crate::proxy::{Proxy, ProxyMode};

async fn holder(url: &str, replica: &str) -> Arc<dyn LockStore> {
    let holder = Holder {
        replica: replica.into(),
        cluster: "here".into(),
        ttl: Duration::from_mins(1),
        takeover_grace: Duration::from_secs(1),
    };
    locks::open(&url.parse().unwrap(), holder).await.unwrap()
}

/// A store of `a` behind a proxy and one of `b` without.
async fn two(database: &Database) -> (Arc<dyn LockStore>, Proxy, Arc<dyn LockStore>) {
    locks::migrate(&database.url.as_str().parse().unwrap()).await.unwrap();
    let proxy = Proxy::to(&database.address()).await;
    let a = holder(&database.through(proxy.port), "a").await;
    (a, proxy, holder(database.url.as_str(), "b").await)
}

fn pod(uid: &str) -> LockKey {
    LockKey::Pod(uid.into())
}

async fn acquire(store: &Arc<dyn LockStore>, key: &LockKey) -> Result<Option<Claim>, BackendError> {
    let (key, pod_ref) = (key.clone(), PodRef::default());
    Ok(store.acquire(&[AcquireRequest { key, pod_ref }]).await?.pop())
}

fn renewal(claim: &Claim, checkpoint: &[u8]) -> [Renewal; 1] {
    [Renewal {
        key: claim.key.clone(),
        fence: claim.fence,
        checkpoint: Some(checkpoint.to_vec()),
    }]
}

fn release(claim: &Claim) -> Vec<Release> {
    let claim = Claim {
        key: claim.key.clone(),
        fence: claim.fence,
        previous: claim.previous,
        checkpoint: Vec::new(),
    };
    vec![Release {
        claim,
        checkpoint: Some(b"final".to_vec()),
        after: AfterRelease::Free,
    }]
}

pub(crate) fn an_acquisition_interrupted_at_any_point_succeeds_once_or_not_at_all() {
    on_both(async |database| {
        let (a, proxy, b) = two(database).await;
        let mut cuts = CutCoverage::default();
        for cut in cut_points() {
            let key = pod(&cut.to_string());
            cut.arm(&proxy);
            let answer = acquire(&a, &key).await;
            cuts.record(&proxy);
            let theirs = acquire(&b, &key).await.unwrap();
            match answer {
                Ok(Some(mine)) => {
                    assert_eq!(theirs, None, "acquired twice when cut at {cut}");
                    assert_eq!(a.renew(&renewal(&mine, b"x")).await.unwrap(), [RenewalOutcome::Held]);
                }
                Ok(None) => panic!("the claim was lost without a rival: {cut}"),
                // It is unknown whether the row was acquired, but exactly one replica has it now.
                Err(error) => {
                    assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
                    let again = acquire(&a, &key).await.unwrap();
                    assert_ne!(again.is_some(), theirs.is_some(), "{cut}");
                }
            }
        }
        // Looking, inserting and reading back, and what a transaction needs.
        cuts.assert_complete(4);
    });
}

pub(crate) fn a_renewal_interrupted_at_any_point_keeps_the_claim_and_the_confirmed_checkpoint() {
    on_both(async |database| {
        let (a, proxy, b) = two(database).await;
        let claim = acquire(&a, &pod("x")).await.unwrap().unwrap();
        let mut cuts = CutCoverage::default();
        for (at, cut) in cut_points().enumerate() {
            // Of a length of its own each, which the table shows.
            let checkpoint = vec![b'x'; at + 1];
            cut.arm(&proxy);
            let answer = a.renew(&renewal(&claim, &checkpoint)).await;
            cuts.record(&proxy);
            let length = b.table().await.unwrap().rows[&claim.key].checkpoint_len as usize;
            match answer {
                Ok(outcomes) => assert_eq!((&outcomes[..], length), (&[RenewalOutcome::Held][..], at + 1), "{cut}"),
                Err(_) => {
                    assert!(length == at || length == at + 1, "{length} after {cut}");
                    let again = a.renew(&renewal(&claim, &checkpoint)).await.unwrap();
                    assert_eq!(again, [RenewalOutcome::Held]);
                }
            }
            assert_eq!(acquire(&b, &claim.key).await.unwrap(), None);
        }
        // Writing and reading back.
        cuts.assert_complete(2);
    });
}

pub(crate) fn a_release_interrupted_at_any_point_frees_the_row_once_with_its_last_checkpoint() {
    on_both(async |database| {
        let (a, proxy, b) = two(database).await;
        let mut cuts = CutCoverage::default();
        for cut in cut_points() {
            let key = pod(&cut.to_string());
            let claim = acquire(&a, &key).await.unwrap().unwrap();
            cut.arm(&proxy);
            let answer = a.release(&release(&claim)).await;
            cuts.record(&proxy);
            if answer.is_err() {
                // As it was or released: sent again it does no harm.
                a.release(&release(&claim)).await.unwrap();
            }
            let next = acquire(&b, &key).await.unwrap().expect("it is free");
            assert!(next.fence > claim.fence && next.checkpoint == b"final", "{next:?}");
            // A late release does not free the row of the next holder.
            a.release(&release(&claim)).await.unwrap();
            assert_eq!(b.renew(&renewal(&next, b"y")).await.unwrap(), [RenewalOutcome::Held]);
        }
        cuts.assert_complete(1);
    });
}

pub(crate) fn a_write_interrupted_at_any_point_is_stored_once() {
    on_both(async |database| {
        let proxy = Proxy::to(&database.address()).await;
        let url = database.through(proxy.port).parse().unwrap();
        sinks::migrate(&url).await.unwrap();
        let metrics = Metrics::default();
        let opened = sinks::open(&url, Clock::boottime(), &metrics, Duration::from_secs(5));
        let opened = opened.await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(opened.driver.map(Result::unwrap));
        let sink: Arc<dyn Sink> = opened.sink;
        let stream = origin("cut");
        let (mut at, mut said) = (None, Vec::new());
        let (mut openings, mut writes) = (CutCoverage::default(), CutCoverage::default());
        for cut in cut_points() {
            // Opening is cut as well as writing.
            let fence = Fence(said.len() as u64 + 1);
            cut.arm(&proxy);
            let position = sink.open(&stream, fence).await.unwrap();
            openings.record(&proxy);
            assert_eq!(position, at, "{cut}");
            let lines: Vec<String> = (0..3).map(|line| format!("{cut} {line}")).collect();
            let numbered: Vec<TestLine<'_>> = lines
                .iter()
                .zip(said.len() as i64..)
                .map(|(line, number)| (number, 0, line.as_bytes()))
                .collect();
            let next = chunk(&stream, fence.0, at, &numbered);
            cut.arm(&proxy);
            assert!(sink.write(std::slice::from_ref(&next)).await[0].is_ok(), "{cut}");
            writes.record(&proxy);
            at = next.end;
            said.extend(lines);
        }
        openings.assert_complete(1);
        writes.assert_complete(1);
        assert_eq!(messages(database, "cut").await, said);
    });
}

pub(crate) fn calls_to_a_refusing_or_silent_store_fail_in_time_and_work_again_later() {
    on_both(async |database| {
        let (a, proxy, b) = two(database).await;
        let claim = acquire(&a, &pod("x")).await.unwrap().unwrap();
        for way in [ProxyMode::Refused, ProxyMode::Frozen] {
            proxy.set(way);
            for _ in 0..2 {
                let asked = Instant::now();
                let error = a.renew(&renewal(&claim, b"away")).await.unwrap_err();
                assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
                assert!(asked.elapsed() < Duration::from_millis(3500), "{:?}", asked.elapsed());
            }
            assert_eq!(acquire(&b, &claim.key).await.unwrap(), None, "the claim is still held");
            proxy.set(ProxyMode::Open);
            let back = Instant::now();
            assert_eq!(
                a.renew(&renewal(&claim, b"back")).await.unwrap(),
                [RenewalOutcome::Held]
            );
            assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
        }
    });
}

pub(crate) fn many_replicas_can_create_the_tables_at_once() {
    on_both(async |database| {
        let (lock, sink) = (
            database.url.as_str().parse().unwrap(),
            database.url.as_str().parse().unwrap(),
        );
        let both = (0..6).map(async |_| {
            locks::migrate(&lock).await.unwrap();
            sinks::migrate(&sink).await.unwrap();
        });
        futures::future::join_all(both).await;
    });
}

/// How many deadlocks the server has seen.
async fn deadlocks(database: &Database) -> i64 {
    let count = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'";
    sqlx::query(count)
        .fetch_one(&mut database.sql().await)
        .await
        .unwrap()
        .get(0)
}

pub(crate) fn many_deadlocks_delay_renewals_but_cost_no_claim() {
    on_both(async |database| {
        let (a, _proxy, _) = two(database).await;
        let request = |n: usize| AcquireRequest {
            key: pod(&format!("{n:03}")),
            pod_ref: PodRef::default(),
        };
        let claims = a.acquire(&(0..100).map(request).collect::<Vec<_>>()).await.unwrap();
        let renewals: Vec<Renewal> = claims.iter().flat_map(|claim| renewal(claim, b"1")).collect();
        let before = deadlocks(database).await;
        // Two clients that update single rows of these in an order of their own, and hold them for a while.
        let rogue = async |backwards: bool| {
            let mut sql = database.sql().await;
            loop {
                execute(&mut sql, "START TRANSACTION").await;
                for n in [0, 33, 66, 99] {
                    let n = if backwards { 99 - n } else { n };
                    let update =
                        format!("UPDATE distributed_lock SET node = 'r' WHERE id = 'pod/{n:03}' AND cluster = 'here'");
                    if sqlx::query(sqlx::AssertSqlSafe(update))
                        .execute(&mut sql)
                        .await
                        .is_err()
                    {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                execute(&mut sql, "COMMIT").await;
            }
        };
        let renew = async {
            for _ in 0..60 {
                let outcomes = a.renew(&renewals).await.unwrap();
                assert!(
                    outcomes.iter().all(|outcome| *outcome != RenewalOutcome::Lost),
                    "{outcomes:?}"
                );
            }
        };
        tokio::select! {
            biased;
            () = renew => {}
            () = async { tokio::join!(rogue(false), rogue(true)); } => unreachable!("they do not end"),
        }
        let seen = deadlocks(database).await - before;
        println!("{seen} deadlocks");
        assert!(seen > 100, "only {seen} deadlocks");
        assert!(
            a.renew(&renewals)
                .await
                .unwrap()
                .iter()
                .all(|outcome| *outcome == RenewalOutcome::Held)
        );
    });
}

pub(crate) fn a_killed_statement_is_sent_again() {
    on_both(async |database| {
        let (a, _proxy, _) = two(database).await;
        let claim = acquire(&a, &pod("x")).await.unwrap().unwrap();
        let mut person = database.sql().await;
        execute(&mut person, "START TRANSACTION").await;
        execute(&mut person, "UPDATE distributed_lock SET node = 'r'").await;
        let kill = async {
            let find = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                 WHERE db = DATABASE() AND id <> CONNECTION_ID() AND info LIKE 'UPDATE JSON_TABLE%'";
            let mut sql = database.sql().await;
            let id = crate::database::until("the statement waits", Duration::from_secs(5), async || {
                let row = sqlx::query(find).fetch_optional(&mut sql).await.unwrap();
                row.map(|row| row.get::<i64, _>(0))
                    .ok_or_else(|| "it is not there".to_owned())
            });
            let id = id.await;
            database.execute(&format!("KILL QUERY {id}")).await;
            execute(&mut person, "ROLLBACK").await;
        };
        let one = renewal(&claim, b"one");
        let (outcomes, ()) = tokio::join!(a.renew(&one), kill);
        assert_eq!(outcomes.unwrap(), [RenewalOutcome::Held]);
    });
}

pub(crate) fn rows_restored_to_an_earlier_state_are_acquired_under_larger_fences() {
    on_both(async |database| {
        let (a, _proxy, b) = two(database).await;
        let key = pod("x");
        let first = acquire(&a, &key).await.unwrap().unwrap();
        database
            .execute("CREATE TABLE snapshot AS SELECT * FROM distributed_lock")
            .await;
        // After the snapshot it changes hands twice.
        a.release(&release(&first)).await.unwrap();
        let second = acquire(&b, &key).await.unwrap().unwrap();
        b.release(&release(&second)).await.unwrap();
        let third = acquire(&a, &key).await.unwrap().unwrap();
        let mut person = database.sql().await;
        for statement in [
            "START TRANSACTION",
            "DELETE FROM distributed_lock",
            "INSERT INTO distributed_lock SELECT * FROM snapshot",
            "COMMIT",
        ] {
            execute(&mut person, statement).await;
        }
        assert_eq!(a.renew(&renewal(&third, b"x")).await.unwrap(), [RenewalOutcome::Lost]);
        execute(
            &mut person,
            "UPDATE distributed_lock SET expires_at = expires_at - INTERVAL 1 HOUR",
        )
        .await;
        let fourth = acquire(&b, &key).await.unwrap().unwrap();
        assert!(fourth.fence > third.fence, "{} after {}", fourth.fence, third.fence);
    });
}

/// The messages stored of a stream, in the stored order.
async fn messages(database: &Database, uid: &str) -> Vec<String> {
    let query = format!(
        "SELECT CONVERT(r.message USING utf8mb4) FROM log_record r JOIN log_stream s ON s.id = r.stream \
         WHERE s.uid = '{uid}' ORDER BY r.seq"
    );
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query));
    query.fetch_all(&mut database.sql().await).await.unwrap()
}
