//! A replica of the demo: a child process that runs `podlog run`, as a user would.
//!
//! It shares nothing with this process except the kubeconfig and the stores that its settings name. It is killed when
//! it is dropped. On Linux it is also killed when this process dies; on other systems it may outlive a demo that gets
//! SIGKILL.

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
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes at the end of a log are read, and how many lines of them are shown.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 3;

/// Where a replica stores its claims and its records.
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

/// The name of the directory with the records of a replica that shares no store.
pub(super) fn records_dir(number: usize) -> String {
    format!("records-{number}")
}

/// The state of a replica's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessState {
    /// It runs.
    Running,
    /// It was stopped with SIGSTOP.
    Frozen,
    /// It was asked to stop.
    Ending,
    /// It was killed, or has ended after it was asked to stop.
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
    /// Starts the replica with this number. It logs to a file in the directory.
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
        // By default a mute stream is detected within a minute. That is too late for a demo.
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

    /// Its name, which is the readable part of its identity in the table of claims.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The state of its process.
    pub(super) fn state(&self) -> ProcessState {
        self.state
    }

    /// The process ID, while the process exists.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// How many tasks it has; `None` if it does not answer.
    pub(super) async fn tasks(&self) -> Option<f64> {
        tasks::count(&self.log).await
    }

    /// Fails if it has ended although it was not asked to stop.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        if matches!(self.state, ProcessState::Ending | ProcessState::Gone) {
            return Ok(());
        }
        match self.exit_status() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.unexpected_exit(status)),
            Err(failure) => Err(failure),
        }
    }

    /// The exit status, if it has ended.
    fn exit_status(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let name = &self.name;
        let failed = |e| Failure::failed(format!("{name} cannot be waited for: {e}")).with_remedy("please report it");
        self.child.try_wait().map_err(failed)
    }

    fn unexpected_exit(&self, status: ExitStatus) -> Failure {
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
    pub(super) fn resume(&mut self) {
        self.state = ProcessState::Running;
        self.send(Signal::CONT);
    }

    fn send(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!(replica = self.name, ?signal, %error, "a replica did not get a signal");
        }
    }

    /// Whether it has ended after it was asked to stop. If it failed, the error has the end of its log.
    pub(super) fn has_ended(&mut self) -> Result<Option<Result<(), String>>, Failure> {
        let Some(status) = self.exit_status()? else {
            return Ok(None);
        };
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

/// Stops all replicas with SIGTERM. Returns the failures of those that failed or had to be killed.
pub(super) async fn stop_all(replicas: &mut [Replica]) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
    let mut failed = Vec::new();
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
            failed.extend(replica.check_exit(status).err());
        } else {
            let name = &replica.name;
            failed.push(format!(
                "{name} did not end within {STOP_TIMEOUT:?} of SIGTERM and was killed"
            ));
            replica.kill().await;
        }
    }
    failed
}

/// Kills all replicas and waits until they are gone.
pub(super) async fn kill_all(replicas: &mut [Replica]) {
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
