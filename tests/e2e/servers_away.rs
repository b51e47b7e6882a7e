//! A replica while the API server and the kubelet are frozen and killed. It takes them away from everybody who uses
//! the cluster, so it is run by itself: `cargo test --test e2e -- --ignored`.
//!
//! `PODLOG_TEST_SIGNAL` is a command that takes a signal and the name of a process of the cluster;
//! `PODLOG_TEST_REVIVE` is a command that starts again what was killed.

use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::time::sleep;

use crate::lab::{self, Lab, pod, say, until};
use crate::reckon::Records;
use crate::rights::{stored, tables};
use crate::servers;
use crate::witness::Witness;

const TALK: &str = "n=0; while true; do n=$((n+1)); echo n=$n x; sleep 0.2; done";

/// How long a server is away: longer than a ttl.
const AWAY: Duration = Duration::from_secs(25);

/// How long everything may take to work again.
const RECOVERY: Duration = Duration::from_mins(2);

async fn run(command: &str, args: &[&str]) {
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let status = command.args(words).args(args).status().await.unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

async fn lines(lab: &Lab, name: &str) -> usize {
    let records = Records::load(&mut lab.sql().await).await;
    records.of_pod(name).iter().map(|(_, lines)| lines.len()).sum()
}

/// Waits until every pod has stored so many more lines.
async fn goes_on(lab: &Lab, names: &[String], what: &str) {
    let back = Instant::now();
    for name in names {
        let before = lines(lab, name).await;
        until("it goes on", RECOVERY, async || {
            let now = lines(lab, name).await;
            (now >= before + 10)
                .then_some(())
                .ok_or(format!("{name}: {now}, {before} before"))
        })
        .await;
    }
    say(&format!(
        "e2e: {what}: all went on {:?} after it was over",
        back.elapsed()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the API server and the kubelet away from everybody: run alone with --ignored"]
async fn servers_of_the_cluster_that_are_frozen_or_killed_cost_time_and_nothing_else() {
    let Some((signal, revive)) = servers::named("PODLOG_TEST_SIGNAL").zip(servers::named("PODLOG_TEST_REVIVE")) else {
        return;
    };
    lab::run(async |lab| {
        let witness = Witness::watch(&lab.namespace);
        let mut replicas = [lab.replica("a"), lab.replica("b")];
        tables(&lab).await;
        let names: Vec<String> = (0..6).map(|n| format!("talk-{n}")).collect();
        for name in &names {
            lab.create(&pod(name, "Never", TALK)).await;
        }
        stored(&lab, "talk-5", 10).await;
        for process in ["kube-apiserver", "kube-kubelet"] {
            run(&signal, &["STOP", process]).await;
            sleep(AWAY).await;
            run(&signal, &["CONT", process]).await;
            goes_on(&lab, &names, &format!("{process} frozen")).await;
            run(&signal, &["KILL", process]).await;
            sleep(AWAY).await;
            run(&revive, &[]).await;
            goes_on(&lab, &names, &format!("{process} killed")).await;
        }
        for name in &names {
            lab.delete(name).await;
        }
        until("nothing is held", RECOVERY, async || {
            let held = "SELECT COUNT(*) FROM distributed_lock WHERE id LIKE 'pod/%' AND owner IS NOT NULL";
            let held: i64 = sqlx::query_scalar(held).fetch_one(&mut lab.sql().await).await.unwrap();
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
        let sum = records.reckon(&witness.lines());
        assert!(sum.is_clean() && records.gaps.is_empty(), "{sum}");
    })
    .await;
}
