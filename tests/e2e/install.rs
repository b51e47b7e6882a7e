//! Installs podlog as users do, with the chart: from the first `helm install` to `helm uninstall`, while pods write.
//!
//! Needs helm and, in addition to what the other tests need, `PODLOG_TEST_PODLOG_IMAGE`. If `PODLOG_TEST_RESTART_MYSQL`
//! is a command, the test restarts the database with it; then run this test alone.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::audit::{InstanceKey, LogLine, Records, count};
use crate::fixture::{self, Fixture, PATIENCE, print_line, until};
use crate::holders::{HolderHistory, POLL};
use crate::install_helm::{BREATH, HelmSetup, Release};
use crate::node_logs::NodeLogRecorder;
use crate::pods;

/// How long pods would write, in seconds. They are ended as soon as everything has been done to the replicas, after two
/// or three minutes; a slow machine takes longer.
const WRITING: u64 = 1200;

/// The longest that pods may be without a holder after a replica has gone: twice what is promised (the ttl of 20 s and
/// 2 s), because the database and the node have just been disturbed too. The suite tests the promise itself.
const TAKEOVER: Duration = Duration::from_secs(2 * 22);

struct Installation {
    fixture: Fixture,
    release: Release,
    holders: HolderHistory,
    pods: usize,
    began: Instant,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn install_scale_upgrade_and_rollback_store_every_line_once() {
    let Some(means) = HelmSetup::find() else { return };
    fixture::run(async |fixture| {
        let release = Release::prepare(&fixture, &means).await;
        let outcome = AssertUnwindSafe(play(fixture, release.clone())).catch_unwind().await;
        if outcome.is_err() {
            release.keep_words().await;
        }
        release.remove().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    })
    .await;
}

async fn play(fixture: Fixture, release: Release) {
    let node_logs = NodeLogRecorder::watch(&fixture.namespace);
    let mut installation = Installation::begin(fixture, release).await;
    installation.scale().await;
    installation.restart_database().await;
    installation.delete_by_force().await;
    installation.upgrade().await;
    installation.finish().await;
    installation.assert_result(node_logs).await;
    installation.release.uninstall().await;
    // helm does not wait for the pods.
    until("nothing but the database is left", PATIENCE, async || {
        let left = installation.release.leftovers().await;
        left.is_empty().then_some(()).ok_or(format!("there is {left:?}"))
    })
    .await;
    installation.report_progress("nothing but the database is left");
}

/// All namespaces, of which only the test's pods match.
fn everywhere(fixture: &Fixture) -> Value {
    json!({"settings": {"selector": format!("e2e={}", fixture.namespace)}})
}

/// The test's namespace only, other settings, closed off.
fn one_namespace(fixture: &Fixture) -> Value {
    json!({"namespaces": [&*fixture.namespace], "networkPolicy": {"enabled": true},
        "settings": {"selector": format!("e2e={}", fixture.namespace), "chunk-age": "150ms", "log-format": "json"}})
}

/// Pods that write until a given second, of several kinds.
fn writers(fixture: &Fixture, end: u64) -> Vec<Value> {
    let chosen = ["chatty", "both", "several", "job", "odd-0", "quiet-0"];
    let mut pods = pods::all(end);
    pods.retain(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let number = name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        chosen.iter().any(|kind| name.starts_with(kind)) && number < 3
    });
    for pod in &mut pods {
        pod["metadata"]["labels"] = json!({"e2e": &*fixture.namespace});
    }
    pods
}

