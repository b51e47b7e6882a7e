//! What the pod's status says about one instance of a container: whether it has ended, and whether its log is the
//! container's current or previous one.
//!
//! It is updated from the pod that the task is given, and from the pod that the reader fetches. It makes no request
//! itself.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::steps::{LogSource, has_ended, source_of};
use crate::domain::{Instance, Pod};

use super::assignment::{ContainerEnd, PodAssignment};

/// What the pod's status says about one instance.
pub(super) struct InstanceStatus<'a> {
    assignment: &'a PodAssignment,
    container: Arc<str>,
    instance: Instance,
    /// The log of the container in which the instance is found.
    source: LogSource,
    /// Whether a status has shown that the instance has ended. Never becomes false again.
    ended: bool,
}

impl<'a> InstanceStatus<'a> {
    pub(super) fn new(
        assignment: &'a PodAssignment,
        container: Arc<str>,
        instance: Instance,
        source: LogSource,
    ) -> Self {
        Self {
            assignment,
            container,
            instance,
            source,
            ended: false,
        }
    }

    /// The container's name.
    pub(super) fn container(&self) -> &Arc<str> {
        &self.container
    }

    /// The log of the container in which the instance is found.
    pub(super) fn source(&self) -> LogSource {
        self.source
    }

    /// Whether the instance is known to have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Updates itself from the pod as the task knows it, and says whether the instance has ended.
    pub(super) fn refresh(&mut self) -> bool {
        let pod = self.assignment.pod.borrow().clone();
        self.update(&pod);
        self.ended
    }

    /// Updates itself from a pod. Returns the log in which the instance is found now; `None` when the pod's status no
    /// longer names the instance.
    pub(super) fn update(&mut self, pod: &Pod) -> Option<LogSource> {
        let container = pod.container(&self.container)?;
        self.ended |= has_ended(container, &self.instance);
        let source = source_of(container, &self.instance)?;
        self.source = source;
        Some(source)
    }

    /// Waits for `wait`, but not beyond the end of the instance or the deletion of the pod. `Some` when the task is
    /// asked to stop.
    pub(super) async fn wait(&self, wait: Duration) -> Option<ContainerEnd> {
        let mut pod = self.assignment.pod.clone();
        let known = pod.borrow_and_update().clone();
        if !self.ended && self.is_ended_in(&known) {
            return None;
        }
        let changed = async {
            while pod.changed().await.is_ok() {
                let now = pod.borrow_and_update().clone();
                if now.deleted && !known.deleted || !self.ended && self.is_ended_in(&now) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.assignment.stop.cancelled() => Some(ContainerEnd::Stopped),
            () = changed => None,
            () = tokio::time::sleep(wait) => None,
        }
    }

    fn is_ended_in(&self, pod: &Pod) -> bool {
        pod.container(&self.container)
            .is_some_and(|container| has_ended(container, &self.instance))
    }
}
