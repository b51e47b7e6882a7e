//! The built binary whose own log cannot be written. It must collect and hand over as if nothing had happened.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kube_sim::{PodSpec, SimCluster};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::test_cluster::serve;

/// How long anything may take here: the machine may be busy.
const LIMIT: Duration = Duration::from_mins(2);

/// A pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A file on a disk that has no space left.
fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn podlog(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(args).current_dir(dir).kill_on_drop(true);
    command.stdin(Stdio::null());
    command
}

/// Everything that is stored in the files below a directory.
fn stored(dir: &Path) -> String {
    let entries = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let texts = entries.map(|path| {
        if path.is_dir() {
            stored(&path)
        } else {
            std::fs::read_to_string(path).unwrap()
        }
    });
    texts.collect()
}

/// Waits until the sink has the line.
async fn until_stored(dir: &Path, line: &str, child: &mut Child) {
    let begun = Instant::now();
    while !stored(&dir.join("records")).contains(line) {
        assert_eq!(child.try_wait().unwrap(), None, "the replica has ended");
        assert!(begun.elapsed() < LIMIT, "{line} is not stored");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a replica with this stderr, lets it log warnings and errors, and stops it. It must store all lines, end without
/// an error, and leave its pods free.
async fn collects_and_hands_over(stderr: Stdio, format: &str) {
    let (sim, stop, mut tasks) = (SimCluster::default(), CancellationToken::new(), JoinSet::new());
    let address = format!("127.0.0.1:{}", serve(&sim, &mut tasks, &stop).await);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kubeconfig"), kube_sim::kubeconfig(address)).unwrap();
    let pod = sim.create(PodSpec::new("shop", "p").node("n1").app("app")).unwrap();
    pod.start("app").unwrap();
    pod.line("app", "first").unwrap();

    let sink = format!("file://{}/records?fsync=never", dir.path().display());
    let mut run = podlog(dir.path(), &["run", "--http=off", "--log-level=trace", "--sink", &sink]);
    run.args([
        "--lock=sqlite://locks.db",
        "--kubeconfig=kubeconfig",
        "--log-format",
        format,
    ]);
    let mut child = run.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    until_stored(dir.path(), "first", &mut child).await;
    pod.line("app", "second").unwrap();
    until_stored(dir.path(), "second", &mut child).await;
    kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let ended = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "the replica ended with {ended}");

    let mut list = podlog(dir.path(), &["locks", "list", "--json", "--lock=sqlite://locks.db"]);
    let rows: Value = serde_json::from_slice(&list.output().await.unwrap().stdout).unwrap();
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["kind"] == "pod")
        .unwrap();
    assert_eq!(row["state"], "free", "{rows}");
    stop.cancel();
}

#[tokio::test]
async fn a_replica_whose_stderr_is_a_closed_pipe_collects_and_hands_over_its_pods() {
    collects_and_hands_over(closed_pipe(), "text").await;
}

#[tokio::test]
async fn a_replica_whose_stderr_is_on_a_full_disk_collects_and_hands_over_its_pods() {
    collects_and_hands_over(full_disk(), "text").await;
}

#[tokio::test]
async fn a_replica_that_cannot_write_its_log_as_json_collects_and_hands_over_its_pods() {
    collects_and_hands_over(closed_pipe(), "json").await;
}
