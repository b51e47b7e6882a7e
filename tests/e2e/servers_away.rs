//! Replicas while the API server or the kubelet is frozen and killed. It takes them away from everybody who uses the
//! cluster, so it is run by itself: `cargo test --test e2e servers_away -- --ignored --test-threads=1`.
//!
//! `PODLOG_TEST_SIGNAL` is a shell command that sends the signal `$1` (`STOP`, `CONT` or `KILL`) to the process `$2`
//! (`apiserver` or `kubelet`); `PODLOG_TEST_REVIVE` is one that starts again what was killed, or `true` where something
//! else does. `PODLOG_TEST_AWAY` is for how many seconds each is away, if not longer than a claim lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::Row;
use tokio::process::Command;
use tokio::time::sleep;

use crate::lab::{self, Lab, pod, say, until};
use crate::reckon::{GapRecord, Records};
use crate::rights::{stored, tables};
use crate::servers;
use crate::witness::Witness;

const TALK: &str = "n=0; while true; do n=$((n+1)); echo n=$n x; sleep 0.2; done";

/// Longer than the 20 s for which a claim lasts.
const AWAY: u64 = 25;

/// How long everything may take to work again.
const RECOVERY: Duration = Duration::from_mins(2);

/// What takes a server away.
struct Hand {
    process: &'static str,
    signal: String,
    revive: String,
    away: Duration,
}

impl Hand {
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
        // Others need it too: that it could not be started at the first try is no reason to leave it away.
        until("it is started again", RECOVERY, async || {
            Self::run(&self.revive, &[]).await
        })
        .await;
    }
}

/// Waits until every pod has stored two seconds' lines more.
async fn goes_on(lab: &Lab, names: &[String], what: &str) {
    let back = Instant::now();
    let count = async || {
        let records = Records::load(&mut lab.sql().await).await;
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
    say(&format!("e2e: {what}: all went on {took:?} after it was over"));
}

/// Who holds each pod, under which fence.
async fn claims(lab: &Lab) -> BTreeMap<Vec<u8>, (Vec<u8>, u64)> {
    let claims =
        sqlx::query("SELECT id, owner, fence FROM distributed_lock WHERE id LIKE 'pod/%' AND owner IS NOT NULL");
    let rows = claims.fetch_all(&mut lab.sql().await).await.unwrap();
    let claim = |row: &sqlx::mysql::MySqlRow| (row.get(0), (row.get(1), row.get(2)));
    rows.iter().map(claim).collect()
}

async fn play(lab: Lab, hand: Hand) {
    let witness = Witness::watch(&lab.namespace);
    let mut replicas = [lab.replica("a"), lab.replica("b")];
    tables(&lab).await;
    let names: Vec<String> = (0..6).map(|n| format!("talk-{n}")).collect();
    for name in &names {
        lab.create(&pod(name, "Never", TALK)).await;
    }
    for name in &names {
        stored(&lab, name, 10).await;
    }
    // Whoever came first has taken all.
    until("both have their shares", RECOVERY, async || {
        let claims = claims(&lab).await.into_values();
        let of_a = claims.filter(|(owner, _)| owner.starts_with(b"a#")).count();
        (of_a == 3).then_some(()).ok_or(format!("a has {of_a}"))
    })
    .await;
    goes_on(&lab, &names, "in peace").await;
    // What was handed over has been claimed by now, and nothing has a reason to move.
    let before = claims(&lab).await;
    hand.freeze().await;
    goes_on(&lab, &names, &format!("{} frozen", hand.process)).await;
    hand.kill().await;
    goes_on(&lab, &names, &format!("{} killed", hand.process)).await;
    assert_eq!(claims(&lab).await, before, "claims have moved");
    let records = Records::load(&mut lab.sql().await).await;
    assert!(records.gaps.is_empty(), "{:?}", records.gaps);
    for name in &names {
        lab.delete(name).await;
    }
    until("nothing is held", RECOVERY, async || {
        let held = claims(&lab).await.len();
        (held == 0).then_some(()).ok_or(format!("{held} pods are"))
    })
    .await;
    for replica in &mut replicas {
        replica.ask_to_end();
        replica.ended().await;
    }
    let records = Records::load(&mut lab.sql().await).await;
    assert_eq!(records.faults_by_number(), Vec::<String>::new());
    let Some(witness) = witness else { return };
    let wrote = witness.lines();
    let sum = records.reckon(&wrote);
    say(&format!("e2e: {} away: {sum}", hand.process));
    records.explain(&wrote);
    // That nothing is missing at the end of a pod that was deleted cannot always be proved; a gap says so.
    let at_end = records.gaps.iter().all(GapRecord::is_of_deletion);
    assert!(sum.is_clean() && sum.gaps == 0 && at_end, "{sum}: {:?}", records.gaps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the API server away from everybody: run alone with --ignored"]
async fn a_frozen_or_killed_api_server_of_a_real_cluster_only_delays_collection() {
    if let Some(hand) = Hand::of("apiserver") {
        lab::run(|lab| play(lab, hand)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the kubelet away from everybody: run alone with --ignored"]
async fn a_frozen_or_killed_kubelet_only_delays_collection() {
    if let Some(hand) = Hand::of("kubelet") {
        lab::run(|lab| play(lab, hand)).await;
    }
}
