//! The log of one instance: opens it by name, and checks that what was opened is the log of this instance.
//!
//! The log API takes only names, so a log may belong to another instance or another pod. The pod is therefore fetched
//! after each opening, and also before it when the content of the log cannot prove which instance wrote it. Lines that
//! another instance may have written are never handed on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::{LogError, LogQuery, LogStream, open_log};
use crate::defect::{self, Defect};
use crate::domain::line_decoder::ResumeMode;
use crate::domain::resume::ResumeState;
use crate::domain::steps::LogSource;
use crate::domain::{Message, Pod, Time};
use crate::unread::{LogState, UnreadReason};

use super::assignment::PodAssignment;
use super::context::Context;
use super::instance_status::InstanceStatus;
use super::read_end::ReadEnd;

/// Time between opening a log and fetching the pod once more, before the first lines are handed on. A kubelet that has
/// just started the next instance serves the log of that one, while the API still shows the instance before it for some
/// tens of milliseconds.
const STATUS_DELAY: Duration = Duration::from_millis(500);

/// Shortest time in which a pod can be replaced by another of its name: that pod must be created, scheduled, get a
/// sandbox and start its container before its log can be opened, and be deleted again.
const MIN_RECREATION: Duration = Duration::from_secs(1);

/// How long to wait before a log is asked for again after the right to read it was refused.
const FORBIDDEN_WAIT: Duration = Duration::from_secs(30);

/// What is known about which instance wrote the log that was opened.
#[derive(Clone, Copy, Debug, Default)]
struct Identity {
    /// Whether this instance wrote it, or no line of another log would be taken from it.
    proven: bool,
    /// Whether the pod no longer existed after the opening, so that the log cannot be opened again.
    pod_deleted: bool,
    /// Whether another pod has the name now.
    name_reused: bool,
    /// Boot-clock time at which the log was opened.
    opened_at: Duration,
}

/// The log of one instance.
pub(super) struct InstanceLog<'a> {
    context: &'a Context,
    assignment: &'a PodAssignment,
    pub(super) status: InstanceStatus<'a>,
    /// Whether the log of the container is read.
    pub(super) state: &'a LogState,
    identity: Identity,
}

impl<'a> InstanceLog<'a> {
    pub(super) fn new(
        context: &'a Context,
        assignment: &'a PodAssignment,
        status: InstanceStatus<'a>,
        state: &'a LogState,
    ) -> Self {
        Self {
            context,
            assignment,
            status,
            state,
            identity: Identity::default(),
        }
    }

    /// Begins a new read. When it takes only lines after the stored line, finding that line proves that the log is this
    /// instance's.
    pub(super) fn begin_read(&mut self, mode: ResumeMode) {
        self.identity = Identity {
            proven: matches!(mode, ResumeMode::After(_) | ResumeMode::AfterEqualStamp { .. }),
            ..Identity::default()
        };
    }

    /// Whether the pod no longer existed after the log was opened, so that the log cannot be opened again.
    pub(super) fn is_pod_deleted(&self) -> bool {
        self.identity.pod_deleted
    }

