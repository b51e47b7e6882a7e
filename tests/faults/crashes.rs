//! Faults that need a database server of the test's own: a crash, read-only mode, no free connection, a wrong clock.
//! The server's defaults are unusual, so that no statement of podlog can rely on the usual ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use sqlx::{Connection, MySqlConnection};

use crate::database::{Claim, Database, execute, until};
use crate::fixture::{Fixture, PATIENCE};
use crate::proxy::ProxyMode;
use crate::replica::{DEADLINE, Replica, TTL};
use crate::server::{Variable, on_own};
use crate::servers;
use crate::signals::FAKETIME;
use crate::silence::{BUSY, assert_silent, falls_silent, sent};

/// Unusual defaults of a server, which podlog must not rely on.
const ODD: [&str; 3] = [
    "--default-time-zone=-07:00",
    "--transaction-isolation=SERIALIZABLE",
    "--sql-mode=",
];

/// The environment of a server with the right time.
fn plain(_: &str) -> Vec<Variable> {
    Vec::new()
}

/// When a server is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CrashPoint {
    InSteadyState,
    /// A statement of a replica has written some of the rows to acquire, and waits for the next.
    InAClaim,
    /// The statement has claimed rows, and the replica does not know it.
    BeforeItsAnswer,
}

/// How many pods come when a server is to be killed while they are claimed.
const NEW_PODS: usize = 24;

/// What a replica logs when it begins a hold-off.
const HELD_OFF: &str = "this replica acquires no pod for one ttl";

/// Brings the server and the replicas to such a point; returns the connection that keeps them there.
async fn claiming(fixture: &Fixture<'_>, replicas: &[Replica], when: CrashPoint) -> Option<MySqlConnection> {
    if when == CrashPoint::InSteadyState {
        return None;
    }
    fixture.api.set(ProxyMode::Frozen);
    let last = fixture.more_pods(NEW_PODS).into_iter().max().unwrap();
    let mut person = fixture.database.sql().await;
    let mut watch = fixture.database.sql().await;
    let query = if when == CrashPoint::InAClaim {
        // Rows are written in the order of their keys, and the last one is taken.
        let cluster = sqlx::query_scalar("SELECT CONVERT(MAX(cluster) USING utf8mb4) FROM distributed_lock");
        let cluster: String = cluster.fetch_one(&mut person).await.unwrap();
        execute(&mut person, "START TRANSACTION").await;
        let row = format!(
            "INSERT INTO distributed_lock (cluster, id, fence, expires_at) \
             VALUES ('{cluster}', 'pod/{last}', 1, UTC_TIMESTAMP(6))"
        );
        execute(&mut person, &row).await;
        "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
             ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT' \
             AND p.info LIKE 'INSERT INTO distributed_lock%' AND t.trx_rows_modified > 1"
    } else {
        replicas
            .iter()
            .for_each(|replica| replica.lock.delay(Duration::from_millis(300)));
        "SELECT COUNT(*) FROM distributed_lock WHERE id LIKE 'pod/%' AND acquired_at > UTC_TIMESTAMP(6) - INTERVAL 300000 MICROSECOND"
    };
    fixture.api.set(ProxyMode::Open);
    until("pods are being claimed", PATIENCE, async || {
        let found: i64 = sqlx::query_scalar(query).fetch_one(&mut watch).await.unwrap();
        (found > 0).then_some(()).ok_or_else(|| "none is".to_owned())
    })
    .await;
    Some(person)
}

pub(crate) fn a_killed_database_comes_back_with_every_claim_and_every_line_once() {
    on_own(&ODD, plain, async |server| {
        let database = Database::new(&server.url()).await;
        let mut fixture = Fixture::new(&database, 8).await;
        let replicas = fixture.replicas(["a", "b"]).await;
        for (round, when) in [
            CrashPoint::InSteadyState,
            CrashPoint::InAClaim,
            CrashPoint::BeforeItsAnswer,
        ]
        .into_iter()
        .enumerate()
        {
            fixture.progress(3).await;
            let before = database.claims().await;
            let person = claiming(&fixture, &replicas, when).await;
            let crashed = Instant::now();
            server.crash().await;
            drop(person);
            replicas.iter().for_each(|replica| replica.lock.delay(Duration::ZERO));
            let up = crashed.elapsed();
            fixture.all_held_by(&["a", "b"]).await;
            fixture.progress(2).await;
            println!(
                "{} killed {when:?}: up after {up:?}, all streams after {:?}",
                server.name(),
                crashed.elapsed()
            );
            let after = database.claims().await;
            for (uid, claim) in &before {
                assert!(
                    after[uid].fence >= claim.fence,
                    "round {round}: {uid}: {:?} after {claim:?}",
                    after[uid]
                );
            }
        }
        fixture.finish_exactly(&format!("kill -9 of {}", server.name())).await;
    });
}

