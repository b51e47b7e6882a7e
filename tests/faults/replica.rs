//! The built binary as a real process: started and signalled. Its log goes to a file. One proxy stands between it and
//! its lock store, and one between it and its sink.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::proxy::Proxy;

/// The times of a claim in these tests: as short as settings may be, which is the margin and three statements of 3 s,
/// so that one renewal may fail; with 2 s for a write.
pub(crate) const TTL: Duration = Duration::from_millis(1_100 + 3 * 3_000);

/// The longest time for which a replica may write after it sent its last renewal: ttl - margin.
pub(crate) const DEADLINE: Duration = Duration::from_millis(10_100 - 1_100);

/// The longest that pods of a dead replica may wait: ttl, grace and 2 s, and some for a machine on which everything
/// runs at once.
pub(crate) const TAKEOVER: Duration = Duration::from_millis(10_100 + 200 + 2_000 + 3_000);
pub(crate) const TIMES: [&str; 12] = [
    "--ttl=10100ms",
    "--renew=500ms",
    "--margin=1100ms",
    "--takeover-grace=200ms",
    "--write-timeout=2s",
    "--grace=6s",
    "--probe=5s",
    "--poll-interval=1s",
    "--open-rate=200",
    "--http=off",
    "--log-level=info",
    "--log-format=text",
];

/// The same times for a replica that renews as seldom as they allow and writes until shortly before its deadline.
pub(crate) const SELDOM: [&str; 12] = [
    "--ttl=10100ms",
    "--renew=3s",
    "--margin=1100ms",
    "--takeover-grace=200ms",
    "--write-timeout=500ms",
    "--grace=6s",
    "--probe=5s",
    "--poll-interval=1s",
    "--open-rate=200",
    "--http=off",
    "--log-level=info",
    "--log-format=text",
];

/// Times for replicas that are to lose no claim however busy the machine is: those by default, but for the grace.
pub(crate) const PATIENT: [&str; 7] = [
    "--grace=15s",
    "--poll-interval=1s",
    "--open-rate=200",
    "--probe=5s",
    "--http=off",
    "--log-level=info",
    "--log-format=text",
];

/// The longest time from SIGTERM to the exit: the grace period of 6 s, and more for a busy machine.
const ENDING: Duration = Duration::from_secs(20);

/// The settings of a replica.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaSettings {
    pub(crate) lock: String,
    pub(crate) sink: String,
    pub(crate) kubeconfig: PathBuf,
    /// How long a claim lasts, and other settings of that kind.
    pub(crate) times: &'static [&'static str],
    /// Further variables of its environment.
    pub(crate) env: Vec<(String, String)>,
}

/// One `podlog run`; killed when dropped.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) lock: Proxy,
    pub(crate) sink: Proxy,
    log: PathBuf,
    child: Child,
}

impl Replica {
    pub(crate) fn start(name: &str, dir: &Path, settings: &ReplicaSettings, lock: Proxy, sink: Proxy) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        // A limit on file sizes stands for a full disk. With this signal ignored, reaching the limit is an error and
        // not a signal.
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "trap '' XFSZ; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_podlog"),
            "run",
        ]);
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
            command.env_remove(variable);
        }
        command.args(settings.times).args(["--replica-id", name]);
        command.arg("--kubeconfig").arg(&settings.kubeconfig);
        command
            .env("PODLOG_LOCK", &settings.lock)
            .env("PODLOG_SINK", &settings.sink);
        command
            .envs(settings.env.iter().cloned())
            .current_dir(dir)
            .kill_on_drop(true);
        let out = std::fs::File::create(dir.join(format!("{name}.out"))).unwrap();
        command.stdin(Stdio::null()).stdout(out).stderr(file);
        let child = command.spawn().unwrap();
        let name = name.to_owned();
        Self {
            name,
            lock,
            sink,
            log,
            child,
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it with SIGKILL; returns when it has ended.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(ENDING, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{} does not end; it says: {}", self.name, self.log_text()))
            .unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its log, including that of earlier processes with this name.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often it has said this.
    pub(crate) fn said(&self, what: &str) -> usize {
        self.log_text().matches(what).count()
    }
}
