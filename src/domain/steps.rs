//! What to read next of a container: the rules for instances, restarts and ends.
//!
//! Pure: it gets a pod as the API describes it and how far the container is stored, and returns one step. The instance
//! before the present one is always read to its end first. An instance that can no longer be read is never skipped
//! without a gap.

use super::chunk::GapReason;
use super::pods::{Container, ContainerState, Instance, Pod};
use super::position::ContainerProgress;
use crate::defect::{self, Defect};

/// One of the two logs that the kubelet keeps of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// The log of the present instance.
    Current,
    /// The log of the instance before it.
    Previous,
}

/// What to do next with a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerStep {
    /// Read this instance from this log.
    Read(Instance, LogSource),
    /// Report a gap: what is not stored of this instance can no longer be read.
    GiveUp(ContainerProgress, GapReason),
    /// Wait until the pod changes.
    Wait,
    /// Stop: there will never be anything more to read.
    Done,
}

/// Decides the next step for the container called `name`. `stored`: how far the container is stored.
#[must_use]
pub fn next_step(pod: &Pod, name: &str, stored: Option<&ContainerProgress>) -> ContainerStep {
    let container = pod.container(name);
    if let Some(unread) = container.and_then(|c| first_unread(c, stored)) {
        let (instance, source) = unread;
        let skipped = stored.filter(|stored| !stored.finished && stored.container_id != instance.id);
        return match skipped {
            Some(stored) => ContainerStep::GiveUp(stored.clone(), GapReason::Restarted),
            None if pod.deleted => ContainerStep::GiveUp(progress_of(&instance, stored), GapReason::Deleted),
            None => ContainerStep::Read(instance, source),
        };
    }
    match stored.filter(|stored| !stored.finished) {
        Some(stored) if pod.deleted => ContainerStep::GiveUp(stored.clone(), GapReason::Deleted),
        // For the moment the status does not show the instance, as after a restart of the kubelet.
        Some(_) if !pod.has_ended() => ContainerStep::Wait,
        Some(stored) => ContainerStep::GiveUp(stored.clone(), GapReason::Unavailable),
        None if pod.has_ended() => ContainerStep::Done,
        None => ContainerStep::Wait,
    }
}

/// Whether this instance has ended, or a later one has taken its place.
#[must_use]
pub fn has_ended(container: &Container, instance: &Instance) -> bool {
    match &container.state {
        ContainerState::Running(now) => now.id != instance.id,
        ContainerState::RunningWithoutId => false,
        ContainerState::Terminated(_) | ContainerState::Waiting => true,
    }
}

/// The log in which this instance is found now; `None` when the pod's status no longer names it.
#[must_use]
pub fn source_of(container: &Container, instance: &Instance) -> Option<LogSource> {
    if container.state.instance().is_some_and(|now| now.id == instance.id) {
        return Some(LogSource::Current);
    }
    container
        .previous
        .as_ref()
        .is_some_and(|previous| previous.id == instance.id)
        .then_some(LogSource::Previous)
}

/// The earliest instance that the status names and that is not stored to its end.
fn first_unread(container: &Container, stored: Option<&ContainerProgress>) -> Option<(Instance, LogSource)> {
    let now = container.state.instance();
    let is_stored = |instance: &Instance| stored.is_some_and(|stored| stored.container_id == instance.id);
    let all = container.previous.iter().map(|i| (i, LogSource::Previous));
    let all = all.chain(now.into_iter().map(|i| (i, LogSource::Current)));
    // The previous instance is older than the present one, whatever its restart count and start time say.
    let passed = now.is_some_and(is_stored) || now.is_some() && defect::on(Defect::PreviousNotRead);
    let unread = |instance: &Instance| match stored {
        None => true,
        Some(stored) if stored.container_id == instance.id => !stored.finished,
        Some(stored) => is_later(instance, stored),
    };
    all.filter(|(_, source)| !passed || *source == LogSource::Current)
        .find(|(instance, _)| unread(instance))
        .map(|(i, source)| (i.clone(), source))
}

/// Whether an instance came after the stored one, which is another. The restart count falls when a node has lost what
/// it knew of its containers, and start times fall when a node's clock is set back. So either of the two is enough.
fn is_later(instance: &Instance, stored: &ContainerProgress) -> bool {
    let started = instance.started.zip(stored.started);
    instance.restart_count >= stored.restart_count || started.is_some_and(|(this, before)| this > before)
}

