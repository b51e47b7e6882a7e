//! The built binary as a real process: started, signalled and measured. Its log goes to a file.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// How long a replica may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(25);

/// Clock ticks per second in `/proc/PID/stat`, which Linux fixes at 100 for programs.
const TICKS: f64 = 100.0;

/// One `podlog run`.
pub(crate) struct Replica {
    pub(crate) name: String,
    log: PathBuf,
    child: Child,
}

/// The binary with these arguments and no settings from the environment but the lock store.
fn podlog(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(args).env("PODLOG_LOCK", url);
    command
}

/// Runs a command of podlog to its end.
pub(crate) fn execute(url: &str, args: &[&str]) -> Output {
    podlog(url, args).output().unwrap()
}

impl Replica {
    /// Starts a replica whose log goes to `NAME.log` in this folder.
    pub(crate) fn start(url: &str, folder: &Path, name: &str, args: &[&str]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let level = std::env::var("E2E_LOG_LEVEL").unwrap_or_else(|_| "info".into());
        let child = podlog(
            url,
            &["run", "--http", "off", "--replica-id", name, "--log-level", &level],
        )
        .args(args)
        .env("PODLOG_SINK", url)
        .stdin(Stdio::null())
        .stdout(File::create("/dev/null").unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
        Self {
            name: name.to_owned(),
            log,
            child,
        }
    }

    /// Its log, including that of earlier processes with this name.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Seconds of processor time used so far.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // After the command, which may contain blanks: state is the third field, user and system time 14 and 15.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let times: Vec<f64> = fields.skip(11).take(2).flat_map(str::parse).collect();
        times.iter().sum::<f64>() / TICKS
    }

    /// The most memory it has used so far, in MiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|rest| rest.split_whitespace().next()).map(str::parse);
        kib.and_then(Result::ok).unwrap_or(0u64) / 1024
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL; the process has ended when this returns.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{} had ended before", self.name);
    }

    /// SIGSTOP: it neither reads nor renews until [`Self::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, without waiting for the end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended after [`Self::terminate`]; its exit status must be 0.
    pub(crate) async fn ended(&mut self) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < end,
                "{} has not ended {PATIENCE:?} after SIGTERM",
                self.name
            );
            sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success(), "{} ended with {status}", self.name);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It has usually ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