    /// Opens the log and checks that it is this instance's.
    pub(super) async fn open(
        &mut self,
        follow: bool,
        since: Option<Time>,
        resume: &mut ResumeState,
    ) -> Result<LogStream, ReadEnd> {
        let (stop, context) = (self.assignment.stop.clone(), self.context);
        let query = self.query(follow, since);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ReadEnd::Stopped),
            () = pod_deleted(self.assignment.pod.clone()) => return Err(ReadEnd::PodDeleted),
            () = context.limiter.wait_to_open() => {}
        }
        let began = context.clock.now();
        if !self.identity.proven {
            self.verify().await?;
        }
        let requested_at = context.clock.now();
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ReadEnd::Stopped),
            opened = Box::pin(open_log(&context.cluster, &query)) => opened,
        };
        self.identity.opened_at = context.clock.now();
        resume.record_opened(requested_at, self.identity.opened_at);
        match (opened, self.verify().await) {
            (Ok(stream), Ok(())) => Ok(stream),
            (Ok(stream), Err(ReadEnd::PodDeleted)) if self.is_of_deleted_pod(began) => Ok(stream),
            (Err(error), Ok(())) => Err(self.read_error(&error)),
            (_, Err(end)) => Err(end),
        }
    }

    /// Whether an opened log is this pod's although no pod of that name exists any more: only lines after the stored
    /// line are taken, or the time since `began` is too short for another pod.
    fn is_of_deleted_pod(&mut self, began: Duration) -> bool {
        let soon = self.context.clock.since(began) < MIN_RECREATION;
        let certain = !self.identity.name_reused && (self.identity.proven || soon);
        if certain {
            self.identity = Identity {
                proven: true,
                pod_deleted: true,
                ..self.identity
            };
        }
        certain
    }

    /// Makes sure, before lines are handed on, that the opened log is this instance's.
    pub(super) async fn prove_identity(&mut self) -> Result<(), ReadEnd> {
        if self.identity.proven {
            return Ok(());
        }
        let stop = self.assignment.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ReadEnd::Stopped),
            () = self.context.clock.sleep_until(self.identity.opened_at + STATUS_DELAY) => {}
        }
        self.verify().await?;
        self.identity.proven = true;
        Ok(())
    }

    /// Fetches the pod: what was opened by name is this instance's log only if the instance is still where it was.
    pub(super) async fn verify(&mut self) -> Result<(), ReadEnd> {
        let stop = self.assignment.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ReadEnd::Stopped),
            verified = Box::pin(self.fetch_and_compare()) => verified,
        }
    }

    async fn fetch_and_compare(&mut self) -> Result<(), ReadEnd> {
        if defect::on(Defect::IdentityUnchecked) {
            return Ok(());
        }
        let pod = self.assignment.pod.borrow().clone();
        let now = match self.context.cluster.pod(&pod.namespace, &pod.name).await {
            Ok(Some(now)) if now.uid == pod.uid => now,
            Ok(other) => {
                self.identity.name_reused = other.is_some();
                return Err(ReadEnd::PodDeleted);
            }
            Err(error) => return Err(self.read_error(&error.into())),
        };
        let before = self.status.source();
        match self.status.update(&now) {
            Some(source) if source == before => Ok(()),
            // The container started another instance meanwhile; the next read asks for the previous log.
            Some(_) => Err(ReadEnd::InstanceChanged),
            None => Err(ReadEnd::InstanceUnknown),
        }
    }

    /// The request for the log, from `since` on.
    fn query(&self, follow: bool, since: Option<Time>) -> LogQuery {
        let pod = self.assignment.pod.borrow();
        LogQuery {
            namespace: pod.namespace.to_string(),
            pod: pod.name.to_string(),
            container: self.status.container().to_string(),
            follow,
            previous: self.status.source() == LogSource::Previous,
            since,
            tail_lines: None,
        }
    }

    /// The request for the last line of the log.
    pub(super) fn last_line_query(&self) -> LogQuery {
        LogQuery {
            tail_lines: Some(1),
            ..self.query(false, None)
        }
    }

    /// What an error means for the read. The log counts as unread until a read succeeds.
    pub(super) fn read_error(&self, error: &LogError) -> ReadEnd {
        let (reason, end) = classify(error);
        tracing::debug!(container = %self.status.container(), %error, reason = reason.as_str(), "a read of the log failed");
        self.unread(reason, error.message());
        end
    }

    /// The log could not be read.
    pub(super) fn unread(&self, reason: UnreadReason, message: Message) {
        self.state.unread(&self.assignment.pod.borrow(), reason, message);
    }
}

/// Why a log is unread after this error, and how the read ended.
fn classify(error: &LogError) -> (UnreadReason, ReadEnd) {
    match error {
        LogError::Forbidden(_) => (UnreadReason::Forbidden, ReadEnd::RetryAfter(FORBIDDEN_WAIT)),
        LogError::KubeletRefused(_) => (UnreadReason::KubeletRefused, ReadEnd::RetryAfter(FORBIDDEN_WAIT)),
        LogError::KubeletUnreachable(_) => (UnreadReason::KubeletUnreachable, ReadEnd::Broken),
        LogError::KubeletFailed(_) => (UnreadReason::KubeletFailed, ReadEnd::Broken),
        LogError::KubeletRejected(_) => (UnreadReason::KubeletFailed, ReadEnd::Refused),
        LogError::Proxy(_) => (UnreadReason::Proxy, ReadEnd::Broken),
        LogError::Throttled { after } => (UnreadReason::Throttled, ReadEnd::RetryAfter(*after)),
        LogError::Unavailable(_) => (UnreadReason::ApiServer, ReadEnd::Broken),
        LogError::Rejected(_) => (UnreadReason::ApiServer, ReadEnd::Refused),
        LogError::NotFound | LogError::NoPrevious | LogError::NoStatus(_) => (UnreadReason::NoLog, ReadEnd::Refused),
        LogError::Waiting | LogError::NotScheduled => (UnreadReason::NoLog, ReadEnd::RetryAfter(Duration::ZERO)),
    }
}

/// Waits until the pod is known to be deleted, so that its log cannot be asked for.
async fn pod_deleted(mut pod: watch::Receiver<Arc<Pod>>) {
    while !pod.borrow_and_update().deleted {
        if pod.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
