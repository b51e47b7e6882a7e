//! The replicas of the demo: child processes that run `podlog run`, as a user would.
//!
//! They share nothing with this process but the kubeconfig and what their settings name. Each is killed
//! when it is dropped, and on Linux also when this process dies without having dropped it; elsewhere a
//! SIGKILL of the demo leaves them behind.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::environment::{STORE_FILE, WorkDir};
use super::tasks;
use crate::cli::lab::Switch;
use crate::exit::Failure;
use crate::stop;

/// How long replicas have to end after SIGTERM.
const ENDING: Duration = Duration::from_secs(10);

/// How much of a log's end is looked at, and how many lines of it are shown.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 3;

/// Where a replica keeps its claims and its records.
#[derive(Clone, Debug)]
pub(super) struct StoreUrls {
    pub(super) lock: String,
    pub(super) sink: String,
}

impl StoreUrls {
    /// With claims, one SQLite file for all replicas. Without, a table of claims and a directory for each replica, so
    /// that no replica sees the claims of another.
    pub(super) fn new(dir: &WorkDir, claims: Switch, number: usize) -> Self {
        match claims {
            Switch::On => {
                let url = format!("sqlite://{}", dir.file(STORE_FILE));
                Self {
                    lock: url.clone(),
                    sink: url,
                }
            }
            Switch::Off => Self {
                lock: format!("sqlite://{}", dir.file(&format!("claims-{number}.db"))),
                sink: format!("file://{}", dir.file(&records_dir(number))),
            },
        }
    }
}

/// The directory with the records of a replica that shares no store, in the directory of the demo.
pub(super) fn records_dir(number: usize) -> String {
    format!("records-{number}")
}

/// What has been done to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessState {
    /// It runs.
    Running,
    /// It was stopped with SIGSTOP.
    Frozen,
    /// It was asked to stop.
    Ending,
    /// It was killed, or has ended as it was asked to.
    Gone,
}

/// One child process.
#[derive(Debug)]
pub(super) struct Replica {
    name: String,
    log: PathBuf,
    child: Child,
    state: ProcessState,
}

impl Replica {
    /// Starts `podlog run` number `number`, logging to a file in the directory.
    pub(super) fn start(number: usize, dir: &WorkDir, urls: &StoreUrls) -> Result<Self, Failure> {
        let name = format!("replica-{number}");
        let failed = |e: std::io::Error| {
            Failure::failed(format!("{name} cannot be started: {e}")).with_remedy("raise the process limits")
        };
        let log = dir.path().join(format!("{name}.log"));
        let file = File::create(&log).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("PODLOG_") || text == "RUST_LOG" || text == "KUBECONFIG" {
                command.env_remove(&variable);
            }
        }
        command.env(stop::PARENT, std::process::id().to_string());
        command
            .arg("run")
            .args(["--http", "127.0.0.1:0", "--replica-id", &name]);
        command.args(["--lock", &urls.lock, "--sink", &urls.sink]);
        command.args(["--kubeconfig", &dir.file("kubeconfig.yaml")]);
        // A stream that has gone mute is found out within a minute by default; the demo is over by then.
        command.args(["--probe", "5s"]);
        command.current_dir(dir.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().map_err(failed)?;
        let state = ProcessState::Running;
        Ok(Self {
            name,
            log,
            child,
            state,
        })
    }

    /// Its name, the readable part of its id in the table of claims.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What has been done to it.
    pub(super) fn state(&self) -> ProcessState {
        self.state
    }

    /// The number of its process, while there is one.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// How many tasks it has, unless it does not answer.
    pub(super) async fn tasks(&self) -> Option<f64> {
        tasks::of(&self.log).await
    }

    /// Fails when it has ended although it was not asked to.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        if matches!(self.state, ProcessState::Ending | ProcessState::Gone) {
            return Ok(());
        }
        match self.left() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(failure) => Err(failure),
        }
    }

    /// The exit status, if it has ended.
    fn left(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let name = &self.name;
        let failed = |e| Failure::failed(format!("{name} cannot be waited for: {e}")).with_remedy("please report it");
        self.child.try_wait().map_err(failed)
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let (name, said) = (&self.name, tail(&self.log));
        Failure::failed(format!("{name} has ended by itself ({status}); its log ends: {said}"))
    }

    /// SIGKILL. Returns when the process is gone.
    pub(super) async fn kill(&mut self) {
        self.state = ProcessState::Gone;
        if let Err(error) = self.child.kill().await {
            tracing::warn!(replica = self.name, %error, "a replica could not be killed");
        }
    }

    /// SIGTERM.
    pub(super) fn terminate(&mut self) {
        self.state = ProcessState::Ending;
        self.send(Signal::TERM);
    }

    /// SIGSTOP.
    pub(super) fn freeze(&mut self) {
        self.state = ProcessState::Frozen;
        self.send(Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn thaw(&mut self) {
        self.state = ProcessState::Running;
        self.send(Signal::CONT);
    }

    fn send(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!(replica = self.name, ?signal, %error, "a replica did not get a signal");
        }
    }

    /// Whether it has ended after it was asked to; if it failed, the end of its log.
    pub(super) fn has_ended(&mut self) -> Result<Option<Result<(), String>>, Failure> {
        let Some(status) = self.left()? else { return Ok(None) };
        self.state = ProcessState::Gone;
        Ok(Some(self.check_exit(status)))
    }

    fn check_exit(&self, status: ExitStatus) -> Result<(), String> {
        if status.success() {
            return Ok(());
        }
        Err(format!("{} ended with {status}: {}", self.name, tail(&self.log)))
    }
}

/// Ends all replicas as a shutdown would. Returns those that had to be killed or ended with a failure.
pub(super) async fn end(replicas: &mut [Replica]) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + ENDING;
    let mut badly = Vec::new();
    let left = |r: &&mut Replica| r.state != ProcessState::Gone;
    // A second SIGTERM would end it at once.
    for replica in replicas
        .iter_mut()
        .filter(left)
        .filter(|r| r.state != ProcessState::Ending)
    {
        replica.terminate();
    }
    for replica in replicas.iter_mut().filter(left) {
        if let Ok(Ok(status)) = tokio::time::timeout_at(deadline, replica.child.wait()).await {
            replica.state = ProcessState::Gone;
            badly.extend(replica.check_exit(status).err());
        } else {
            let name = &replica.name;
            badly.push(format!(
                "{name} did not end within {ENDING:?} of SIGTERM and was killed"
            ));
            replica.kill().await;
        }
    }
    badly
}

/// Kills all replicas and waits until they are gone.
pub(super) async fn kill(replicas: &mut [Replica]) {
    for replica in replicas.iter_mut().filter(|r| r.state != ProcessState::Gone) {
        replica.kill().await;
    }
}

/// The last lines of a log, on one line.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().rev().take(TAIL_LINES).collect();
        Ok(lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
    };
    read().unwrap_or_else(|e| format!("({}: {e})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_last_lines_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, format!("{}\nb\nc\nd\n", "x".repeat(9000))).unwrap();
        assert_eq!(tail(&path), "b | c | d");
        assert!(tail(&dir.path().join("none")).contains("none"));
    }
}
