//! kubectl against the simulated cluster: a client that is not part of this project. The tests read only what kubectl
//! prints.

use std::process::Stdio;
use std::time::Duration;

use kube_sim::{PodSpec, SimCluster, SimPod};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{servers, test_cluster};

/// How long kubectl may take for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A simulated cluster with one pod, and kubectl pointed at it.
struct KubectlFixture {
    cluster: SimCluster,
    pod: SimPod,
    server: String,
    home: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl KubectlFixture {
    /// Nothing if there is no kubectl.
    async fn new() -> Option<Self> {
        let found = Command::new("kubectl").arg("version").arg("--client").output().await;
        if !found.is_ok_and(|output| output.status.success()) {
            servers::skip("there is no kubectl on PATH");
            return None;
        }
        let cluster = SimCluster::default();
        let mut tasks = JoinSet::new();
        let port = test_cluster::serve(&cluster, &mut tasks, &CancellationToken::new()).await;
        let pod = cluster.create(PodSpec::new("shop", "cart-0").node("n1").app("app"));
        let pod = pod.unwrap();
        pod.start("app").unwrap();
        pod.line("app", "one").unwrap();
        Some(Self {
            cluster,
            pod,
            server: format!("http://127.0.0.1:{port}"),
            home: tempfile::tempdir().unwrap(),
            _tasks: tasks,
        })
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        // The settings and the discovery cache of the user who runs the tests are not used.
        command.env("HOME", self.home.path()).env_remove("KUBECONFIG");
        command.arg("--server").arg(&self.server).args(arguments);
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    async fn says(&self, arguments: &[&str]) -> String {
        let output = tokio::time::timeout(PATIENCE, self.kubectl(arguments).output());
        let output = output.await.expect("kubectl ends").unwrap();
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out
    }

    /// Starts kubectl and returns what it prints, line by line.
    fn follows(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut child = self.kubectl(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    let line = tokio::time::timeout(PATIENCE, lines.next_line());
    line.await.expect("a line in time").unwrap()
}

#[tokio::test]
async fn get_lists_the_pods_of_all_namespaces() {
    let Some(fixture) = KubectlFixture::new().await else {
        return;
    };
    fixture.cluster.create(PodSpec::new("bank", "till").app("app")).unwrap();
    let table = fixture.says(&["get", "pods", "-A", "--no-headers"]).await;
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert_eq!(rows[0][..2], ["bank", "till"], "{table}");
    assert_eq!(rows[1][..2], ["shop", "cart-0"], "{table}");
    assert!(table.contains("Running") && table.contains("Pending"), "{table}");
}

#[tokio::test]
async fn logs_are_printed_and_followed_until_the_container_ends() {
    let Some(fixture) = KubectlFixture::new().await else {
        return;
    };
    assert_eq!(fixture.says(&["logs", "-n", "shop", "cart-0"]).await, "one\n");
    let (mut child, mut lines) = fixture.follows(&["logs", "-f", "-n", "shop", "cart-0"]);
    assert_eq!(next(&mut lines).await.as_deref(), Some("one"));
    fixture.pod.line("app", "two").unwrap();
    assert_eq!(next(&mut lines).await.as_deref(), Some("two"));
    fixture.pod.exit("app", 0).unwrap();
    assert_eq!(next(&mut lines).await, None);
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert!(status.expect("kubectl ends with the log").unwrap().success());
}

#[tokio::test]
async fn a_watch_shows_each_change_of_a_pod() {
    let Some(fixture) = KubectlFixture::new().await else {
        return;
    };
    let (_child, mut lines) = fixture.follows(&["get", "pods", "-w", "-n", "shop", "-o", "name"]);
    assert_eq!(next(&mut lines).await.as_deref(), Some("pod/cart-0"));
    fixture
        .cluster
        .create(PodSpec::new("shop", "cart-1").app("app"))
        .unwrap();
    assert_eq!(next(&mut lines).await.as_deref(), Some("pod/cart-1"));
}
