//! Whole collectors in virtual time: the ends of pods, of their rows, and of the tasks that follow them.

use std::time::Duration;

use podlog::sim::{Effect, PodSpec, RestartPolicy, Target, Verb};

use crate::world::World;
use podlog::simulate::store::Faults;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn finished_jobs_are_collected_once_and_their_rows_are_deleted_with_the_pods() {
    let mut world = World::shared(false, 3, 0);
    let jobs: Vec<_> = (0..12)
        .map(|i| {
            let spec = PodSpec::new("jobs", format!("j{i}")).node("n1").app("app");
            world.create(spec.restart_policy(RestartPolicy::Never))
        })
        .collect();
    for job in &jobs {
        world.write(job);
    }
    world.pass(3);
    for job in &jobs {
        world.write(job);
    }
    for job in &jobs {
        world.act(|_| job.exit("app", 0).unwrap());
    }
    let finished = |world: &World| world.rows().rows.values().filter(|row| row.finished).count();
    world.until(20, "all are finished", |world| finished(world) == 12);
    world.kill(0);
    world.pass(60);
    world.assert_exact();
    assert_eq!(finished(&world), 12);
    for job in &jobs {
        world.act(|_| job.remove().unwrap());
    }
    world.until(300, "their rows are forgotten", |world| world.pod_rows() == 0);
    world.assert_exact();
}

#[test]
fn a_replica_that_sees_a_deletion_late_does_not_collect_the_pod_again() {
    for finished in [false, true] {
        let mut world = World::shared(false, 1, 0);
        let spec = |i| PodSpec::new("shop", format!("j{i}")).node("n1").app("app");
        let pods: Vec<_> = (0..12)
            .map(|i| world.create(spec(i).restart_policy(RestartPolicy::Never)))
            .collect();
        world.busy(5);
        if finished {
            for pod in &pods {
                world.act(|_| pod.exit("app", 0).unwrap());
            }
            world.until(60, "all are finished", |world| world.holders().is_empty());
        }
        // It knows all pods and would be the next to claim half of them, when time stands still for it,
        // for less than a claim lasts.
        let late = world.add();
        world.pass(2);
        world.freeze(late);
        for pod in &pods {
            world.act(|_| pod.remove().unwrap());
        }
        world.pass(10);
        world.thaw(late);
        world.pass(60);
        let found = world.reckon();
        assert_eq!((found.lost, found.twice, found.gaps), (0, 0, 0), "{found:?}");
        assert_eq!(world.replicas[late].metrics.claims_taken.get(), 0);
        world.until(300, "the rows are forgotten", |world| world.pod_rows() == 0);
    }
}

#[test]
fn a_pod_deleted_while_its_replica_is_dead_leaves_a_gap_and_no_row() {
    for fencing in [true, false] {
        let mut world = World::shared(fencing, 2, 6);
        world.busy(6);
        world.pass(6);
        let dead = world.kill(0);
        let orphans: Vec<_> = world
            .sim
            .pods()
            .into_iter()
            .filter(|pod| world.holders().get(pod.uid()) == Some(&dead))
            .collect();
        world.busy(2);
        for pod in &orphans {
            world.act(|_| pod.remove().unwrap());
        }
        world.until(300, "the rows are gone", |world| {
            orphans
                .iter()
                .all(|pod| !world.rows().rows.contains_key(&World::key(pod)))
        });
        let found = world.reckon();
        assert_eq!(
            (found.lost, found.twice, found.gaps),
            (0, 0, orphans.len()),
            "{found:?}"
        );
    }
}

#[test]
fn the_gap_of_a_deleted_pod_is_reported_once_even_if_its_release_is_lost() {
    let mut world = World::shared(false, 1, 3);
    world.busy(6);
    world.pass(6);
    world.kill(0);
    world.busy(2);
    world
        .sim
        .pods()
        .iter()
        .for_each(|pod| world.act(|_| pod.remove().unwrap()));
    world.pass(30);
    let heir = world.add();
    // Slowly, so that there is time to see to it that the release never arrives: the row stays.
    world.replicas[heir].store.set(Faults {
        delay: SECOND,
        ..Faults::default()
    });
    world.until(120, "the pods are claimed once more", |world| {
        world.holders().len() == 3
    });
    world.replicas[heir].store.set(Faults {
        refused: true,
        ..Faults::default()
    });
    world.pass(10);
    world.replicas[heir].store.set(Faults::default());
    world.pass(400);
    let found = world.reckon();
    assert_eq!((found.lost, found.twice, found.gaps), (0, 0, 3), "{found:?}");
    assert_eq!(world.pod_rows(), 0, "{:#?}", world.rows());
}

