//! Whole collectors in virtual time: the end of pods, of their rows, and of the tasks that follow them.

use std::time::Duration;

use kube_sim::{Fault, PodSpec, RestartPolicy, Target, Verb};

use crate::harness::Harness;
use podlog::lab::simulate::store::StoreFaults;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn finished_jobs_are_collected_once_and_their_rows_are_deleted_with_the_pods() {
    let mut harness = Harness::balanced(false, 3, 0);
    let jobs: Vec<_> = (0..12)
        .map(|i| {
            let spec = PodSpec::new("jobs", format!("j{i}")).node("n1").app("app");
            harness.create(spec.restart_policy(RestartPolicy::Never))
        })
        .collect();
    for job in &jobs {
        harness.write(job);
    }
    harness.pass(3);
    for job in &jobs {
        harness.write(job);
    }
    for job in &jobs {
        harness.change_cluster(|_| job.exit("app", 0).unwrap());
    }
    let finished = |harness: &Harness| harness.lock_table().rows.values().filter(|row| row.finished).count();
    harness.wait_until(20, "all are finished", |harness| finished(harness) == 12);
    harness.kill(0);
    harness.pass(60);
    harness.assert_all_stored_once();
    assert_eq!(finished(&harness), 12);
    for job in &jobs {
        harness.change_cluster(|_| job.remove().unwrap());
    }
    harness.wait_until(300, "their rows are deleted", |harness| harness.pod_rows() == 0);
    harness.assert_all_stored_once();
}

#[test]
fn a_replica_that_sees_a_deletion_late_does_not_collect_the_pod_again() {
    for finished in [false, true] {
        let mut harness = Harness::balanced(false, 1, 0);
        let spec = |i| PodSpec::new("shop", format!("j{i}")).node("n1").app("app");
        let pods: Vec<_> = (0..12)
            .map(|i| harness.create(spec(i).restart_policy(RestartPolicy::Never)))
            .collect();
        harness.write_each_second(5);
        if finished {
            for pod in &pods {
                harness.change_cluster(|_| pod.exit("app", 0).unwrap());
            }
            harness.wait_until(60, "all are finished", |harness| harness.holders().is_empty());
        }
        // It knows all pods and would be the next to claim half of them, when time stands still for it,
        // for less than a claim lasts.
        let late = harness.add_replica();
        harness.pass(2);
        harness.freeze(late);
        for pod in &pods {
            harness.change_cluster(|_| pod.remove().unwrap());
        }
        harness.pass(10);
        harness.thaw(late);
        harness.pass(60);
        let found = harness.audit();
        assert_eq!((found.lost, found.duplicated, found.gaps), (0, 0, 0), "{found:?}");
        assert_eq!(harness.replicas[late].metrics.claims_acquired.get(), 0);
        harness.wait_until(300, "the rows are deleted", |harness| harness.pod_rows() == 0);
    }
}

#[test]
fn a_pod_deleted_while_its_replica_is_dead_leaves_a_gap_and_no_row() {
    for fencing in [true, false] {
        let mut harness = Harness::balanced(fencing, 2, 6);
        harness.write_each_second(6);
        harness.pass(6);
        let dead = harness.kill(0);
        let orphans: Vec<_> = harness
            .sim
            .pods()
            .into_iter()
            .filter(|pod| harness.holders().get(pod.uid()) == Some(&dead))
            .collect();
        harness.write_each_second(2);
        for pod in &orphans {
            harness.change_cluster(|_| pod.remove().unwrap());
        }
        harness.wait_until(300, "the rows are deleted", |harness| {
            orphans
                .iter()
                .all(|pod| !harness.lock_table().rows.contains_key(&Harness::key(pod)))
        });
        let found = harness.audit();
        assert_eq!(
            (found.lost, found.duplicated, found.gaps),
            (0, 0, orphans.len()),
            "{found:?}"
        );
    }
}

#[test]
fn the_gap_of_a_deleted_pod_is_reported_once_even_if_its_release_is_lost() {
    let mut harness = Harness::balanced(false, 1, 3);
    harness.write_each_second(6);
    harness.pass(6);
    harness.kill(0);
    harness.write_each_second(2);
    harness
        .sim
        .pods()
        .iter()
        .for_each(|pod| harness.change_cluster(|_| pod.remove().unwrap()));
    harness.pass(30);
    let other = harness.add_replica();
    // Slowly, so that there is time to see to it that the release never arrives: the row stays.
    harness.replicas[other].store.set(StoreFaults {
        delay: SECOND,
        ..StoreFaults::default()
    });
    harness.wait_until(120, "the pods are claimed once more", |harness| {
        harness.holders().len() == 3
    });
    harness.replicas[other].store.set(StoreFaults {
        refused: true,
        ..StoreFaults::default()
    });
    harness.pass(10);
    harness.replicas[other].store.set(StoreFaults::default());
    harness.pass(400);
    let found = harness.audit();
    assert_eq!((found.lost, found.duplicated, found.gaps), (0, 0, 3), "{found:?}");
    assert_eq!(harness.pod_rows(), 0, "{:#?}", harness.lock_table());
}

#[test]
fn a_pod_that_stops_matching_is_released_without_a_gap_and_can_be_claimed_again() {
    let mut harness = Harness::new(false);
    harness.labels = Some("app=shop".into());
    harness.add_replica();
    harness.add_replica();
    let pod = harness.create_pod();
    harness.write_each_second(10);
    harness.change_cluster(|_| pod.set_label("app", "other").unwrap());
    harness.wait_until(30, "it is released", |harness| harness.holders().is_empty());
    let stored = harness.audit().stored;
    harness.write_each_second(10);
    assert_eq!(harness.audit().stored, stored);
    harness.change_cluster(|_| pod.set_label("app", "shop").unwrap());
    harness.wait_until(30, "it is held again", |harness| harness.holders().len() == 1);
    harness.pass(5);
    harness.assert_all_stored_once();
}

