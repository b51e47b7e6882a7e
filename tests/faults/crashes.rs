//! What only a server of one's own can be made to do: crash, turn read-only, run out of connections, and be wrong
//! about the time. Its defaults are such as no statement of podlog may rely on.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::{Connection, MySqlConnection};

use crate::bench::{Bench, PATIENCE};
use crate::database::{Database, until};
use crate::proxy::Way;
use crate::replica::TTL;
use crate::server::{Variable, on_own};
use crate::servers;
use crate::signals::FAKETIME;
use crate::together::scenarios;

scenarios! {
    a_database_that_is_killed_comes_back_with_every_claim_and_every_line_once,
    a_database_that_turns_read_only_is_left_and_found_again,
    renewals_go_on_when_the_server_has_no_connection_left,
    a_database_whose_clock_jumps_is_not_believed_and_its_time_zone_does_not_matter,
}

/// Defaults of a server whose administrator had other programs in mind.
const ODD: [&str; 3] = [
    "--default-time-zone=-07:00",
    "--transaction-isolation=SERIALIZABLE",
    "--sql-mode=",
];

/// The environment of a server to whom nobody lies about the time.
fn plain(_: &str) -> Vec<Variable> {
    Vec::new()
}

fn a_database_that_is_killed_comes_back_with_every_claim_and_every_line_once() {
    on_own(&ODD, plain, async |server| {
        let database = Database::new(&server.url()).await;
        let mut bench = Bench::new(&database, 8).await;
        let _all = bench.replicas(["a", "b"]).await;
        for round in 0..2 {
            bench.progress(3).await;
            let before = database.claims().await;
            let crashed = Instant::now();
            server.crash().await;
            let up = crashed.elapsed();
            bench.progress(2).await;
            println!(
                "{} killed: up after {up:?}, all streams after {:?}",
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
        bench.finish_exactly(&format!("kill -9 of {}", server.name())).await;
    });
}

fn a_database_that_turns_read_only_is_left_and_found_again() {
    on_own(&[], plain, async |server| {
        let database = Database::new(&server.url()).await;
        let mut bench = Bench::new(&database, 8).await;
        let all = bench.replicas(["a", "b"]).await;
        bench.progress(2).await;
        let before = database.claims().await;
        // Shorter than a claim lasts: nothing moves.
        server.execute("SET GLOBAL read_only = 1").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.execute("SET GLOBAL read_only = 0").await;
        bench.progress(2).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        // Longer: all stop.
        server.execute("SET GLOBAL read_only = 1").await;
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        let stored = bench.stored().await;
        assert!(database.shares().await.is_empty());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bench.stored().await, stored, "somebody writes");
        let back = Instant::now();
        server.execute("SET GLOBAL read_only = 0").await;
        bench.progress(2).await;
        println!(
            "{} read-only: all streams went on {:?} after it was over",
            server.name(),
            back.elapsed()
        );
        assert!(
            all.iter().all(|replica| replica.said("read-only") > 0),
            "{}",
            all[0].words()
        );
        bench.finish_exactly(&format!("{} read-only", server.name())).await;
    });
}

/// Takes all connections that the server has left for ordinary users.
async fn hog(server: &str) -> Vec<MySqlConnection> {
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

fn renewals_go_on_when_the_server_has_no_connection_left() {
    on_own(&["--max-connections=40"], plain, async |server| {
        let database = Database::new(&server.url()).await;
        let mut bench = Bench::new(&database, 8).await;
        let all = bench.replicas(["a", "b"]).await;
        bench.progress(2).await;
        let before = database.claims().await;
        let hogs = hog(database.url.as_str()).await;
        assert!(!hogs.is_empty());
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        // Now their own connections break, and none can be had.
        let proxies = || all.iter().flat_map(|replica| [&replica.lock, &replica.sink]);
        proxies().for_each(|proxy| proxy.set(Way::Refused));
        let more = hog(database.url.as_str()).await;
        proxies().for_each(|proxy| proxy.set(Way::Open));
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
        drop((hogs, more));
        let back = Instant::now();
        bench.progress(2).await;
        println!(
            "{}: all streams went on {:?} after there were connections",
            server.name(),
            back.elapsed()
        );
        bench
            .finish_exactly(&format!("{} without connections", server.name()))
            .await;
    });
}

/// Writes what libfaketime is to do: an offset in seconds.
fn set_clock(file: &Path, offset: i64) {
    std::fs::write(file, format!("{offset:+}")).unwrap();
}

/// When the clocks of Berlin went from 3:00 back to 2:00: 25 October 2026, 1:00 UTC.
const BACK_TO_WINTER: i64 = 1_792_890_000;

/// The time in UTC, and what the server's zone makes of it.
async fn time_of(database: &Database) -> String {
    let time = sqlx::query_scalar("SELECT CONCAT(UTC_TIMESTAMP(), ' ', NOW())");
    time.fetch_one(&mut database.sql().await).await.unwrap()
}

fn a_database_whose_clock_jumps_is_not_believed_and_its_time_zone_does_not_matter() {
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
        let mut bench = Bench::new(&database, 8).await;
        let all = bench.replicas(["a", "b"]).await;
        bench.progress(2).await;
        let before = database.claims().await;
        let time = time_of(&database).await;
        assert!(
            time.as_str() < "2026-10-25 01:00:00",
            "the clocks went back too soon: {time}"
        );
        until("the clocks have gone back", PATIENCE, async || {
            let time = time_of(&database).await;
            (time.as_str() > "2026-10-25 01:00:03").then_some(()).ok_or(time)
        })
        .await;
        assert_eq!(
            database.claims().await,
            before,
            "claims have moved when summer time ended"
        );
        let said = |what: &str| -> usize { all.iter().map(|replica| replica.said(what)).sum() };
        assert_eq!(said("held off"), 0);
        for (hour, jumps) in [(1, 2), (0, 4)] {
            set_clock(&clock(server.name()), offset + hour * 3600);
            until("both have noticed", PATIENCE, async || {
                let noticed = said("claiming is held off");
                (noticed == jumps)
                    .then_some(())
                    .ok_or_else(|| format!("{noticed} of {jumps}"))
            })
            .await;
            bench.progress(2).await;
            bench.all_held_by(&["a", "b"]).await;
        }
        bench
            .finish_exactly(&format!("clock of {} an hour on and back", server.name()))
            .await;
    });
}
