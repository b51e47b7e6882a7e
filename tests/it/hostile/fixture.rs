//! The built binary behind a hostile proxy, with a well-behaved pod, a marked secret, and its log in a file. The
//! fixture asserts what must hold for any input: see [`HostileFixture::end`].

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kube_sim::{PodSpec, SimCluster, SimPod};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::proxy::HostileProxy;
use crate::test_cluster::serve;

/// The credential that must not be seen anywhere.
pub(crate) const MARKER: &str = "hunter2-marker";

/// How long anything may take here: the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// A replica and everything around it.
pub(crate) struct HostileFixture {
    pub(crate) sim: SimCluster,
    pub(crate) proxy: HostileProxy,
    pub(crate) dir: TempDir,
    good: SimPod,
    written: usize,
    child: Option<Child>,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Drop for HostileFixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl HostileFixture {
    /// A cluster with the pod `shop/good`; no replica runs yet.
    pub(crate) async fn new() -> Self {
        let (sim, stop, mut tasks) = (SimCluster::default(), CancellationToken::new(), JoinSet::new());
        let port = serve(&sim, &mut tasks, &stop).await;
        let proxy = HostileProxy::start(port, &mut tasks).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig(proxy.port())).unwrap();
        let good = sim.create(PodSpec::new("shop", "good").node("n1").app("app")).unwrap();
        good.start("app").unwrap();
        Self {
            sim,
            proxy,
            dir,
            good,
            written: 0,
            child: None,
            stop,
            _tasks: tasks,
        }
    }

    /// The pod `shop/bad` with a running container.
    pub(crate) fn bad(&self) -> SimPod {
        let pod = self.sim.create(PodSpec::new("shop", "bad").node("n1").app("app"));
        let pod = pod.unwrap();
        pod.start("app").unwrap();
        pod
    }

    /// Starts `podlog run` with claims in a file and records in files.
    pub(crate) fn run(&mut self) {
        let path = self.dir.path().display().to_string();
        let sink = format!("file://{path}/records?fsync=never");
        self.run_with(&format!("sqlite://{path}/locks.db"), &sink, &[]);
    }

    /// Starts `podlog run`.
    pub(crate) fn run_with(&mut self, lock: &str, sink: &str, more: &[&str]) {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
        command.args(["run", "--poll-interval", "1s"]);
        for (setting, usual) in [("--http", "off"), ("--log-level", "debug")] {
            if !more.contains(&setting) {
                command.args([setting, usual]);
            }
        }
        command.args(["--lock", lock, "--sink", sink, "--kubeconfig"]);
        command.arg(self.dir.path().join("kubeconfig")).args(more);
        command.current_dir(self.dir.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Lets the good pod write.
    pub(crate) fn write(&mut self, lines: usize) {
        for _ in 0..lines {
            self.good.line("app", format!("good {}", self.written)).unwrap();
            self.written += 1;
        }
    }

    /// Waits until this holds, while the replica lives.
    pub(crate) async fn until(&mut self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let begun = tokio::time::Instant::now();
        while !holds(self).await {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert_eq!(ended, None, "{what}: the replica has ended\n{}", self.log());
            assert!(
                begun.elapsed() < LIMIT,
                "not within {LIMIT:?}: {what}\n{}",
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until what the good pod has written is stored in files, each line once and in order.
    pub(crate) async fn good_pod_is_stored(&mut self) {
        let expected: Vec<String> = (0..self.written).map(|n| format!("good {n}")).collect();
        self.until("the good pod is stored completely", async |fixture| {
            fixture.messages_of("good") == expected
        })
        .await;
    }

    /// The messages of a pod of the namespace `shop` in the sink's files. Nothing else is read, for a pod beside may
    /// have written very much.
    pub(crate) fn messages_of(&self, pod: &str) -> Vec<String> {
        let records = self.folder_of(pod).map(|folder| records_in(&folder));
        records.unwrap_or_default().iter().map(message).collect()
    }

    /// The folder of such a pod, if there is one.
    pub(crate) fn folder_of(&self, pod: &str) -> Option<PathBuf> {
        let pods = std::fs::read_dir(self.dir.path().join("records/shop")).ok()?;
        let begin = format!("{pod}_");
        let mut pods = pods.map(Result::unwrap);
        pods.find(|entry| entry.file_name().to_string_lossy().starts_with(&begin))
            .map(|entry| entry.path())
    }

    /// The messages in the sink's files by pod, in the order of the files.
    pub(crate) fn messages(&self) -> BTreeMap<String, Vec<String>> {
        let mut messages = BTreeMap::<String, Vec<String>>::new();
        for record in self.records() {
            let pod = record["kubernetes"]["pod"].as_str().unwrap().to_owned();
            messages.entry(pod).or_default().push(message(&record));
        }
        messages
    }

    /// The records in the sink's files that are complete.
    pub(crate) fn records(&self) -> Vec<Value> {
        records_in(&self.dir.path().join("records"))
    }

    /// What the replica has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("log")).unwrap()).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The largest memory of the replica so far, MiB.
    pub(crate) fn peak(&self) -> u64 {
        let id = self.child.as_ref().unwrap().id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }

    /// Stops the replica as Kubernetes does. It must end well, must not have panicked, and must not have said a
    /// secret or a raw control character.
    pub(crate) async fn end(&mut self) {
        let mut child = self.child.take().unwrap();
        let id = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let status = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
        let log = self.log();
        assert!(status.success(), "{status}\n{log}");
        assert_proper(&log);
    }
}

/// Asserts that text for people has no panic, no secret and no control character, and that each line is one of ours.
pub(crate) fn assert_proper(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains(MARKER), "{log}");
    for line in log.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.starts_with("20"), "a line that is not a log line: {line:?}");
    }
}

fn message(record: &Value) -> String {
    record["message"].as_str().unwrap_or("(gap)").to_owned()
}

fn records_in(folder: &Path) -> Vec<Value> {
    let mut text = Vec::new();
    collect(folder, &mut text);
    let lines = text.iter().flat_map(|text| text.split_inclusive('\n'));
    lines
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}")))
        .collect()
}

fn collect(folder: &Path, text: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|ending| ending == "jsonl") {
            text.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// A kubeconfig with the marked token.
pub(crate) fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{token: {MARKER}}}}}]\n"
    )
}
