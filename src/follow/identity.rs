//! Whose log it is: opening by name, and making sure that what was opened is this instance's.
//!
//! The log API takes only names. So the pod is looked at after each opening, and before too where content cannot prove
//! anything. What may be another's is never handed on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::LogStream;
use crate::defect::{self, Defect};
use crate::domain::{Pod, Time};

use super::read_end::ReadEnd;
use super::reader::Reader;

/// How long after opening a log the pod is looked at once more before its first lines are handed on. A kubelet that has
/// started the next instance answers for that one while the API still shows the one before it, for some tens of
/// milliseconds; and with the stored line found, or from a stream that is that old, nothing is to be feared.
const STATUS_LAG: Duration = Duration::from_millis(500);

/// A pod of the same name must be created, scheduled, be given a sandbox and start its container before its log can be
/// opened, and be gone again: what takes less time than this from one look at the pod to the next is not that.
const RECREATED: Duration = Duration::from_secs(1);

/// What is known of whose log it is that has been opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    /// It is this instance's, or nothing of it is taken.
    pub(super) proven: bool,
    /// The pod was gone when it was looked at after the opening: the log cannot be opened again.
    pub(super) vanished: bool,
    /// Another pod has its name.
    replaced: bool,
    /// When the log had been opened.
    opened: Duration,
}

impl Identity {
    /// What is known before the opening: whether only content will decide what is taken.
    pub(super) fn new(proven: bool) -> Self {
        Self {
            proven,
            ..Self::default()
        }
    }
}

impl Reader<'_> {
    /// Opens the log and makes sure that it is this instance's.
    pub(super) async fn open(&mut self, follow: bool, since: Option<Time>) -> Result<LogStream, ReadEnd> {
        let (stop, context) = (self.task.stop.clone(), self.context);
        let query = self.query(follow, since);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ReadEnd::Stopped),
            () = gone(self.task.pod.clone()) => return Err(ReadEnd::Gone),
            () = context.limiter.wait_to_open() => {}
        }
        let looked = context.clock.now();
        if !self.identity.proven {
            self.look().await?;
        }
        let asked = context.clock.now();
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ReadEnd::Stopped),
            opened = Box::pin(context.cluster.open_log(&query)) => opened,
        };
        self.identity.opened = context.clock.now();
        self.resume.opened(asked, self.identity.opened);
        match (opened, self.look().await) {
            (Ok(stream), Ok(())) => Ok(stream),
            (Ok(stream), Err(ReadEnd::Gone)) if self.is_last_sight(looked) => Ok(stream),
            (Err(error), Ok(())) => Err(self.broken(&error)),
            (_, Err(close)) => Err(close),
        }
    }

    /// Whether a log that was opened is this pod's although nothing of that name exists any more: because only
    /// what follows the stored line is taken, or because the time since `looked` is too short for another pod.
    fn is_last_sight(&mut self, looked: Duration) -> bool {
        let soon = self.context.clock.since(looked) < RECREATED;
        let certain = !self.identity.replaced && (self.identity.proven || soon);
        if certain {
            self.identity = Identity {
                proven: true,
                vanished: true,
                ..self.identity
            };
        }
        certain
    }

    /// Makes sure, before lines are handed on, that the log is this instance's.
    pub(super) async fn confirm(&mut self) -> Result<(), ReadEnd> {
        if self.identity.proven {
            return Ok(());
        }
        let stop = self.task.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ReadEnd::Stopped),
            () = self.context.clock.sleep_until(self.identity.opened + STATUS_LAG) => {}
        }
        self.look().await?;
        self.identity.proven = true;
        Ok(())
    }

    /// Asks where the instance is now: what was opened by name is its log only if it has not moved.
    pub(super) async fn look(&mut self) -> Result<(), ReadEnd> {
        let stop = self.task.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ReadEnd::Stopped),
            checked = Box::pin(self.check()) => checked,
        }
    }

    async fn check(&mut self) -> Result<(), ReadEnd> {
        if defect::on(Defect::IdentityUnchecked) {
            return Ok(());
        }
        let pod = self.task.pod.borrow().clone();
        let now = match self.context.cluster.pod(&pod.namespace, &pod.name).await {
            Ok(Some(now)) if now.uid == pod.uid => now,
            Ok(other) => {
                self.identity.replaced = other.is_some();
                return Err(ReadEnd::Gone);
            }
            Err(error) => return Err(self.broken(&error.into())),
        };
        let before = self.source;
        match self.learn(&now) {
            Some(source) if source == before => Ok(()),
            // TaskEnd and restarted meanwhile: the next round reads it where it is.
            Some(_) => Err(ReadEnd::Moved),
            None => Err(ReadEnd::Elsewhere),
        }
    }
}

/// Waits until the pod is known to be gone, so that its log cannot be asked for.
async fn gone(mut pod: watch::Receiver<Arc<Pod>>) {
    while !pod.borrow_and_update().gone {
        if pod.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
