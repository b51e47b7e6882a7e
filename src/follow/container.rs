//! One container: reads one instance after another, in the order that `domain::steps` decides.
//!
//! It never reads a log itself: `instance` does. What is awaited before and after the reading is boxed, so that it
//! takes no memory during the hours of reading.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::steps::{ContainerStep, LogSource, is_older_than_stored, next_step, were_instances_missed};
use crate::domain::{ContainerId, ContainerProgress, Gap, GapReason, Instance, Origin, Pod, Position, StreamId};
use crate::sinks::SinkError;

use super::assignment::{ContainerEnd, PodAssignment};
use super::context::Context;
use super::instance::InstanceReader;
use super::instance_status::InstanceStatus;
use super::reader::Reader;
use super::writer::{WriteOutcome, Writer};

/// How long the status of a pod may show an instance older than the one that was read, as after a switch to another API
/// server. A watch brings the present status within seconds.
const MAX_STATUS_DELAY: Duration = Duration::from_secs(30);

/// Reads one container until nothing of it is left to read.
pub(super) async fn follow_container(context: &Context, assignment: &PodAssignment, name: Arc<str>) -> ContainerEnd {
    let mut pod = assignment.pod.clone();
    loop {
        let present = pod.borrow_and_update().clone();
        let stored = assignment.progress.borrow().containers.get(&name).cloned();
        let end = match next_step(&present, &name, stored.as_ref()) {
            ContainerStep::Done => return ContainerEnd::Done,
            ContainerStep::Read(instance, source) => {
                let missed = gap_of_missed(stored.as_ref(), &instance);
                read(context, assignment, &present, &name, (instance, source), missed).await
            }
            ContainerStep::GiveUp(stored, reason) => {
                Box::pin(give_up(context, assignment, &present, &name, stored, reason)).await
            }
            ContainerStep::Wait => Box::pin(wait(assignment, &mut pod, &name, stored.as_ref())).await,
        };
        if let Some(end) = end {
            return end;
        }
        if assignment.stop.is_cancelled() {
            return ContainerEnd::Stopped;
        }
    }
}

/// Waits until the pod changes. Logs a warning when the container is not read for longer than a status may be late.
async fn wait(
    assignment: &PodAssignment,
    pod: &mut watch::Receiver<Arc<Pod>>,
    name: &str,
    stored: Option<&ContainerProgress>,
) -> Option<ContainerEnd> {
    let newer_stored = stored.filter(|stored| is_older_than_stored(&pod.borrow(), name, stored));
    let mut warned = false;
    loop {
        tokio::select! {
            biased;
            () = assignment.stop.cancelled() => return Some(ContainerEnd::Stopped),
            changed = pod.changed() => return changed.is_err().then_some(ContainerEnd::Stopped),
            () = tokio::time::sleep(MAX_STATUS_DELAY), if newer_stored.is_some() && !warned => {
                warned = true;
                tracing::warn!(
                    container = name,
                    stored = newer_stored.map(|stored| stored.container_id.short()),
                    restart_count = newer_stored.map(|stored| stored.restart_count),
                    "the container is not read, because the checkpoint names a later instance of it; if that is wrong, delete the pod's row from distributed_lock to start over"
                );
            }
        }
    }
}

/// Reads one instance until it is finished, given up, or no longer the one to read.
async fn read(
    context: &Context,
    assignment: &PodAssignment,
    pod: &Pod,
    name: &Arc<str>,
    (instance, source): (Instance, LogSource),
    missed: Option<Gap>,
) -> Option<ContainerEnd> {
    let origin = origin(pod, name, &instance.id, instance.restart_count);
    let position = match Box::pin(open(context, assignment, &origin)).await {
        Ok(position) => position,
        Err(end) => return Some(end),
    };
    let mut writer = Writer::new(context, assignment, (origin, instance.started), position);
    writer.gap = missed.filter(|_| position.is_none());
    // The gap is written before the checkpoint names the instance; afterwards nothing would show that instances were
    // missed.
    if Box::pin(writer.flush(|| {})).await == WriteOutcome::Fenced {
        return Some(ContainerEnd::Fenced);
    }
    writer.mark_begun();
    let status = InstanceStatus::new(assignment, name.clone(), (instance, source));
    InstanceReader::new(Reader::new(context, assignment, status, writer))
        .run()
        .await
}

/// The gap before an instance when other instances ran between it and the one that was read before. They started and
/// ended unseen, so they have no stream of their own in which to report it.
fn gap_of_missed(stored: Option<&ContainerProgress>, instance: &Instance) -> Option<Gap> {
    let before = stored.filter(|stored| were_instances_missed(instance, stored))?;
    Some(Gap {
        from: before.position.map(|p| p.time),
        to: instance.started,
        reason: GapReason::Restarted,
    })
}

/// Tells the sink under which fence the stream is written from now on. Returns the stored position, from the sink or
/// the checkpoint.
async fn open(
    context: &Context,
    assignment: &PodAssignment,
    origin: &Arc<Origin>,
) -> Result<Option<Position>, ContainerEnd> {
    let stored = assignment
        .progress
        .borrow()
        .containers
        .get(&origin.stream.container)
        .cloned();
    let position = stored
        .filter(|stored| stored.container_id == origin.stream.container_id)
        .and_then(|stored| stored.position);
    let opened = tokio::select! {
        biased;
        () = assignment.stop.cancelled() => return Err(ContainerEnd::Stopped),
        opened = context.sink.open(origin, assignment.grant.fence) => opened,
    };
    match opened {
        Ok(known) => Ok(known.or(position)),
        Err(SinkError::Rejected(why)) => {
            tracing::error!(container = %origin.stream.container, %why, "the sink refuses the stream; the position is taken from the checkpoint");
            Ok(position)
        }
        Err(SinkError::Fenced | SinkError::Again { .. }) => Err(ContainerEnd::Fenced),
    }
}

/// Reports that the rest of a stream cannot be read, and marks the stream as finished.
async fn give_up(
    context: &Context,
    assignment: &PodAssignment,
    pod: &Pod,
    name: &Arc<str>,
    stored: ContainerProgress,
    reason: GapReason,
) -> Option<ContainerEnd> {
    let origin = origin(pod, name, &stored.container_id, stored.restart_count);
    let position = match open(context, assignment, &origin).await {
        Ok(position) => position,
        Err(end) => return Some(end),
    };
    let mut writer = Writer::new(context, assignment, (origin, stored.started), position);
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

fn origin(pod: &Pod, name: &Arc<str>, id: &ContainerId, restart_count: u32) -> Arc<Origin> {
    Arc::new(Origin {
        stream: StreamId {
            uid: pod.uid.clone(),
            container: name.clone(),
            container_id: id.clone(),
        },
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        node: pod.node.clone(),
        restart_count,
        labels: pod.labels.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The future of a container takes 1.7 KB, beside 0.6 KB of its `Reader`. Without the boxes around what is awaited
    /// for moments it took 4.8 KB.
    #[test]
    fn a_future_that_waits_for_hours_is_small() {
        assert!(
            size(follow_container) <= 2048,
            "{} bytes for a container",
            size(follow_container)
        );
    }
}
