//! One container: reads one instance after another, in the order that `domain::steps` decides.
//!
//! It asks the sink where the stream of an instance goes on, and reports instances that can no longer be read as gaps.
//! It never reads a log itself: `instance` does. Futures that last only moments are boxed, so that they take no memory
//! during the hours of reading.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::steps::{ContainerStep, LogSource, is_older_than_stored, next_step, were_instances_missed};
use crate::domain::{
    ContainerId, ContainerProgress, ContainerState, Gap, GapReason, Instance, Message, Origin, Pod, Position, StreamId,
};
use crate::sinks::SinkError;
use crate::unread::{LogState, UnreadReason};

use super::assignment::{ContainerEnd, PodAssignment};
use super::context::Context;
use super::instance::InstanceReader;
use super::instance_status::InstanceStatus;
use super::log_reader::LogReader;
use super::writer::{WriteOutcome, Writer};

/// Reads one container until nothing of it is left to read.
pub(super) async fn follow_container(context: &Context, assignment: &PodAssignment, name: Arc<str>) -> ContainerEnd {
    let uid = assignment.pod.borrow().uid.clone();
    let reader = ContainerReader {
        context,
        assignment,
        state: context.unread.log(uid, name.clone()),
        name,
    };
    reader.run().await
}

/// Reads the instances of one container.
struct ContainerReader<'a> {
    context: &'a Context,
    assignment: &'a PodAssignment,
    /// Whether its log is read.
    state: LogState,
    /// The container's name.
    name: Arc<str>,
}

