//! Everything that runs while a demo runs, and the short step by which all of it advances.
//!
//! Whatever a demo waits for, it waits by [`RunningDemo::tick`], so that a failure is seen at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::observer::Observer;
use super::replicas::Replicas;
use super::store_lock::StoreLock;
use crate::exit::Failure;

/// Time between two steps; also how exactly a takeover is timed.
const TICK: Duration = Duration::from_millis(200);

/// The parts. The replicas come first, so that they are gone before their directory is.
#[derive(Debug)]
pub(super) struct RunningDemo {
    pub(super) replicas: Replicas,
    pub(super) observer: Observer,
    pub(super) environment: Environment,
    /// The lock that a soak holds on the store now.
    pub(super) store_lock: Option<StoreLock>,
    pub(super) stop: CancellationToken,
    /// Whether the containers still write.
    pub(super) writing: bool,
}

impl RunningDemo {
    /// Waits a moment and observes everything.
    pub(super) async fn tick(&mut self) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopped()),
            () = tokio::time::sleep(TICK) => {}
        }
        if let Err(failure) = self.replicas.check() {
            // Ctrl-C reaches the replicas as well; then that is not their failure.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(stopped()),
                () = tokio::time::sleep(TICK) => return Err(failure),
            }
        }
        self.writing = self.environment.is_writing()?;
        let read = self.observer.read_claims().await;
        self.tolerate(read)?;
        let copies = self.copies();
        let counted = self.observer.count(&self.environment.cluster, copies).await;
        self.tolerate(counted)?;
        self.observer.show(self.replicas.all(), false);
        Ok(())
    }

    /// How often each line is stored when all are.
    pub(super) fn copies(&self) -> usize {
        if self.observer.has_claims() {
            1
        } else {
            self.replicas.count()
        }
    }

    /// Drops a failure to read the store while the demo itself keeps it locked, or has frozen a replica that may hold
    /// its lock.
    pub(super) fn tolerate(&self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        match outcome {
            Err(failure) if self.store_lock.is_some() || self.replicas.any_frozen() => {
                tracing::debug!(%failure, "the demo could not read the store");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Kills the replica in this slot with SIGKILL, and from then on measures the takeover of its pods.
    pub(super) async fn kill(&mut self, slot: usize) -> Result<(), Failure> {
        let name = self.replicas.slot(slot).name().to_owned();
        let killed_at = Instant::now();
        self.replicas.slot(slot).kill().await;
        self.observer.say(format!("{name} was killed with SIGKILL"));
        self.observer.expect_takeover(&name, killed_at).await
    }
}

/// The failure of a demo that was asked to stop.
pub(super) fn stopped() -> Failure {
    Failure::failed("stopped before the audit")
}
