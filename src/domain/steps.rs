//! What to read next of a container: the rules on instances, restarts and ends.
//!
//! Pure: a pod as the API describes it and the mark that is stored go in, one step comes out.
//! The instance before the present one is always read to its end first, and an instance that can
//! no longer be read is never passed over in silence.

use super::chunk::GapReason;
use super::pods::{Container, Instance, Pod, State};
use super::position::Mark;
use crate::defect::{self, Defect};

/// Which of the two logs the kubelet keeps of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The present instance.
    Current,
    /// The one before it.
    Previous,
}

/// What to do next about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read this instance.
    Read(Instance, Source),
    /// The rest of the marked stream, or all of this instance where it differs, cannot be read: report it.
    GiveUp(Mark, GapReason),
    /// Nothing to read until the pod changes.
    Wait,
    /// Nothing to read, ever.
    Done,
}

/// Decides the next step for the container called `name`, given how far it is stored.
#[must_use]
pub fn next_step(pod: &Pod, name: &str, mark: Option<&Mark>) -> Step {
    let container = pod.container(name);
    if let Some(unread) = container.and_then(|c| first_unread(c, mark)) {
        let (instance, source) = unread;
        let skipped = mark.filter(|m| !m.finished && m.container_id != instance.id);
        return match skipped {
            Some(mark) => Step::GiveUp(mark.clone(), GapReason::Restarted),
            None if pod.gone => Step::GiveUp(begun(&instance, mark), GapReason::Deleted),
            None => Step::Read(instance, source),
        };
    }
    match mark.filter(|m| !m.finished) {
        Some(mark) if pod.gone => Step::GiveUp(mark.clone(), GapReason::Deleted),
        // The status does not show the instance for the moment, as after a restart of the kubelet.
        Some(_) if !pod.is_over() => Step::Wait,
        Some(mark) => Step::GiveUp(mark.clone(), GapReason::Unavailable),
        None if pod.is_over() => Step::Done,
        None => Step::Wait,
    }
}

/// Whether this instance is over: it has ended, or a later one has taken its place.
#[must_use]
pub fn has_ended(container: &Container, instance: &Instance) -> bool {
    match &container.state {
        State::Running(now) => now.id != instance.id,
        State::Terminated(_) | State::Waiting => true,
    }
}

/// Where the log of this instance is found now; `None` when the kubelet no longer names it.
#[must_use]
pub fn source_of(container: &Container, instance: &Instance) -> Option<Source> {
    if container.state.instance().is_some_and(|now| now.id == instance.id) {
        return Some(Source::Current);
    }
    container
        .last
        .as_ref()
        .is_some_and(|last| last.id == instance.id)
        .then_some(Source::Previous)
}

/// The earliest instance that is known to the kubelet and not stored to its end.
fn first_unread(container: &Container, mark: Option<&Mark>) -> Option<(Instance, Source)> {
    let now = container.state.instance();
    let marked = |instance: &Instance| mark.is_some_and(|mark| mark.container_id == instance.id);
    let all = container.last.iter().map(|i| (i, Source::Previous));
    let all = all.chain(now.into_iter().map(|i| (i, Source::Current)));
    // The last one is older than the present one, whatever its number and its clock say.
    let passed = now.is_some_and(marked) || now.is_some() && defect::on(Defect::PreviousNotRead);
    let unread = |instance: &Instance| match mark {
        None => true,
        Some(mark) if mark.container_id == instance.id => !mark.finished,
        Some(mark) => is_later(instance, mark),
    };
    all.filter(|(_, source)| !passed || *source == Source::Current)
        .find(|(instance, _)| unread(instance))
        .map(|(i, source)| (i.clone(), source))
}

/// Whether an instance came after the marked one, which is another. The count falls when a node has lost what
/// it knew of its containers, so that the time counts too; of which a node's clock may be set back.
fn is_later(instance: &Instance, mark: &Mark) -> bool {
    let started = instance.started.zip(mark.started);
    instance.restart >= mark.restart || started.is_some_and(|(this, marked)| this > marked)
}

/// Whether the container has an instance that is neither the marked one nor later, so that it is not read. Either its
/// status is late, or the mark cannot be true of it.
#[must_use]
pub fn is_out_of_place(pod: &Pod, name: &str, mark: &Mark) -> bool {
    let now = pod.container(name).and_then(|container| container.state.instance());
    now.is_some_and(|now| now.id != mark.container_id && !is_later(now, mark))
}

/// Whether others came and went between the marked instance and this one, which is read next.
#[must_use]
pub fn has_missed(instance: &Instance, mark: &Mark) -> bool {
    let fallen = instance.restart < mark.restart;
    mark.container_id != instance.id
        && (mark.restart.saturating_add(1) < instance.restart || fallen && instance.restart > 0)
}

