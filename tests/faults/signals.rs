//! Signals to the real binary while it collects: SIGKILL, SIGSTOP and SIGCONT, SIGTERM once and twice. Also replicas
//! whose wall clocks differ, and replicas with the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::Row;

use crate::database::{Claim, Database, on_both, until};
use crate::fixture::{Fixture, PATIENCE};
use crate::proxy::ProxyMode;
use crate::replica::{Replica, TAKEOVER, TTL};
use crate::servers;
use crate::stored_files::records;

/// Where Debian's package `faketime` puts its library.
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Every pod's fence must have grown that has another holder now.
fn assert_fences_grew(before: &BTreeMap<String, Claim>, after: &BTreeMap<String, Claim>) {
    for (uid, claim) in before {
        let now = &after[uid];
        assert!(now.fence >= claim.fence, "{uid}: {now:?} after {claim:?}");
        assert!(
            now.holder == claim.holder || now.fence > claim.fence,
            "{uid}: {now:?} after {claim:?}"
        );
    }
}

pub(crate) fn the_pods_of_a_killed_process_are_taken_over_within_a_ttl() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 12).await;
        let [mut a, b, c] = fixture.replicas(["a", "b", "c"]).await;
        fixture.progress(3).await;
        let before = database.claims().await;
        a.kill().await;
        let took = fixture.all_held_by(&["b", "c"]).await;
        println!("SIGKILL: taken over after {took:?}");
        assert!(took < TAKEOVER, "{took:?}");
        assert_fences_grew(&before, &database.claims().await);
        fixture.progress(3).await;
        drop((b, c));
        // Both were killed now, so somebody has to come and read the rest.
        let _d = fixture.replicas(["d"]).await;
        fixture.finish_exactly("SIGKILL of one and then of all").await;
    });
}

pub(crate) fn a_process_that_gets_sigterm_hands_over_within_two_seconds() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 12).await;
        let [mut a, _b, _c] = fixture.replicas(["a", "b", "c"]).await;
        fixture.progress(3).await;
        a.signal(Signal::TERM);
        let took = fixture.all_held_by(&["b", "c"]).await;
        println!("SIGTERM: taken over after {took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        let status = a.ended().await;
        assert!(status.success(), "{status}: {}", a.log_text());
        fixture.progress(2).await;
        fixture.finish_exactly("SIGTERM").await;
    });
}

pub(crate) fn a_second_signal_ends_a_process_at_once_and_its_claims_expire() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let [mut a, _b] = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        // What it has read cannot be written, so it does not end by itself.
        a.sink.set(ProxyMode::Frozen);
        tokio::time::sleep(Duration::from_millis(500)).await;
        a.signal(Signal::TERM);
        until("it says that it stops", PATIENCE, async || {
            (a.said("a second signal stops at once") == 1)
                .then_some(())
                .ok_or_else(|| a.log_text())
        })
        .await;
        let second = Instant::now();
        a.signal(Signal::TERM);
        let status = a.ended().await;
        assert_eq!(status.code(), Some(143), "{}", a.log_text());
        assert!(second.elapsed() < Duration::from_secs(2), "{:?}", second.elapsed());
        let took = fixture.all_held_by(&["b"]).await;
        assert!(took < TAKEOVER, "{took:?}");
        fixture.progress(2).await;
        fixture.finish_exactly("SIGTERM twice").await;
    });
}

/// Stops a replica for so long after another has taken its pods, and lets it go on.
async fn stop_and_continue(fixture: &Fixture<'_>, a: &Replica, other: &str, rest: Duration) -> Duration {
    let stopped = Instant::now();
    a.signal(Signal::STOP);
    fixture.all_held_by(&[other]).await;
    let took = stopped.elapsed();
    // All streams go on while the former holder sleeps.
    fixture.progress(2).await;
    tokio::time::sleep(rest.saturating_sub(stopped.elapsed())).await;
    a.signal(Signal::CONT);
    took
}

pub(crate) fn a_holder_suspended_beyond_its_ttl_writes_nothing_when_it_continues() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let [mut a, _b] = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        let took = stop_and_continue(&fixture, &a, "b", TTL + Duration::from_secs(10)).await;
        println!("SIGSTOP: taken over after {took:?}");
        assert!(took < TAKEOVER, "{took:?}");
        let moved = database.claims().await;
        assert_fences_grew(&before, &moved);
        // It comes back as a replica among others and gets pods by requesting them, not from what it remembers.
        fixture.all_held_by(&["a", "b"]).await;
        assert_fences_grew(&moved, &database.claims().await);
        assert!(a.is_running());
        fixture.progress(2).await;
        fixture.finish_exactly("SIGSTOP for ttl + 10 s, SIGCONT").await;
    });
}

/// Waits until this many more records of each pod lie in one of these folders.
async fn delivered(pods: usize, folders: &[&Path], more: usize) {
    let count = || {
        let mut count = BTreeMap::new();
        for (pod, records) in folders.iter().flat_map(|folder| records(folder)) {
            *count.entry(pod).or_insert(0) += records.len();
        }
        count
    };
    let before = count();
    until("all pods are delivered", PATIENCE, async || {
        let now = count();
        let on = now
            .iter()
            .filter(|(pod, now)| **now >= before.get(*pod).unwrap_or(&0) + more)
            .count();
        (on == pods).then_some(()).ok_or_else(|| format!("{on} are"))
    })
    .await;
}