#[test]
fn a_panic_in_one_task_does_not_stop_the_others() {
    let mut harness = Harness::balanced(true, 1, 10);
    harness.write_each_second(3);
    harness.ledger.panic(1);
    harness.write_each_second(3);
    harness.pass(2);
    assert_eq!(harness.holders().len(), 9);
    harness.write_each_second(70);
    harness.pass(5);
    harness.assert_all_stored_once();
}

#[test]
fn a_pod_that_the_sink_rejects_is_not_claimed_repeatedly() {
    let mut harness = Harness::balanced(true, 1, 3);
    harness.write_each_second(3);
    let acquired = |harness: &Harness| harness.replicas[0].metrics.claims_acquired.get();
    harness.ledger.fence_all_streams(harness.sim.pods()[0].uid());
    let before = acquired(&harness);
    harness.write_each_second(30);
    // Every five seconds or so.
    assert!(
        (4..=7).contains(&(acquired(&harness) - before)),
        "{}",
        acquired(&harness) - before
    );
    assert!(harness.holders().len() >= 2);
}

#[test]
fn a_dead_api_server_does_not_prevent_the_release_of_claims() {
    let mut harness = Harness::balanced(false, 2, 40);
    harness.write_each_second(5);
    let pods = harness.sim.pods();
    pods.iter()
        .take(20)
        .for_each(|pod| harness.change_cluster(|_| pod.remove().unwrap()));
    let hang = Fault::Delay(Duration::from_mins(1));
    harness.change_cluster(|sim| sim.inject(Target::verb(Verb::Get), hang, u32::MAX));
    harness.pass(30);
    assert!(harness.replicas.iter().all(|replica| replica.health.stuck().is_empty()));
    let name = harness.replicas[0].name.clone();
    harness.ask_to_stop(0);
    let took = harness.wait_until(60, "the pods that are there are held by the other", |harness| {
        let holders = harness.holders();
        pods.iter()
            .skip(20)
            .all(|pod| holders.get(pod.uid()).is_some_and(|holder| *holder != name))
    });
    assert!(took <= 3 * SECOND, "{took:?}");
}

#[test]
fn a_pod_created_and_deleted_while_the_store_is_unavailable_leaves_a_gap() {
    for (fencing, away) in [(true, 5), (false, 400)] {
        let mut harness = Harness::balanced(fencing, 2, 4);
        let refused = || StoreFaults {
            refused: true,
            ..StoreFaults::default()
        };
        harness.replicas.iter().for_each(|replica| replica.store.set(refused()));
        harness.pass(1);
        let pod = harness.create_pod();
        harness.write(&pod);
        harness.pass(2);
        harness.change_cluster(|_| pod.remove().unwrap());
        harness.pass(away);
        let quiet = harness.replicas.iter();
        quiet.for_each(|replica| replica.store.set(StoreFaults::default()));
        harness.wait_until(60, "its gap is reported", |harness| harness.audit().gaps == 1);
        harness.pass(400);
        let found = harness.audit();
        assert_eq!((found.lost, found.duplicated, found.gaps), (0, 0, 1), "{found:?}");
        assert_eq!(harness.pod_rows(), 4, "{:#?}", harness.lock_table());
    }
}

#[test]
fn instances_started_while_the_replica_was_dead_are_in_the_gap_of_the_deletion() {
    let mut harness = Harness::balanced(false, 2, 6);
    harness.write_each_second(6);
    harness.pass(6);
    let dead = harness.kill(0);
    let pods = harness.sim.pods().into_iter();
    let orphans: Vec<_> = pods
        .filter(|pod| harness.holders().get(pod.uid()) == Some(&dead))
        .collect();
    assert!(!orphans.is_empty());
    for pod in &orphans {
        harness.change_cluster(|_| pod.exit("app", 1).unwrap());
        harness.change_cluster(|_| pod.start("app").unwrap());
        harness.write(pod);
    }
    harness.pass(2);
    for pod in &orphans {
        harness.change_cluster(|_| pod.remove().unwrap());
    }
    harness.wait_until(300, "the rows are deleted", |harness| {
        let rows = harness.lock_table();
        orphans.iter().all(|pod| !rows.rows.contains_key(&Harness::key(pod)))
    });
    let found = harness.audit();
    assert_eq!((found.lost, found.duplicated), (0, 0), "{found:?}");
    // One for the instance that was being read, and one for the one that followed it.
    assert_eq!(found.gaps, 2 * orphans.len(), "{found:?}");
}

#[test]
fn a_stopping_replica_repeats_store_updates_that_failed() {
    let mut harness = Harness::balanced(false, 2, 10);
    harness.write_each_second(5);
    harness.replicas[0].store.set(StoreFaults {
        refused: true,
        ..StoreFaults::default()
    });
    harness.ask_to_stop(0);
    harness.write_each_second(3);
    assert!(!harness.has_ended(0));
    harness.replicas[0].store.set(StoreFaults::default());
    let took = harness.stop(0);
    assert!(took < 2 * SECOND, "{took:?}");
    harness.wait_until(3, "the other has its pods", |harness| harness.holders().len() == 10);
    harness.write_each_second(3);
    harness.pass(5);
    harness.assert_all_stored_once();
}