/// The mark of an instance of which nothing is stored, unless the mark is already about it.
fn begun(instance: &Instance, mark: Option<&Mark>) -> Mark {
    match mark {
        Some(mark) if mark.container_id == instance.id => mark.clone(),
        _ => Mark {
            container_id: instance.id.clone(),
            restart: instance.restart,
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

    fn instance(restart: u32) -> Instance {
        Instance {
            id: format!("id{restart}").into(),
            restart,
            started: None,
        }
    }

    fn pod(phase: Phase, state: State, last: Option<u32>) -> Pod {
        let app = Container {
            name: "app".into(),
            state,
            last: last.map(instance),
        };
        Pod {
            uid: "u".into(),
            namespace: "ns".into(),
            name: "p".into(),
            node: None,
            labels: [].into(),
            phase,
            gone: false,
            containers: vec![app],
        }
    }

    fn mark(restart: u32, finished: bool) -> Mark {
        Mark {
            container_id: instance(restart).id,
            restart,
            started: None,
            position: None,
            finished,
        }
    }

    fn running(restart: u32, last: Option<u32>) -> Pod {
        pod(Phase::Running, State::Running(instance(restart)), last)
    }

    fn step(pod: &Pod, mark: impl Into<Option<Mark>>) -> Step {
        next_step(pod, "app", mark.into().as_ref())
    }

    #[test]
    fn the_previous_instance_is_read_to_its_end_before_the_present_one() {
        let pod = running(1, Some(0));
        assert_eq!(step(&pod, None), Step::Read(instance(0), Source::Previous));
        assert_eq!(
            step(&pod, Some(mark(0, false))),
            Step::Read(instance(0), Source::Previous)
        );
        assert_eq!(
            step(&pod, Some(mark(0, true))),
            Step::Read(instance(1), Source::Current)
        );
        assert_eq!(step(&pod, Some(mark(1, true))), Step::Wait);
    }

    #[test]
    fn an_instance_that_restarted_away_unread_is_reported() {
        let given_up = |pod: &Pod, restart| step(pod, Some(mark(restart, false)));
        assert_eq!(
            given_up(&running(5, Some(4)), 2),
            Step::GiveUp(mark(2, false), GapReason::Restarted)
        );
        assert_eq!(
            given_up(&running(5, Some(4)), 4),
            Step::Read(instance(4), Source::Previous)
        );
    }

    #[test]
    fn an_instance_that_seems_older_than_the_stored_one_is_out_of_place() {
        let out_of_place = |restart, marked| is_out_of_place(&running(restart, None), "app", &mark(marked, false));
        assert_eq!(
            [(0, 7), (7, 7), (8, 7)].map(|(now, marked)| out_of_place(now, marked)),
            [true, false, false]
        );
    }

    #[test]
    fn an_instance_whose_number_has_fallen_is_read_if_it_started_later() {
        let at = |restart: u32, second| Instance {
            started: Some(Time(second)),
            ..instance(restart)
        };
        let read = |now: Instance, last: Option<Instance>, mark: &Mark| {
            let mut pod = running(0, None);
            pod.containers[0].state = State::Running(now);
            pod.containers[0].last = last;
            next_step(&pod, "app", Some(mark))
        };
        let stored = Mark {
            started: Some(Time(50)),
            ..mark(5, true)
        };
        let unknown = mark(5, true);
        assert_eq!(read(at(0, 60), None, &stored), Step::Read(at(0, 60), Source::Current));
        assert_eq!(
            read(at(1, 70), Some(at(0, 60)), &stored),
            Step::Read(at(0, 60), Source::Previous)
        );
        for (now, last, mark) in [
            (at(4, 40), None, &stored),
            (at(4, 40), Some(at(3, 30)), &stored),
            (at(0, 60), None, &unknown),
            // A clock that was set back between the last and the present one.
            (at(5, 50), Some(at(4, 90)), &stored),
        ] {
            assert_eq!(read(now.clone(), last, mark), Step::Wait, "{now:?}");
        }
        let unfinished = Mark {
            finished: false,
            ..stored
        };
        let given_up = Step::GiveUp(unfinished.clone(), GapReason::Restarted);
        assert_eq!(read(at(0, 60), None, &unfinished), given_up);
    }

    #[test]
    fn instances_between_the_marked_one_and_the_next_are_missed() {
        let missed = |restart| has_missed(&instance(restart), &mark(3, true));
        assert_eq!([0, 1, 3, 4, 5].map(missed), [false, true, false, false, true]);
    }

    #[test]
    fn a_container_between_two_instances_still_has_its_last_log() {
        let pod = pod(Phase::Running, State::Waiting, Some(3));
        assert_eq!(
            step(&pod, Some(mark(3, false))),
            Step::Read(instance(3), Source::Previous)
        );
        assert_eq!(step(&pod, Some(mark(3, true))), Step::Wait);
    }

    #[test]
    fn a_finished_pod_is_done_once_its_last_instance_is_stored() {
        let pod = pod(Phase::Ended, State::Terminated(instance(0)), None);
        assert_eq!(step(&pod, None), Step::Read(instance(0), Source::Current));
        assert_eq!(step(&pod, Some(mark(0, true))), Step::Done);
    }

    #[test]
    fn a_deleted_pod_leaves_no_unread_stream_unreported() {
        let gone = |mark| {
            step(
                &Pod {
                    gone: true,
                    ..running(1, Some(0))
                },
                mark,
            )
        };
        assert_eq!(gone(Some(mark(1, true))), Step::Done);
        assert_eq!(
            gone(Some(mark(1, false))),
            Step::GiveUp(mark(1, false), GapReason::Deleted)
        );
        assert_eq!(
            gone(Some(mark(0, true))),
            Step::GiveUp(mark(1, false), GapReason::Deleted)
        );
        assert_eq!(gone(None), Step::GiveUp(mark(0, false), GapReason::Deleted));
        let unknown = Pod {
            gone: true,
            containers: vec![],
            ..running(0, None)
        };
        assert_eq!(
            step(&unknown, Some(mark(0, false))),
            Step::GiveUp(mark(0, false), GapReason::Deleted)
        );
    }

    #[test]
    fn a_container_that_never_ran_in_a_finished_pod_is_done() {
        assert_eq!(step(&pod(Phase::Ended, State::Waiting, None), None), Step::Done);
        assert_eq!(step(&pod(Phase::Pending, State::Waiting, None), None), Step::Wait);
    }

    #[test]
    fn a_status_that_is_missing_for_the_moment_is_waited_for() {
        assert_eq!(
            step(&pod(Phase::Running, State::Waiting, None), Some(mark(0, false))),
            Step::Wait
        );
    }
}
