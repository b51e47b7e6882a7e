//! The parts of a running demo, and the step that waits and observes all of them.
//!
//! A demo always waits with [`RunningDemo::tick`], so that it detects a failure at once. It never waits in another way.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::observer::Observer;
use super::replicas::Replicas;
use super::store_lock::StoreLock;
use crate::exit::Failure;

/// Time between two steps. It is also the precision of takeover times.
const TICK: Duration = Duration::from_millis(200);

/// The parts. The replicas come first, so that they are dropped before their directory.
#[derive(Debug)]
pub(super) struct RunningDemo {
    pub(super) replicas: Replicas,
    pub(super) observer: Observer,
    pub(super) environment: Environment,
    /// The lock on the store, while a soak holds it.
    pub(super) store_lock: Option<StoreLock>,
    pub(super) stop: CancellationToken,
    /// Whether the containers still write.
    pub(super) writing: bool,
}

impl RunningDemo {
    /// Waits for a step, and observes everything.
    pub(super) async fn tick(&mut self) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopped()),
            () = tokio::time::sleep(TICK) => {}
        }
        if let Err(failure) = self.replicas.check() {
            // Ctrl-C also stops the replicas. That is not a failure.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(stopped()),
                () = tokio::time::sleep(TICK) => return Err(failure),
            }
        }
        self.writing = self.environment.is_writing()?;
        let read = self.observer.read_claims().await;
        self.ignore_while_locked(read)?;
        let copies = self.copies();
        let counted = self.observer.count(&self.environment.cluster, copies).await;
        self.ignore_while_locked(counted)?;
        self.observer.show(self.replicas.all(), false);
        Ok(())
    }

    /// How many copies of each line should be stored.
    pub(super) fn copies(&self) -> usize {
        if self.observer.has_claims() {
            1
        } else {
            self.replicas.count()
        }
    }

    /// Ignores a failure to read the store while the demo has locked it, or while a frozen replica may have locked it.
    pub(super) fn ignore_while_locked(&self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        match outcome {
            Err(failure) if self.store_lock.is_some() || self.replicas.any_frozen() => {
                tracing::debug!(%failure, "the demo could not read the store");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Kills the replica in this slot with SIGKILL, and begins to measure the takeover of its pods.
    pub(super) async fn kill(&mut self, slot: usize) -> Result<(), Failure> {
        let name = self.replicas.slot(slot).name().to_owned();
        let killed_at = Instant::now();
        self.replicas.slot(slot).kill().await;
        self.observer.show_event(format!("{name} was killed with SIGKILL"));
        self.observer.expect_takeover(&name, killed_at).await
    }
}

/// The failure of a demo that was asked to stop.
pub(super) fn stopped() -> Failure {
    Failure::failed("stopped before the audit")
}