pub(crate) fn a_database_that_becomes_read_only_is_abandoned_and_used_again_when_writable() {
    on_own(&[], plain, async |server| {
        let database = Database::new(&server.url()).await;
        let mut fixture = Fixture::new(&database, 8).await;
        let all = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        // Shorter than a claim lasts: nothing moves.
        server.execute("SET GLOBAL read_only = 1").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.execute("SET GLOBAL read_only = 0").await;
        fixture.progress(2).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        // Longer: all stop.
        server.execute("SET GLOBAL read_only = 1").await;
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        let stored = fixture.stored().await;
        assert!(database.shares().await.is_empty());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(fixture.stored().await, stored, "somebody writes");
        let back = Instant::now();
        server.execute("SET GLOBAL read_only = 0").await;
        fixture.progress(2).await;
        println!(
            "{} read-only: all streams continued {:?} after it was over",
            server.name(),
            back.elapsed()
        );
        assert!(
            all.iter().all(|replica| replica.said("read-only") > 0),
            "{}",
            all[0].log_text()
        );
        fixture.finish_exactly(&format!("{} read-only", server.name())).await;
    });
}

pub(crate) fn claims_on_a_read_only_server_end_although_the_sink_accepts_records() {
    on_own(&[], plain, async |server| {
        let other = server.another().await;
        let (database, records) = (Database::new(&server.url()).await, Database::new(&other.url()).await);
        let mut fixture = Fixture::new(&database, 8).await;
        fixture.records = &records;
        let all = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let claims = database.claims().await;
        let begun = Instant::now();
        server.execute("SET GLOBAL read_only = 1").await;
        let silent =
            futures::future::join_all(all.iter().map(|replica| falls_silent(&fixture, &claims, replica))).await;
        println!("{} read-only: silent after {silent:?}", server.name());
        assert!(silent.iter().all(|silent| *silent < DEADLINE + BUSY), "{silent:?}");
        let rest = (TTL + Duration::from_secs(1)).saturating_sub(begun.elapsed());
        assert_silent(&sent(&all.each_ref(), rest).await);
        assert!(database.shares().await.is_empty());
        server.execute("SET GLOBAL read_only = 0").await;
        fixture.all_held_by(&["a", "b"]).await;
        fixture.progress(2).await;
        let what = format!("claims of {} read-only, records elsewhere", server.name());
        fixture.finish_exactly(&what).await;
    });
}

pub(crate) fn expiry_times_of_a_replaced_server_are_not_trusted_for_one_ttl() {
    on_own(&[], plain, async |server| {
        let database = Database::new(&server.url()).await;
        let mut fixture = Fixture::new(&database, 8).await;
        let [mut a, b] = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        // Its claims have expired when the other server comes, and yet they must be left alone for a ttl.
        b.signal(Signal::STOP);
        a.kill().await;
        server.stop().await;
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        server.replace().await;
        let begun = Instant::now();
        b.signal(Signal::CONT);
        let ended = assert_no_claim_moves_for_one_ttl(&database, &before).await;
        assert_eq!(
            (ended, b.said("another database server answers")),
            (8, 1),
            "{}",
            b.log_text()
        );
        fixture.all_held_by(&["b"]).await;
        println!("another {}: claimed after {:?}", server.name(), begun.elapsed());
        let after = database.claims().await;
        assert!(
            before.iter().all(|(uid, claim)| after[uid].fence > claim.fence),
            "{after:?}"
        );
        fixture.progress(2).await;
        fixture.finish_exactly(&format!("another {}", server.name())).await;
    });
}

/// Takes all connections that the server has left for ordinary users.
async fn take_all_connections(server: &str) -> Vec<MySqlConnection> {
    let mut all = Vec::new();
    loop {
        match MySqlConnection::connect(server).await {
            Ok(conn) => all.push(conn),
            Err(error) => {
                assert!(error.to_string().contains("oo many connections"), "{error}");
                return all;
            }
        }
    }
}

pub(crate) fn renewals_continue_when_the_server_has_no_free_connection() {
    on_own(&["--max-connections=40"], plain, async |server| {
        let database = Database::new(&server.url()).await;
        let mut fixture = Fixture::new(&database, 8).await;
        let all = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        let connections = take_all_connections(database.url.as_str()).await;
        assert!(!connections.is_empty());
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        // Now their own connections break, and none can be had.
        let proxies = || all.iter().flat_map(|replica| [&replica.lock, &replica.sink]);
        proxies().for_each(|proxy| proxy.set(ProxyMode::Refused));
        let more = take_all_connections(database.url.as_str()).await;
        proxies().for_each(|proxy| proxy.set(ProxyMode::Open));
        until("all claims have ended", PATIENCE, async || {
            let held = database
                .claims()
                .await
                .into_values()
                .filter(|claim| claim.holder.is_some())
                .count();
            (held == 0).then_some(()).ok_or_else(|| format!("{held} have not"))
        })
        .await;
        drop((connections, more));
        let back = Instant::now();
        fixture.progress(2).await;
        println!(
            "{}: all streams continued {:?} after there were connections",
            server.name(),
            back.elapsed()
        );
        fixture
            .finish_exactly(&format!("{} without connections", server.name()))
            .await;
    });
}