impl ContainerReader<'_> {
    async fn run(&self) -> ContainerEnd {
        let mut pod = self.assignment.pod.clone();
        loop {
            let present = pod.borrow_and_update().clone();
            let stored = self.progress();
            let end = match next_step(&present, &self.name, stored.as_ref()) {
                ContainerStep::Done => return ContainerEnd::Done,
                ContainerStep::Read(instance, source) => {
                    let missed = gap_before(&instance, stored.as_ref());
                    self.read(&present, instance, source, missed).await
                }
                ContainerStep::GiveUp(stored, reason) => Box::pin(self.give_up(&present, stored, reason)).await,
                ContainerStep::Wait => Box::pin(self.wait(&mut pod, stored.as_ref())).await,
            };
            if let Some(end) = end {
                return end;
            }
            if self.assignment.stop.is_cancelled() {
                return ContainerEnd::Stopped;
            }
        }
    }

    /// How far the container is stored.
    fn progress(&self) -> Option<ContainerProgress> {
        self.assignment.progress.borrow().containers.get(&self.name).cloned()
    }

    /// Waits until the pod changes. The log counts as unread while the status does not say what to read although the
    /// container runs.
    async fn wait(
        &self,
        pod: &mut watch::Receiver<Arc<Pod>>,
        stored: Option<&ContainerProgress>,
    ) -> Option<ContainerEnd> {
        loop {
            let wait = {
                let pod = pod.borrow();
                let unread = why_unread(&pod, &self.name, stored);
                match &unread {
                    Some((reason, message)) => self.state.unread(&pod, *reason, message.clone()),
                    // There is nothing to read.
                    None => self.state.followed(),
                }
                unread.map(|(reason, _)| reason.patience())
            };
            tokio::select! {
                biased;
                () = self.assignment.stop.cancelled() => return Some(ContainerEnd::Stopped),
                changed = pod.changed() => return changed.is_err().then_some(ContainerEnd::Stopped),
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Reads one instance until it is finished, given up, or no longer the one to read. `missed`: a gap before it.
    async fn read(
        &self,
        pod: &Pod,
        instance: Instance,
        source: LogSource,
        missed: Option<Gap>,
    ) -> Option<ContainerEnd> {
        let origin = self.origin(pod, &instance.id, instance.restart_count);
        let position = match Box::pin(self.open_stream(&origin)).await {
            Ok(position) => position,
            Err(end) => return Some(end),
        };
        let mut writer = Writer::new(self.context, self.assignment, origin, instance.started, position);
        writer.gap = missed.filter(|_| position.is_none());
        // The gap is written before the checkpoint names the instance; afterwards nothing would show that instances
        // were missed.
        if Box::pin(writer.flush(|| {})).await == WriteOutcome::Fenced {
            return Some(ContainerEnd::Fenced);
        }
        writer.mark_begun();
        let status = InstanceStatus::new(self.assignment, self.name.clone(), instance, source);
        let reader = LogReader::new(self.context, self.assignment, status, &self.state, writer);
        InstanceReader::new(reader).run().await
    }

    /// Reports that the rest of a stream cannot be read, and marks the stream as finished.
    async fn give_up(&self, pod: &Pod, stored: ContainerProgress, reason: GapReason) -> Option<ContainerEnd> {
        let origin = self.origin(pod, &stored.container_id, stored.restart_count);
        let position = match self.open_stream(&origin).await {
            Ok(position) => position,
            Err(end) => return Some(end),
        };
        let mut writer = Writer::new(self.context, self.assignment, origin, stored.started, position);
        writer.gap = Some(Gap {
            from: position.map(|p| p.time),
            to: None,
            reason,
        });
        if writer.flush(|| {}).await == WriteOutcome::Fenced {
            return Some(ContainerEnd::Fenced);
        }
        writer.mark_finished();
        None
    }

    /// Tells the sink under which fence the stream is written from now on. Returns the position from which it goes on:
    /// that of the sink, or else that of the checkpoint.
    async fn open_stream(&self, origin: &Arc<Origin>) -> Result<Option<Position>, ContainerEnd> {
        let position = self
            .progress()
            .filter(|stored| stored.container_id == origin.stream.container_id)
            .and_then(|stored| stored.position);
        let _waits = self.context.metrics.unstored.begin();
        let opened = tokio::select! {
            biased;
            () = self.assignment.stop.cancelled() => return Err(ContainerEnd::Stopped),
            opened = self.context.sink.open(origin, self.assignment.grant.fence) => opened,
        };
        match opened {
            Ok(known) => Ok(known.or(position)),
            Err(SinkError::Rejected(why)) => {
                tracing::error!(container = %self.name, %why, "the sink refuses the stream; the position is taken from the checkpoint");
                Ok(position)
            }
            Err(SinkError::Fenced | SinkError::Again { .. }) => Err(ContainerEnd::Fenced),
        }
    }

    fn origin(&self, pod: &Pod, id: &ContainerId, restart_count: u32) -> Arc<Origin> {
        Arc::new(Origin {
            stream: StreamId {
                uid: pod.uid.clone(),
                container: self.name.clone(),
                container_id: id.clone(),
            },
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            node: pod.node.clone(),
            restart_count,
            labels: pod.labels.clone(),
        })
    }
}

/// Why a container is not read although it runs, when there is nothing to read by its status.
fn why_unread(pod: &Pod, name: &str, stored: Option<&ContainerProgress>) -> Option<(UnreadReason, Message)> {
    let node = pod.node.as_deref().unwrap_or_default();
    if matches!(pod.container(name)?.state, ContainerState::RunningWithoutId) {
        let message = Message::new(
            "the pod's status shows that the container runs, but its containerID is missing or malformed",
            format!("the kubelet of node {node} must set status.containerStatuses[].containerID"),
        );
        return Some((UnreadReason::NoContainerId, message));
    }
    let stored = stored.filter(|stored| is_older_than_stored(pod, name, stored))?;
    let message = Message::new(
        format!(
            "the checkpoint names a later instance of the container ({}, restart count {}) than the one that runs",
            stored.container_id.short(),
            stored.restart_count
        ),
        "if that is wrong, delete the pod's row from distributed_lock to start over",
    );
    Some((UnreadReason::LaterInstanceStored, message))
}

/// The gap before an instance when other instances ran between the stored one and this one. They started and ended
/// unseen, so they have no stream of their own in which to report it.
fn gap_before(instance: &Instance, stored: Option<&ContainerProgress>) -> Option<Gap> {
    let before = stored.filter(|stored| were_instances_missed(instance, stored))?;
    Some(Gap {
        from: before.position.map(|p| p.time),
        to: instance.started,
        reason: GapReason::Restarted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The future of a container takes 1.7 KB, and its `LogReader` another 0.6 KB. Without boxes around futures that
    /// last only moments it takes 4.8 KB.
    #[test]
    fn a_future_that_waits_for_hours_is_small() {
        assert!(
            size(follow_container) <= 2048,
            "{} bytes for a container",
            size(follow_container)
        );
    }
}
