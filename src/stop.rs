//! Shutdown: the first SIGTERM or SIGINT asks the work to stop, the second one drops it.
//!
//! Nothing here ends the process. `main` does, with the outcome that is returned here.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

/// The variable with the process ID of a parent that this process must not outlive. Programs that start podlog as their
/// child set it, such as `podlog demo`. It is no setting, so its name does not begin with `PODLOG_`.
pub const PARENT: &str = "STOP_PODLOG_WITH_PROCESS";

/// Makes the kernel kill this process when the parent that [`PARENT`] names dies, however it dies. Does nothing without
/// that variable, and on other systems than Linux. Must be called on the main thread.
pub fn die_with_parent() {
    #[cfg(target_os = "linux")]
    if let Some(parent) = std::env::var(PARENT).ok().and_then(|id| id.parse::<i32>().ok()) {
        let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        // If the parent died before the line above, no signal is sent.
        let orphan = rustix::process::getppid().is_none_or(|id| id.as_raw_nonzero().get() != parent);
        if asked.is_err() || orphan {
            tracing::warn!(
                parent,
                "cannot ask the kernel to end this process with its parent; if the parent has ended, stop this process"
            );
        }
    }
}

/// The signals that stop the program. They are caught as long as this exists.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to catch SIGINT and SIGTERM. Must be called inside a runtime.
    pub fn catch() -> Result<Self, Failure> {
        let caught = |kind| {
            signal(kind).map_err(|e| {
                Failure::failed(format!("signals cannot be caught: {e}"))
                    .with_remedy("allow it in the sandbox or seccomp profile")
            })
        };
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Returns whether it is SIGINT.
    async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        }
    }
}

/// Runs `work` to its end. The first signal cancels `stop`; the second one drops the work. The work runs in its own
/// task, so that signals are handled even while it is busy.
pub async fn run(
    mut signals: Signals,
    stop: CancellationToken,
    work: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Result<(), Failure> {
    let mut task = JoinSet::new();
    task.spawn(work);
    loop {
        tokio::select! {
            biased;
            ended = task.join_next() => return match ended {
                Some(Ok(outcome)) => outcome,
                Some(Err(e)) => Err(Failure::panicked(e)),
                None => Ok(()),
            },
            interrupt = signals.next() => {
                if stop.is_cancelled() {
                    return Err(Failure::signalled(interrupt));
                }
                let signal = if interrupt { "SIGINT" } else { "SIGTERM" };
                tracing::info!(signal, "stopping; a second signal stops at once");
                stop.cancel();
            }
        }
    }
}

/// Runs `work`. After `stop` it has `grace` to finish; otherwise it is dropped and the result is `None`.
pub async fn finish_within<T>(stop: &CancellationToken, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = late => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_has_no_time_limit_before_the_stop() {
        let stop = CancellationToken::new();
        let work = tokio::time::sleep(Duration::from_hours(1));
        assert_eq!(finish_within(&stop, Duration::from_secs(1), work).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_stop_work_that_exceeds_its_grace_is_dropped() {
        let stop = CancellationToken::new();
        stop.cancel();
        let grace = Duration::from_secs(5);
        let quick = tokio::time::sleep(Duration::from_secs(4));
        assert_eq!(finish_within(&stop, grace, quick).await, Some(()));
        let begin = tokio::time::Instant::now();
        let slow = tokio::time::sleep(Duration::from_secs(6));
        assert_eq!(finish_within(&stop, grace, slow).await, None);
        assert_eq!(begin.elapsed(), grace);
    }
}