/// Writes what libfaketime is to do: an offset in seconds.
fn set_clock(file: &Path, offset: i64) {
    std::fs::write(file, format!("{offset:+}")).unwrap();
}

/// Watches claims for one ttl: each may end, and no replica may get one, not even its last holder. Returns how
/// many have ended.
async fn assert_no_claim_moves_for_one_ttl(database: &Database, before: &Claims) -> usize {
    let begun = Instant::now();
    let mut ended = 0;
    loop {
        let now = database.claims().await;
        // What was asked for in time may have been answered too late to say anything.
        if begun.elapsed() >= TTL {
            return ended;
        }
        for (uid, claim) in before {
            let (now, after) = (&now[uid], begun.elapsed());
            assert_eq!(
                now.fence, claim.fence,
                "{uid} was claimed {after:?} after the server had changed"
            );
            assert!(now.holder.is_none() || now.holder == claim.holder, "{uid}: {now:?}");
        }
        ended = now.values().filter(|claim| claim.holder.is_none()).count();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

type Claims = BTreeMap<String, Claim>;

/// Lets a clock jump. Returns the claims before, with how many of them ended in a ttl, and with those afterwards.
async fn jump(fixture: &Fixture<'_>, turn: impl FnOnce()) -> (Claims, usize, Claims) {
    let before = fixture.even(&["a", "b"]).await;
    turn();
    let ended = assert_no_claim_moves_for_one_ttl(fixture.database, &before).await;
    fixture.all_held_by(&["a", "b"]).await;
    fixture.progress(2).await;
    let after = fixture.database.claims().await;
    let moved = before.iter().filter(|(uid, claim)| after[*uid].holder != claim.holder);
    println!("{ended} of {} claims ended, {} pods moved", before.len(), moved.count());
    (before, ended, after)
}

/// When the clocks of Berlin went from 3:00 back to 2:00: 25 October 2026, 1:00 UTC.
const BACK_TO_WINTER: i64 = 1_792_890_000;

/// The time in UTC, and what the server's zone makes of it.
async fn time_of(database: &Database) -> String {
    let time = sqlx::query_scalar("SELECT CONCAT(UTC_TIMESTAMP(), ' ', NOW())");
    time.fetch_one(&mut database.sql().await).await.unwrap()
}

/// Waits until the clocks have gone back, and asserts that no claim has changed.
async fn summer_time_ends(database: &Database, before: &Claims) {
    let time = time_of(database).await;
    assert!(
        time.as_str() < "2026-10-25 01:00:00",
        "the clocks went back too soon: {time}"
    );
    until("the clocks have gone back", PATIENCE, async || {
        let time = time_of(database).await;
        (time.as_str() > "2026-10-25 01:00:03").then_some(()).ok_or(time)
    })
    .await;
    assert_eq!(
        database.claims().await,
        *before,
        "claims have moved when summer time ended"
    );
}

pub(crate) fn a_clock_jump_moves_no_pod_for_one_ttl_and_a_jump_back_or_a_time_zone_none_at_all() {
    if !Path::new(FAKETIME).exists() {
        return servers::skip(&format!("there is no {FAKETIME}: install faketime"));
    }
    // Each server has a clock of its own: one comes up sooner than the other.
    let clocks = tempfile::tempdir().unwrap();
    let clock = |name: &str| clocks.path().join(name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    // The change to winter time comes when the replicas are at work, also on a busy machine.
    let offset = BACK_TO_WINTER - 90 - now;
    let env = |name: &str| {
        set_clock(&clock(name), offset);
        vec![
            ("LD_PRELOAD", FAKETIME.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", clock(name).display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("TZ", "Europe/Berlin".to_owned()),
        ]
    };
    on_own(&[], env, async |server| {
        let database = Database::new(&server.url()).await;
        let mut fixture = Fixture::new(&database, 8).await;
        let all = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        summer_time_ends(&database, &before).await;
        let said = |what: &str| -> usize { all.iter().map(|replica| replica.said(what)).sum() };
        assert_eq!(said(HELD_OFF), 0);
        for (hour, jumps) in [(1, 2), (0, 4)] {
            let turn = || set_clock(&clock(server.name()), offset + hour * 3600);
            let (before, ended, after) = jump(&fixture, turn).await;
            assert_eq!(said(HELD_OFF), jumps, "{}", all[0].log_text());
            // To a clock that is an hour on every claim has expired; one that is an hour back ends none, and then the
            // hold-off moves nothing either.
            if hour == 1 {
                assert_eq!(ended, 8);
                assert!(before.iter().all(|(uid, claim)| after[uid].fence > claim.fence));
            } else {
                assert_eq!(after, before, "claims have moved");
            }
        }
        fixture
            .finish_exactly(&format!("clock of {} an hour forward and back", server.name()))
            .await;
    });
}