impl Installation {
    async fn begin(fixture: Fixture, release: Release) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let began = Instant::now();
        let writers = writers(&fixture, now.as_secs() + WRITING);
        for pod in &writers {
            fixture.create(pod).await;
        }
        release.apply("install", &everywhere(&fixture)).await;
        fixture.all_started().await;
        Self {
            holders: HolderHistory::watch(fixture.sql().await),
            pods: writers.len(),
            fixture,
            release,
            began,
        }
    }

    fn report_progress(&self, what: &str) {
        let (at, shares) = (self.began.elapsed().as_secs_f64(), self.holders.shares());
        print_line(&format!("e2e: {at:5.1} s {what}; {shares:?}"));
    }

    /// Waits until this many replicas run, each of them holds pods, and no other replica does.
    async fn shared_by(&self, replicas: i32) {
        self.release.settled(replicas).await;
        until("every replica holds pods", PATIENCE, async || {
            let alive = self.release.replicas().await;
            let shares = self.holders.shares();
            let holding: BTreeSet<String> = shares.keys().map(|owner| of(owner).to_owned()).collect();
            let said = format!("{alive:?} run, and hold {shares:?}");
            (holding == alive).then_some(()).ok_or(said)
        })
        .await;
        self.report_progress(&format!("{replicas} replicas share the pods"));
    }

    /// Waits until this many replicas run and between them hold every pod that still writes.
    async fn held_by(&self, replicas: i32) {
        self.release.settled(replicas).await;
        until("every pod is held", PATIENCE, async || {
            let (alive, running) = (self.release.replicas().await, self.running().await);
            let held: BTreeSet<String> = alive.iter().flat_map(|one| self.holders.held_by(one)).collect();
            let waiting: Vec<&String> = running.difference(&held).collect();
            waiting.is_empty().then_some(()).ok_or(format!("{waiting:?} are not"))
        })
        .await;
        assert!(
            !self.running().await.is_empty(),
            "the pods ended before this could be seen"
        );
        self.report_progress(&format!("{replicas} replicas hold the pods"));
    }

    async fn scale(&self) {
        self.shared_by(3).await;
        self.release.scale(5).await;
        self.shared_by(5).await;
        self.release.scale(2).await;
        self.shared_by(2).await;
    }

    async fn restart_database(&mut self) {
        let Ok(command) = std::env::var("PODLOG_TEST_RESTART_MYSQL") else {
            return print_line("e2e: PODLOG_TEST_RESTART_MYSQL is not set: the database is not restarted");
        };
        let mut restart = tokio::process::Command::new("sh");
        let output = restart.args(["-c", &command]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The old connection is gone with the server.
        self.holders = HolderHistory::watch(self.fixture.sql().await);
        self.report_progress("the database was restarted");
        self.held_by(2).await;
        assert_eq!(
            self.release.restarts().await,
            0,
            "a replica restarted with the database"
        );
    }

    /// Deletes a replica by force, and checks that others take over its pods in time.
    async fn delete_by_force(&self) {
        let victim = self.release.replicas().await.pop_first().unwrap();
        let held = self.holders.held_by(&victim);
        assert!(!held.is_empty(), "{victim} holds nothing");
        let since = Instant::now();
        self.release.delete_pod_by_force(&victim).await;
        let mut longest = Duration::ZERO;
        until("its pods are taken over", PATIENCE, async || {
            let taken = self.holders.takeovers(&held, &victim, since);
            // Pods that have ended in the meantime need no holder.
            let open = self.running().await;
            let waiting = taken.iter().filter(|(uid, time)| time.is_none() && open.contains(*uid));
            let waiting: Vec<&String> = waiting.map(|(uid, _)| uid).collect();
            longest = taken.values().flatten().max().copied().unwrap_or_default();
            waiting.is_empty().then_some(()).ok_or(format!("{waiting:?} are not"))
        })
        .await;
        self.report_progress(&format!("{victim} was deleted by force; takeover {longest:.1?}"));
        assert!(longest <= TAKEOVER + 4 * POLL, "the takeover took {longest:.1?}");
        self.held_by(2).await;
    }

    /// The UIDs of the pods that still write.
    async fn running(&self) -> BTreeSet<String> {
        let pods = self.fixture.pods().list(&ListParams::default()).await.unwrap();
        let running = pods.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running")
        });
        running.filter_map(ResourceExt::uid).collect()
    }

    /// A rolling upgrade to other settings and to rights in one namespace only, and back again.
    async fn upgrade(&self) {
        self.release.apply("upgrade", &one_namespace(&self.fixture)).await;
        self.held_by(3).await;
        self.release.test().await;
        sleep(BREATH).await;
        self.release.roll_back().await;
        self.held_by(3).await;
        assert_eq!(self.release.restarts().await, 0, "a replica was restarted");
    }

    /// Ends the pods that still write. They are not deleted, so that they can still be read: the kubelet stops a pod
    /// when its active deadline is over.
    async fn end_pods(&self) {
        let over = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
        for pod in self.fixture.pods().list(&ListParams::default()).await.unwrap() {
            let (pods, name) = (self.fixture.pods(), pod.name_any());
            pods.patch(&name, &PatchParams::default(), &over).await.unwrap();
        }
    }

    /// Waits until all pods have ended and nothing more is stored.
    async fn finish(&self) {
        self.end_pods().await;
        until("all pods have ended", PATIENCE, async || {
            let open = self.running().await;
            open.is_empty().then_some(()).ok_or(format!("{open:?} run"))
        })
        .await;
        self.report_progress("all pods have ended");
        let mut sql = self.fixture.sql().await;
        let (mut last, mut since) = (-1, Instant::now());
        // Longer than the interval between two retries after the first success.
        while since.elapsed() < Duration::from_secs(8) {
            let now = count(&mut sql).await;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            sleep(Duration::from_millis(500)).await;
        }
        self.report_progress("nothing more is stored");
    }

    async fn assert_result(&self, node_logs: Option<NodeLogRecorder>) {
        let records = Records::load(&mut self.fixture.sql().await).await;
        let written: BTreeMap<InstanceKey, Vec<LogLine>> =
            node_logs.map_or_else(|| records.streams.clone(), NodeLogRecorder::lines);
        let sum = records.audit(&written);
        let by_number = records.faults_by_number();
        let took = self.began.elapsed().as_secs();
        print_line(&format!("e2e: installed: pods={} {sum} total_s={took}", self.pods));
        if !sum.is_clean() || !by_number.is_empty() || !records.gaps.is_empty() {
            records.explain(&written);
        }
        assert!(sum.is_clean() && by_number.is_empty(), "{sum}; {by_number:?}");
        assert!(
            records.gaps.is_empty(),
            "gap records although nothing was rotated or deleted"
        );
        assert_eq!(records.names.len(), self.pods, "pods of which lines are stored");
        // Each job's lines are known without looking at the node.
        for name in ["job-0", "job-1", "job-2"] {
            let lines: usize = records.of_pod(name).iter().map(|(_, lines)| lines.len()).sum();
            assert_eq!(lines, 31, "{name}");
        }
    }
}

/// The name of the replica that this owner is a process of.
fn of(owner: &str) -> &str {
    owner.rsplit_once('#').map_or(owner, |(name, _)| name)
}
