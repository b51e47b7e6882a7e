//! One container: reads one instance after another, in the order that `domain::steps` decides.
//!
//! It never reads a log itself: `instance` does. What is awaited before and after the reading is boxed, so that it takes
//! no memory during the hours of reading.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::steps::{Source, Step, has_missed, is_out_of_place, next_step};
use crate::domain::{ContainerId, Gap, GapReason, Instance, Mark, Origin, Pod, Position, StreamId};
use crate::sinks::SinkError;

use super::context::Context;
use super::instance::InstanceReader;
use super::instance_status::InstanceStatus;
use super::reader::Reader;
use super::task::{ContainerEnd, Task};
use super::writer::{WriteOutcome, Writer};

/// How long the status of a pod may show an instance older than the one that was read, as after a switch to another API
/// server. A watch brings the present status within seconds.
const MAX_STATUS_DELAY: Duration = Duration::from_secs(30);

/// Reads one container until nothing of it is left to read.
pub(super) async fn follow_container(context: &Context, task: &Task, name: Arc<str>) -> ContainerEnd {
    let mut pod = task.pod.clone();
    loop {
        let present = pod.borrow_and_update().clone();
        let mark = task.progress.borrow().containers.get(&name).cloned();
        let end = match next_step(&present, &name, mark.as_ref()) {
            Step::Done => return ContainerEnd::Done,
            Step::Read(instance, source) => {
                let missed = missed(mark.as_ref(), &instance);
                read(context, task, &present, &name, (instance, source), missed).await
            }
            Step::GiveUp(mark, reason) => Box::pin(give_up(context, task, &present, &name, mark, reason)).await,
            Step::Wait => Box::pin(wait(task, &mut pod, &name, mark.as_ref())).await,
        };
        if let Some(end) = end {
            return end;
        }
        if task.stop.is_cancelled() {
            return ContainerEnd::Stopped;
        }
    }
}

/// Waits until the pod changes. Logs a warning when the container is not read for longer than a status may be late.
async fn wait(
    task: &Task,
    pod: &mut watch::Receiver<Arc<Pod>>,
    name: &str,
    mark: Option<&Mark>,
) -> Option<ContainerEnd> {
    let out_of_place = mark.filter(|mark| is_out_of_place(&pod.borrow(), name, mark));
    let mut warned = false;
    loop {
        tokio::select! {
            biased;
            () = task.stop.cancelled() => return Some(ContainerEnd::Stopped),
            changed = pod.changed() => return changed.is_err().then_some(ContainerEnd::Stopped),
            () = tokio::time::sleep(MAX_STATUS_DELAY), if out_of_place.is_some() && !warned => {
                warned = true;
                tracing::warn!(
                    container = name,
                    stored = out_of_place.map(|mark| mark.container_id.short()),
                    restart = out_of_place.map(|mark| mark.restart),
                    "the container is not read, because the checkpoint names a later instance of it; if that is wrong, delete the pod's row from distributed_lock to start over"
                );
            }
        }
    }
}

/// Reads one instance until it is finished, given up, or no longer the one to read.
async fn read(
    context: &Context,
    task: &Task,
    pod: &Pod,
    name: &Arc<str>,
    (instance, source): (Instance, Source),
    missed: Option<Gap>,
) -> Option<ContainerEnd> {
    let origin = origin(pod, name, &instance.id, instance.restart);
    let position = match Box::pin(open(context, task, &origin)).await {
        Ok(position) => position,
        Err(end) => return Some(end),
    };
    let mut writer = Writer::new(context, task, (origin, instance.started), position);
    writer.gap = missed.filter(|_| position.is_none());
    // The gap is written before the checkpoint names the instance; afterwards nothing would show that instances were missed.
    if Box::pin(writer.flush(|| {})).await == WriteOutcome::Fenced {
        return Some(ContainerEnd::Fenced);
    }
    writer.mark_begun();
    let status = InstanceStatus::new(task, name.clone(), (instance, source));
    InstanceReader::new(Reader::new(context, task, status, writer))
        .run()
        .await
}

/// The gap before an instance when other instances ran between it and the one that was read before. They started and
/// ended unseen, so they have no stream of their own in which to report it.
fn missed(mark: Option<&Mark>, instance: &Instance) -> Option<Gap> {
    let before = mark.filter(|mark| has_missed(instance, mark))?;
    Some(Gap {
        from: before.position.map(|p| p.time),
        to: instance.started,
        reason: GapReason::Restarted,
    })
}

/// Tells the sink under which fence the stream is written from now on. Returns the stored position, from the sink or the
/// checkpoint.
async fn open(context: &Context, task: &Task, origin: &Arc<Origin>) -> Result<Option<Position>, ContainerEnd> {
    let mark = task.progress.borrow().containers.get(&origin.stream.container).cloned();
    let stored = mark
        .filter(|m| m.container_id == origin.stream.container_id)
        .and_then(|m| m.position);
    let opened = tokio::select! {
        biased;
        () = task.stop.cancelled() => return Err(ContainerEnd::Stopped),
        opened = context.sink.open(origin, task.grant.fence) => opened,
    };
    match opened {
        Ok(known) => Ok(known.or(stored)),
        Err(SinkError::Rejected(why)) => {
            tracing::error!(container = %origin.stream.container, %why, "the sink refuses the stream; the position is taken from the checkpoint");
            Ok(stored)
        }
        Err(SinkError::Fenced | SinkError::Again { .. }) => Err(ContainerEnd::Fenced),
    }
}

/// Reports that the rest of a stream cannot be read, and marks the stream as finished.
async fn give_up(
    context: &Context,
    task: &Task,
    pod: &Pod,
    name: &Arc<str>,
    mark: Mark,
    reason: GapReason,
) -> Option<ContainerEnd> {
    let origin = origin(pod, name, &mark.container_id, mark.restart);
    let position = match open(context, task, &origin).await {
        Ok(position) => position,
        Err(end) => return Some(end),
    };
    let mut writer = Writer::new(context, task, (origin, mark.started), position);
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

fn origin(pod: &Pod, name: &Arc<str>, id: &ContainerId, restart: u32) -> Arc<Origin> {
    Arc::new(Origin {
        stream: StreamId {
            uid: pod.uid.clone(),
            container: name.clone(),
            container_id: id.clone(),
        },
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        node: pod.node.clone(),
        restart,
        labels: pod.labels.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// 1.7 KB beside 0.6 KB of `Reader`; with what is awaited for moments in it, it was 4.8 KB.
    #[test]
    fn what_waits_for_hours_is_small() {
        assert!(
            size(follow_container) <= 2048,
            "{} bytes for a container",
            size(follow_container)
        );
    }
}