/// Whether the present instance of the container is older than the stored one, so that it is not read. Either the
/// status is out of date, or the checkpoint is wrong.
#[must_use]
pub fn is_older_than_stored(pod: &Pod, name: &str, stored: &ContainerProgress) -> bool {
    let now = pod.container(name).and_then(|container| container.state.instance());
    now.is_some_and(|now| now.id != stored.container_id && !is_later(now, stored))
}

/// Whether other instances started and ended between the stored one and this one, which is read next.
#[must_use]
pub fn were_instances_missed(instance: &Instance, stored: &ContainerProgress) -> bool {
    let fallen = instance.restart_count < stored.restart_count;
    stored.container_id != instance.id
        && (stored.restart_count.saturating_add(1) < instance.restart_count || fallen && instance.restart_count > 0)
}

/// How far this instance is stored: not at all, unless `stored` is about this instance.
fn progress_of(instance: &Instance, stored: Option<&ContainerProgress>) -> ContainerProgress {
    match stored {
        Some(stored) if stored.container_id == instance.id => stored.clone(),
        _ => ContainerProgress {
            container_id: instance.id.clone(),
            restart_count: instance.restart_count,
            started: instance.started,
            position: None,
            finished: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::pods::Phase;
    use super::super::time::Time;
    use super::*;

    fn instance(restart_count: u32) -> Instance {
        Instance {
            id: format!("id{restart_count}").into(),
            restart_count,
            started: None,
        }
    }

    fn pod(phase: Phase, state: ContainerState, previous: Option<u32>) -> Pod {
        let app = Container {
            name: "app".into(),
            state,
            previous: previous.map(instance),
        };
        Pod {
            uid: "u".into(),
            namespace: "ns".into(),
            name: "p".into(),
            node: None,
            labels: [].into(),
            phase,
            deleted: false,
            containers: vec![app],
        }
    }

    fn progress(restart_count: u32, finished: bool) -> ContainerProgress {
        ContainerProgress {
            container_id: instance(restart_count).id,
            restart_count,
            started: None,
            position: None,
            finished,
        }
    }

    fn running(restart_count: u32, previous: Option<u32>) -> Pod {
        pod(
            Phase::Running,
            ContainerState::Running(instance(restart_count)),
            previous,
        )
    }

    fn step(pod: &Pod, stored: impl Into<Option<ContainerProgress>>) -> ContainerStep {
        next_step(pod, "app", stored.into().as_ref())
    }

    #[test]
    fn the_previous_instance_is_read_to_its_end_before_the_present_one() {
        let pod = running(1, Some(0));
        assert_eq!(step(&pod, None), ContainerStep::Read(instance(0), LogSource::Previous));
        assert_eq!(
            step(&pod, Some(progress(0, false))),
            ContainerStep::Read(instance(0), LogSource::Previous)
        );
        assert_eq!(
            step(&pod, Some(progress(0, true))),
            ContainerStep::Read(instance(1), LogSource::Current)
        );
        assert_eq!(step(&pod, Some(progress(1, true))), ContainerStep::Wait);
    }

    #[test]
    fn an_unread_instance_that_was_replaced_twice_is_a_gap() {
        let given_up = |pod: &Pod, restart_count| step(pod, Some(progress(restart_count, false)));
        assert_eq!(
            given_up(&running(5, Some(4)), 2),
            ContainerStep::GiveUp(progress(2, false), GapReason::Restarted)
        );
        assert_eq!(
            given_up(&running(5, Some(4)), 4),
            ContainerStep::Read(instance(4), LogSource::Previous)
        );
    }

    #[test]
    fn an_instance_with_a_smaller_restart_count_is_older() {
        let is_older =
            |count, stored_count| is_older_than_stored(&running(count, None), "app", &progress(stored_count, false));
        assert_eq!(
            [(0, 7), (7, 7), (8, 7)].map(|(now, stored_restart)| is_older(now, stored_restart)),
            [true, false, false]
        );
    }

    #[test]
    fn an_instance_whose_restart_count_has_fallen_is_read_if_it_started_later() {
        let at = |restart_count: u32, second| Instance {
            started: Some(Time(second)),
            ..instance(restart_count)
        };
        let read = |now: Instance, previous: Option<Instance>, stored: &ContainerProgress| {
            let mut pod = running(0, None);
            pod.containers[0].state = ContainerState::Running(now);
            pod.containers[0].previous = previous;
            next_step(&pod, "app", Some(stored))
        };
        let stored = ContainerProgress {
            started: Some(Time(50)),
            ..progress(5, true)
        };
        let unknown = progress(5, true);
        assert_eq!(
            read(at(0, 60), None, &stored),
            ContainerStep::Read(at(0, 60), LogSource::Current)
        );
        assert_eq!(
            read(at(1, 70), Some(at(0, 60)), &stored),
            ContainerStep::Read(at(0, 60), LogSource::Previous)
        );
        for (now, previous, stored) in [
            (at(4, 40), None, &stored),
            (at(4, 40), Some(at(3, 30)), &stored),
            (at(0, 60), None, &unknown),
            // A clock that was set back between the previous and the present instance.
            (at(5, 50), Some(at(4, 90)), &stored),
        ] {
            assert_eq!(read(now.clone(), previous, stored), ContainerStep::Wait, "{now:?}");
        }
        let unfinished = ContainerProgress {
            finished: false,
            ..stored
        };
        let given_up = ContainerStep::GiveUp(unfinished.clone(), GapReason::Restarted);
        assert_eq!(read(at(0, 60), None, &unfinished), given_up);
    }

    #[test]
    fn instances_between_the_stored_one_and_the_next_are_missed() {
        let missed = |restart_count| were_instances_missed(&instance(restart_count), &progress(3, true));
        assert_eq!([0, 1, 3, 4, 5].map(missed), [false, true, false, false, true]);
    }

    #[test]
    fn a_container_between_two_instances_still_has_its_previous_log() {
        let pod = pod(Phase::Running, ContainerState::Waiting, Some(3));
        assert_eq!(
            step(&pod, Some(progress(3, false))),
            ContainerStep::Read(instance(3), LogSource::Previous)
        );
        assert_eq!(step(&pod, Some(progress(3, true))), ContainerStep::Wait);
    }

    #[test]
    fn a_finished_pod_is_done_once_its_last_instance_is_stored() {
        let pod = pod(Phase::Ended, ContainerState::Terminated(instance(0)), None);
        assert_eq!(step(&pod, None), ContainerStep::Read(instance(0), LogSource::Current));
        assert_eq!(step(&pod, Some(progress(0, true))), ContainerStep::Done);
    }

    #[test]
    fn every_unread_stream_of_a_deleted_pod_is_a_gap() {
        let deleted = |stored| {
            step(
                &Pod {
                    deleted: true,
                    ..running(1, Some(0))
                },
                stored,
            )
        };
        assert_eq!(deleted(Some(progress(1, true))), ContainerStep::Done);
        assert_eq!(
            deleted(Some(progress(1, false))),
            ContainerStep::GiveUp(progress(1, false), GapReason::Deleted)
        );
        assert_eq!(
            deleted(Some(progress(0, true))),
            ContainerStep::GiveUp(progress(1, false), GapReason::Deleted)
        );
        assert_eq!(
            deleted(None),
            ContainerStep::GiveUp(progress(0, false), GapReason::Deleted)
        );
        let unknown = Pod {
            deleted: true,
            containers: vec![],
            ..running(0, None)
        };
        assert_eq!(
            step(&unknown, Some(progress(0, false))),
            ContainerStep::GiveUp(progress(0, false), GapReason::Deleted)
        );
    }

    #[test]
    fn a_container_that_never_ran_in_a_finished_pod_is_done() {
        assert_eq!(
            step(&pod(Phase::Ended, ContainerState::Waiting, None), None),
            ContainerStep::Done
        );
        assert_eq!(
            step(&pod(Phase::Pending, ContainerState::Waiting, None), None),
            ContainerStep::Wait
        );
    }

    #[test]
    fn a_container_that_runs_without_an_id_is_waited_for_and_its_stored_instance_has_not_ended() {
        let pod = pod(Phase::Running, ContainerState::RunningWithoutId, None);
        assert_eq!(step(&pod, None), ContainerStep::Wait);
        assert_eq!(step(&pod, Some(progress(0, false))), ContainerStep::Wait);
        assert!(!has_ended(&pod.containers[0], &instance(0)));
    }

    #[test]
    fn a_status_that_does_not_show_the_stored_instance_is_waited_for() {
        assert_eq!(
            step(
                &pod(Phase::Running, ContainerState::Waiting, None),
                Some(progress(0, false))
            ),
            ContainerStep::Wait
        );
    }
}