#[test]
fn a_pod_that_stops_matching_is_released_without_a_gap_and_can_be_claimed_again() {
    let mut world = World::new(false);
    world.labels = Some("app=shop".into());
    world.add();
    world.add();
    let pod = world.pod();
    world.busy(10);
    world.act(|_| pod.set_label("app", "other").unwrap());
    world.until(30, "it is released", |world| world.holders().is_empty());
    let stored = world.reckon().stored;
    world.busy(10);
    assert_eq!(world.reckon().stored, stored);
    world.act(|_| pod.set_label("app", "shop").unwrap());
    world.until(30, "it is held again", |world| world.holders().len() == 1);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn a_panic_in_one_task_does_not_stop_the_others() {
    let mut world = World::shared(true, 1, 10);
    world.busy(3);
    world.ledger.panic(1);
    world.busy(3);
    world.pass(2);
    assert_eq!(world.holders().len(), 9);
    world.busy(70);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn a_pod_that_the_sink_rejects_is_not_claimed_repeatedly() {
    let mut world = World::shared(true, 1, 3);
    world.busy(3);
    let taken = |world: &World| world.replicas[0].metrics.claims_taken.get();
    world.ledger.outbid(world.sim.pods()[0].uid());
    let before = taken(&world);
    world.busy(30);
    // Every five seconds or so.
    assert!(
        (4..=7).contains(&(taken(&world) - before)),
        "{}",
        taken(&world) - before
    );
    assert!(world.holders().len() >= 2);
}

#[test]
fn a_dead_api_server_does_not_prevent_the_release_of_claims() {
    let mut world = World::shared(false, 2, 40);
    world.busy(5);
    let pods = world.sim.pods();
    pods.iter()
        .take(20)
        .for_each(|pod| world.act(|_| pod.remove().unwrap()));
    let hang = Effect::Delay(Duration::from_mins(1));
    world.act(|sim| sim.inject(Target::verb(Verb::Get), hang, u32::MAX));
    world.pass(30);
    assert!(world.replicas.iter().all(|replica| replica.health.late().is_empty()));
    let name = world.replicas[0].name.clone();
    world.ask_to_stop(0);
    let took = world.until(60, "the pods that are there are held by the other", |world| {
        let holders = world.holders();
        pods.iter()
            .skip(20)
            .all(|pod| holders.get(pod.uid()).is_some_and(|holder| *holder != name))
    });
    assert!(took <= 3 * SECOND, "{took:?}");
}

#[test]
fn a_pod_created_and_deleted_while_the_store_is_unavailable_leaves_a_gap() {
    for (fencing, away) in [(true, 5), (false, 400)] {
        let mut world = World::shared(fencing, 2, 4);
        let refused = || Faults {
            refused: true,
            ..Faults::default()
        };
        world.replicas.iter().for_each(|replica| replica.store.set(refused()));
        world.pass(1);
        let pod = world.pod();
        world.write(&pod);
        world.pass(2);
        world.act(|_| pod.remove().unwrap());
        world.pass(away);
        let quiet = world.replicas.iter();
        quiet.for_each(|replica| replica.store.set(Faults::default()));
        world.until(60, "its gap is reported", |world| world.reckon().gaps == 1);
        world.pass(400);
        let found = world.reckon();
        assert_eq!((found.lost, found.twice, found.gaps), (0, 0, 1), "{found:?}");
        assert_eq!(world.pod_rows(), 4, "{:#?}", world.rows());
    }
}

#[test]
fn instances_started_while_the_replica_was_dead_are_in_the_gap_of_the_deletion() {
    let mut world = World::shared(false, 2, 6);
    world.busy(6);
    world.pass(6);
    let dead = world.kill(0);
    let pods = world.sim.pods().into_iter();
    let orphans: Vec<_> = pods
        .filter(|pod| world.holders().get(pod.uid()) == Some(&dead))
        .collect();
    assert!(!orphans.is_empty());
    for pod in &orphans {
        world.act(|_| pod.exit("app", 1).unwrap());
        world.act(|_| pod.start("app").unwrap());
        world.write(pod);
    }
    world.pass(2);
    for pod in &orphans {
        world.act(|_| pod.remove().unwrap());
    }
    world.until(300, "the rows are gone", |world| {
        let rows = world.rows();
        orphans.iter().all(|pod| !rows.rows.contains_key(&World::key(pod)))
    });
    let found = world.reckon();
    assert_eq!((found.lost, found.twice), (0, 0), "{found:?}");
    // One for the instance that was being read, and one for the one that followed it.
    assert_eq!(found.gaps, 2 * orphans.len(), "{found:?}");
}

#[test]
fn a_stopping_replica_repeats_store_updates_that_failed() {
    let mut world = World::shared(false, 2, 10);
    world.busy(5);
    world.replicas[0].store.set(Faults {
        refused: true,
        ..Faults::default()
    });
    world.ask_to_stop(0);
    world.busy(3);
    assert!(!world.ended(0));
    world.replicas[0].store.set(Faults::default());
    let took = world.stop(0);
    assert!(took < 2 * SECOND, "{took:?}");
    world.until(3, "the other has its pods", |world| world.holders().len() == 10);
    world.busy(3);
    world.pass(5);
    world.assert_exact();
}