pub(crate) fn lines_read_before_a_suspension_are_not_delivered_after_it() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        // Files know of no fence: what is written under a claim that has ended stays there to be seen.
        let [of_a, of_b] = ["a", "b"].map(|name| fixture.dir.path().join(format!("records-{name}")));
        let file = |folder: &Path| format!("file://{}?fsync=never", folder.display());
        let a = fixture.replica_with("a", |settings| settings.sink = file(&of_a)).await;
        let _b = fixture.replica_with("b", |settings| settings.sink = file(&of_b)).await;
        fixture.begin(2).await;
        fixture.all_held_by(&["a", "b"]).await;
        delivered(8, &[&of_a, &of_b], 10).await;
        let stopped = Instant::now();
        a.signal(Signal::STOP);
        let before = records(&of_a);
        let took = fixture.all_held_by(&["b"]).await;
        assert!(took < TAKEOVER, "{took:?}");
        let rest = (TTL + Duration::from_secs(10)).saturating_sub(stopped.elapsed());
        tokio::time::sleep(rest).await;
        delivered(8, &[&of_b], 2).await;
        assert_eq!(records(&of_a), before, "it was not stopped");
        a.signal(Signal::CONT);
        fixture.all_held_by(&["a", "b"]).await;
        delivered(8, &[&of_a, &of_b], 10).await;
        fixture.quiet().await;
        // The new holder has delivered everything that waited in the old holder's connections.
        let of_b_records: BTreeSet<_> = records(&of_b).into_values().flatten().collect();
        let (mut late, mut new) = (Vec::new(), 0);
        for (pod, records) in records(&of_a) {
            for record in &records[before.get(&pod).map_or(0, Vec::len)..] {
                new += 1;
                if of_b_records.contains(record) {
                    late.push(record.0.clone());
                }
            }
        }
        println!(
            "resumed: {new} new lines, {} of them under claims that had ended",
            late.len()
        );
        assert!(new > 0 && late.is_empty(), "{new} new lines, of them late: {late:?}");
    });
}

/// Waits until a transaction of podlog's sink is open in this database and holds row locks.
async fn in_mid_write(database: &Database, a: &Replica) {
    let find = "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
         ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND p.id <> CONNECTION_ID() AND t.trx_rows_locked > 0";
    let mut sql = database.sql().await;
    a.sink.delay(Duration::from_millis(40));
    until("a write is half done", PATIENCE, async || {
        a.sink.set(ProxyMode::Frozen);
        // The server renews this view only when nobody has read it for a tenth of a second.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let open: i64 = sqlx::query(find).fetch_one(&mut sql).await.unwrap().get(0);
        if open > 0 {
            return Ok(());
        }
        a.sink.set(ProxyMode::Open);
        tokio::time::sleep(Duration::from_millis(100 + fastrand::u64(0..50))).await;
        Err("no transaction is open".to_owned())
    })
    .await;
}

pub(crate) fn a_holder_suspended_during_a_write_blocks_no_stream_and_its_late_packets_are_refused() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let [a, _b] = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        in_mid_write(database, &a).await;
        let stopped = Instant::now();
        a.signal(Signal::STOP);
        let took = fixture.all_held_by(&["b"]).await;
        assert!(took < TAKEOVER, "{took:?}");
        fixture.progress(2).await;
        println!(
            "suspended during a write: every stream continued after {:?}",
            stopped.elapsed()
        );
        // What was under way since before the takeover arrives now.
        a.sink.set(ProxyMode::Open);
        a.sink.delay(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(500)).await;
        a.signal(Signal::CONT);
        fixture.all_held_by(&["a", "b"]).await;
        fixture.progress(2).await;
        fixture.finish_exactly("SIGSTOP in mid-write").await;
    });
}

pub(crate) fn wall_clocks_of_replicas_have_no_effect() {
    if !Path::new(FAKETIME).exists() {
        return servers::skip(&format!("there is no {FAKETIME}: install faketime"));
    }
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 9).await;
        let mut all = Vec::new();
        for (name, time) in [("a", "+1h"), ("b", "-1h"), ("c", "+0 x1.001")] {
            let clock = [
                ("LD_PRELOAD", FAKETIME),
                ("FAKETIME", time),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ];
            let env = clock.map(|(name, value)| (name.to_owned(), value.to_owned()));
            all.push(fixture.replica_with(name, |settings| settings.env = env.into()).await);
        }
        fixture.begin(3).await;
        fixture.all_held_by(&["a", "b", "c"]).await;
        fixture.progress(2).await;
        let shown = |replica: &Replica| {
            replica
                .log_text()
                .lines()
                .next()
                .unwrap_or_default()
                .get(..13)
                .map(str::to_owned)
        };
        assert_ne!(shown(&all[0]), shown(&all[1]), "their clocks are the same");
        let before = database.claims().await;
        tokio::time::sleep(TTL).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        all[0].kill().await;
        let took = fixture.all_held_by(&["b", "c"]).await;
        assert!(took < TAKEOVER, "{took:?}");
        fixture.progress(2).await;
        fixture.finish_exactly("wall clocks an hour off").await;
    });
}

pub(crate) fn two_processes_with_one_name_are_two_replicas() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let (first, second) = (fixture.replica("same").await, fixture.replica("same").await);
        fixture.begin(2).await;
        let owners = "SELECT COUNT(DISTINCT owner) FROM distributed_lock WHERE id LIKE 'pod/%' AND expires_at > UTC_TIMESTAMP(6)";
        let mut sql = database.sql().await;
        until("both hold pods", PATIENCE, async || {
            let found = sqlx::query(owners).fetch_one(&mut sql).await;
            let found: i64 = found.map_or(0, |row| row.get(0));
            (found == 2).then_some(()).ok_or_else(|| format!("{found} do"))
        })
        .await;
        fixture.progress(2).await;
        drop(first);
        fixture.progress(2).await;
        drop(second);
        let _third = fixture.replicas(["same"]).await;
        fixture.finish_exactly("one name twice").await;
    });
}
