//! Replicas while the API server or the kubelet is frozen and killed. That affects every user of the cluster, so run
//! these tests alone: `cargo test --test e2e servers_away -- --ignored --test-threads=1`.
//!
//! `PODLOG_TEST_SIGNAL` is a shell command that sends the signal `$1` (`STOP`, `CONT` or `KILL`) to the process `$2`
//! (`apiserver` or `kubelet`). `PODLOG_TEST_REVIVE` is a shell command that starts a killed process again, or `true` if
//! something else does. `PODLOG_TEST_AWAY` is the number of seconds for which each is unavailable; the default is
//! longer than a claim lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::Row;
use tokio::process::Command;
use tokio::time::sleep;

use crate::audit::{GapRecord, Records};
use crate::fixture::{self, Fixture, pod, print_line, until};
use crate::node_logs::NodeLogRecorder;
use crate::rights::{stored, tables};
use crate::servers;

const TALK: &str = "n=0; while true; do n=$((n+1)); echo n=$n x; sleep 0.2; done";

/// Longer than the 20 s for which a claim lasts.
const AWAY: u64 = 25;

/// How long everything may take to work again.
const RECOVERY: Duration = Duration::from_mins(2);

/// Freezes, kills and restarts a server process.
struct ServerProcess {
    process: &'static str,
    signal: String,
    revive: String,
    away: Duration,
}

impl ServerProcess {
    fn of(process: &'static str) -> Option<Self> {
        let (signal, revive) = servers::named("PODLOG_TEST_SIGNAL").zip(servers::named("PODLOG_TEST_REVIVE"))?;
        let away = std::env::var("PODLOG_TEST_AWAY").map_or(AWAY, |seconds| seconds.parse().unwrap());
        Some(Self {
            process,
            signal,
            revive,
            away: Duration::from_secs(away),
        })
    }

    async fn run(command: &str, args: &[&str]) -> Result<(), String> {
        let status = Command::new("sh").args(["-c", command, "sh"]).args(args).status().await;
        let status = status.unwrap();
        status
            .success()
            .then_some(())
            .ok_or_else(|| format!("{command} {args:?}: {status}"))
    }

    async fn send(&self, signal: &str) {
        Self::run(&self.signal, &[signal, self.process]).await.unwrap();
    }

    async fn freeze(&self) {
        self.send("STOP").await;
        sleep(self.away).await;
        self.send("CONT").await;
    }

    async fn kill(&self) {
        self.send("KILL").await;
        sleep(self.away).await;
        // Others use this server too, so starting it is tried again if the first try fails.
        until("it is started again", RECOVERY, async || {
            Self::run(&self.revive, &[]).await
        })
        .await;
    }
}

/// Waits until two more seconds of lines are stored of every pod.
async fn assert_continues(fixture: &Fixture, names: &[String], what: &str) {
    let back = Instant::now();
    let count = async || {
        let records = Records::load(&mut fixture.sql().await).await;
        let lines = |name: &String| records.of_pod(name).iter().map(|(_, lines)| lines.len()).sum();
        names.iter().map(lines).collect::<Vec<usize>>()
    };
    let before = count().await;
    until("all go on", RECOVERY, async || {
        let now = count().await;
        let on = now.iter().zip(&before).all(|(now, before)| *now >= before + 10);
        on.then_some(()).ok_or(format!("{now:?}, {before:?} before"))
    })
    .await;
    let took = back.elapsed();
    print_line(&format!("e2e: {what}: all pods continued {took:?} after its end"));
}

/// The holder and the fence of each pod.
async fn claims(fixture: &Fixture) -> BTreeMap<Vec<u8>, (Vec<u8>, u64)> {
    let claims =
        sqlx::query("SELECT id, owner, fence FROM distributed_lock WHERE id LIKE 'pod/%' AND owner IS NOT NULL");
    let rows = claims.fetch_all(&mut fixture.sql().await).await.unwrap();
    let claim = |row: &sqlx::mysql::MySqlRow| (row.get(0), (row.get(1), row.get(2)));
    rows.iter().map(claim).collect()
}

async fn play(fixture: Fixture, server: ServerProcess) {
    let node_logs = NodeLogRecorder::watch(&fixture.namespace);
    let mut replicas = [fixture.replica("a"), fixture.replica("b")];
    tables(&fixture).await;
    let names: Vec<String> = (0..6).map(|n| format!("talk-{n}")).collect();
    for name in &names {
        fixture.create(&pod(name, "Never", TALK)).await;
    }
    for name in &names {
        stored(&fixture, name, 10).await;
    }
    // The first replica has claimed all pods.
    until("both have their shares", RECOVERY, async || {
        let claims = claims(&fixture).await.into_values();
        let of_a = claims.filter(|(owner, _)| owner.starts_with(b"a#")).count();
        (of_a == 3).then_some(()).ok_or(format!("a has {of_a}"))
    })
    .await;
    assert_continues(&fixture, &names, "undisturbed").await;
    // All handed-over pods have been claimed by now, so no pod should move any more.
    let before = claims(&fixture).await;
    server.freeze().await;
    assert_continues(&fixture, &names, &format!("{} frozen", server.process)).await;
    server.kill().await;
    assert_continues(&fixture, &names, &format!("{} killed", server.process)).await;
    assert_eq!(claims(&fixture).await, before, "claims have moved");
    let records = Records::load(&mut fixture.sql().await).await;
    assert!(records.gaps.is_empty(), "{:?}", records.gaps);
    for name in &names {
        fixture.delete(name).await;
    }
    until("nothing is held", RECOVERY, async || {
        let held = claims(&fixture).await.len();
        (held == 0).then_some(()).ok_or(format!("{held} pods are"))
    })
    .await;
    for replica in &mut replicas {
        replica.terminate();
        replica.ended().await;
    }
    let records = Records::load(&mut fixture.sql().await).await;
    assert_eq!(records.faults_by_number(), Vec::<String>::new());
    let Some(node_logs) = node_logs else { return };
    let wrote = node_logs.lines();
    let sum = records.audit(&wrote);
    print_line(&format!("e2e: {} away: {sum}", server.process));
    records.explain(&wrote);
    // It cannot always be proved that no line is missing at the end of a deleted pod; then a gap record says so.
    let at_end = records.gaps.iter().all(GapRecord::is_of_deletion);
    assert!(sum.is_clean() && sum.gaps == 0 && at_end, "{sum}: {:?}", records.gaps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "stops the API server for every user: run alone with --ignored"]
async fn a_frozen_or_killed_api_server_of_a_real_cluster_only_delays_collection() {
    if let Some(server) = ServerProcess::of("apiserver") {
        fixture::run(|fixture| play(fixture, server)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "stops the kubelet for every user: run alone with --ignored"]
async fn a_frozen_or_killed_kubelet_only_delays_collection() {
    if let Some(server) = ServerProcess::of("kubelet") {
        fixture::run(|fixture| play(fixture, server)).await;
    }
}
