//! Several whole collectors in virtual time: what happens to pods and their lines when replicas
//! come, go, freeze, and lose sight of the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use podlog::clock::Clock;
use podlog::domain::{About, GoodUntil, LockKey, Want};
use podlog::grant::Grant;
use podlog::keeper::keeper;
use podlog::locks::{Holder, LockStore, MemoryTable};
use podlog::metrics::Metrics;
use podlog::sim::{PodSpec, RestartPolicy};
use podlog::status::health::Health;
use tokio::task::JoinSet;

use crate::flaky::{Faults, Fences, Flaky, Switch, Wrongs};
use crate::world::{LEASE, World};

const SECOND: Duration = Duration::from_secs(1);
const TTL: u32 = 20;

fn cut() -> Faults {
    Faults {
        refused: true,
        ..Faults::default()
    }
}

fn silent() -> Faults {
    Faults {
        silent: true,
        ..Faults::default()
    }
}

fn slow(delay: Duration) -> Faults {
    Faults {
        delay,
        ..Faults::default()
    }
}

#[test]
fn three_replicas_share_the_pods_evenly_and_deliver_each_line_once() {
    let mut world = World::shared(false, 3, 60);
    assert_eq!(world.shares().into_values().collect::<Vec<_>>(), [20, 20, 20]);
    world.busy(10);
    world.pass(2);
    world.assert_exact();
}

#[test]
fn the_pods_of_a_killed_replica_are_taken_over_within_a_ttl_and_two_seconds() {
    let mut world = World::shared(true, 3, 60);
    world.busy(7);
    let dead = world.kill(1);
    world.write_all();
    let took = world.until(60, "all pods are held by the living", |world| {
        let holders = world.holders();
        holders.len() == 60 && holders.values().all(|name| *name != dead)
    });
    assert!(took <= (TTL + 2) * SECOND, "{took:?}");
    world.busy(5);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_replica_that_stops_leaves_its_pods_to_others_within_two_seconds_and_no_line_twice() {
    let mut world = World::shared(false, 3, 60);
    world.busy(7);
    world.write_all();
    let name = world.replicas[0].name.clone();
    world.ask_to_stop(0);
    let took = world.until(30, "others hold all pods", |world| {
        let holders = world.holders();
        holders.len() == 60 && holders.values().all(|holder| *holder != name)
    });
    assert!(took <= 2 * SECOND, "{took:?}");
    world.stop(0);
    world.busy(5);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_newcomer_gets_its_share_by_handing_over_and_no_more_is_moved_than_needed() {
    let mut world = World::shared(false, 3, 60);
    let before = world.holders();
    world.add();
    world.busy(50);
    world.pass(5);
    world.assert_even();
    let after = world.holders();
    let moved = before.iter().filter(|(uid, name)| after[*uid] != **name).count();
    // The newcomer's share is 15.
    assert!(moved <= 18, "{moved} moved");
    world.assert_exact();
}

#[test]
fn a_holder_that_was_frozen_beyond_its_ttl_writes_nothing_when_it_thaws() {
    let mut world = World::shared(true, 3, 30);
    world.busy(3);
    world.write_all();
    // In the middle of reading and writing.
    world.pass_for(SECOND / 5);
    world.freeze(0);
    world.busy(u64::from(TTL) + 10);
    world.thaw(0);
    world.busy(40);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_short_freeze_costs_nothing() {
    let mut world = World::shared(false, 3, 30);
    world.busy(3);
    world.freeze(0);
    world.busy(8);
    world.thaw(0);
    world.busy(10);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn a_replica_that_is_cut_off_stops_before_its_pods_are_taken() {
    for faults in [cut(), silent()] {
        let mut world = World::shared(false, 3, 30);
        world.busy(7);
        world.replicas[0].store.set(faults);
        world.busy(60);
        let name = world.replicas[0].name.clone();
        assert_eq!(world.shares().get(&name), None);
        world.replicas[0].store.set(Faults::default());
        world.busy(60);
        world.pass(5);
        let found = world.reckon();
        assert_eq!((found.lost, found.disordered, found.gaps), (0, 0, 0), "{found:?}");
        world.assert_even();
    }
}

#[test]
fn a_lone_replica_goes_on_from_what_it_knows_when_the_store_comes_back() {
    for faults in [cut(), silent()] {
        let mut world = World::shared(false, 1, 20);
        world.busy(7);
        world.replicas[0].store.set(faults);
        world.busy(40);
        let stored = world.reckon().stored;
        world.busy(5);
        assert_eq!(world.reckon().stored, stored, "it goes on after its deadline");
        world.replicas[0].store.set(Faults::default());
        let took = world.until(60, "the pods are held again", |world| world.holders().len() == 20);
        assert!(took <= 6 * SECOND, "{took:?}");
        world.busy(5);
        world.pass(5);
        world.assert_exact();
    }
}

#[test]
fn all_stop_when_the_store_is_away_from_all_and_nothing_is_lost() {
    let mut world = World::shared(true, 3, 30);
    world.busy(7);
    world.replicas.iter().for_each(|replica| replica.store.set(silent()));
    world.busy(20);
    let stored = world.reckon().stored;
    world.busy(20);
    assert_eq!(world.reckon().stored, stored);
    world
        .replicas
        .iter()
        .for_each(|replica| replica.store.set(Faults::default()));
    world.until(20, "all pods are held", |world| world.holders().len() == 30);
    world.busy(20);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn answers_that_are_lost_after_the_store_acted_do_no_harm() {
    for kind in ["acquire", "renew", "release", "table", "ask", "forget"] {
        let mut world = World::shared(true, 2, 20);
        let lost = Faults {
            lost: [(kind, 2)].into(),
            ..Faults::default()
        };
        world.busy(3);
        world.replicas[0].store.set(lost.clone());
        world.replicas[1].store.set(lost.clone());
        (0..4).for_each(|_| drop(world.pod()));
        world.busy(8);
        let third = world.add();
        world.replicas[third].store.set(lost);
        world.busy(60);
        world.stop(0);
        world.busy(30);
        world.pass(5);
        world.assert_exact();
        world.assert_even();
    }
}

#[test]
fn a_store_that_takes_almost_three_seconds_is_slow_but_good() {
    let mut world = World::shared(false, 3, 30);
    let slowly = slow(Duration::from_millis(2900));
    world
        .replicas
        .iter()
        .for_each(|replica| replica.store.set(slowly.clone()));
    world.busy(60);
    (0..6).for_each(|_| drop(world.pod()));
    let took = world.until(60, "new pods are claimed", |world| world.holders().len() == 36);
    assert!(took <= 25 * SECOND, "{took:?}");
    world.busy(20);
    world.pass(5);
    world.assert_exact();
    assert!(world.replicas.iter().all(|replica| replica.health.late().is_empty()));
}

#[test]
fn an_asker_that_dies_is_forgotten_and_its_pods_stay_collected() {
    let mut world = World::shared(false, 2, 40);
    for wait in [21, 22, 23] {
        let newcomer = world.add();
        world.busy(wait);
        world.kill(newcomer);
        world.busy(30);
        world.pass(5);
        assert_eq!(world.holders().len(), 40);
        let found = world.reckon();
        assert_eq!((found.lost, found.disordered), (0, 0));
    }
    let wanted = world
        .rows()
        .rows
        .into_values()
        .filter(|row| row.wanted_by.is_some())
        .count();
    assert_eq!(wanted, 0);
}

#[test]
fn a_holder_that_is_asked_and_dies_is_succeeded() {
    let mut world = World::shared(true, 2, 40);
    world.add();
    let asked = |world: &World| world.rows().rows.values().any(|row| row.wanted_by.is_some());
    world.until(60, "the newcomer asks", asked);
    world.kill(0);
    world.busy(50);
    world.pass(5);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_pod_whose_sink_is_stuck_is_handed_over_late_or_not_at_all_but_stays_collected() {
    let mut world = World::shared(true, 1, 12);
    world.busy(3);
    *world.replicas[0].sink.takes.lock().unwrap() = Duration::from_secs(300);
    world.busy(2);
    world.add();
    world.busy(70);
    let wanted = |world: &World| world.rows().rows.values().filter(|row| row.wanted_by.is_some()).count();
    world.until(40, "requests in vain are refused", |world| wanted(world) == 0);
    *world.replicas[0].sink.takes.lock().unwrap() = Duration::from_millis(10);
    world.busy(300);
    world.pass(60);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_pod_handed_to_a_replica_that_died_meanwhile_is_free_at_once() {
    let mut world = World::shared(false, 1, 12);
    world.busy(3);
    world.add();
    world.busy(20);
    // Ten seconds are longer than a dead replica's own row lasts after this.
    *world.replicas[0].sink.takes.lock().unwrap() = Duration::from_secs(28);
    let asked = |world: &World| world.rows().rows.values().any(|row| row.wanted_by.is_some());
    world.write_all();
    world.pass_for(SECOND / 2);
    world.until(10, "the newcomer asks", asked);
    world.pass(2);
    let dead = world.kill(1);
    *world.replicas[0].sink.takes.lock().unwrap() = Duration::from_millis(10);
    world.pass(27);
    let to_the_dead = world.holders().values().filter(|name| **name == dead).count();
    assert_eq!(to_the_dead, 0);
    world.busy(5);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn finished_jobs_are_collected_once_and_forgotten_after_the_pod_is_deleted() {
    let mut world = World::shared(false, 3, 0);
    let jobs: Vec<_> = (0..12)
        .map(|i| {
            let spec = PodSpec::new("jobs", format!("j{i}")).node("n1").app("app");
            world.create(spec.restart_policy(RestartPolicy::Never))
        })
        .collect();
    jobs.iter().for_each(|job| world.write(job));
    world.pass(3);
    jobs.iter().for_each(|job| world.write(job));
    jobs.iter().for_each(|job| world.act(|_| job.exit("app", 0).unwrap()));
    let finished = |world: &World| world.rows().rows.values().filter(|row| row.finished).count();
    world.until(20, "all are finished", |world| finished(world) == 12);
    world.kill(0);
    world.pass(60);
    world.assert_exact();
    assert_eq!(finished(&world), 12);
    jobs.iter().for_each(|job| world.act(|_| job.remove().unwrap()));
    world.until(100, "their rows are forgotten", |world| {
        world.rows().rows.keys().all(|key| key.pod().is_none())
    });
    world.assert_exact();
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
        orphans.iter().for_each(|pod| world.act(|_| pod.remove().unwrap()));
        world.until(100, "the rows are gone", |world| {
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
fn the_gap_of_a_deleted_pod_is_reported_once_although_its_release_was_lost() {
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
    world.replicas[heir].store.set(slow(SECOND));
    world.until(120, "the pods are claimed once more", |world| {
        world.holders().len() == 3
    });
    world.replicas[heir].store.set(cut());
    world.pass(10);
    world.replicas[heir].store.set(Faults::default());
    world.pass(200);
    let found = world.reckon();
    assert_eq!((found.lost, found.twice, found.gaps), (0, 0, 3), "{found:?}");
    assert!(world.rows().rows.keys().all(|key| key.pod().is_none()));
}

#[test]
fn a_pod_that_ceases_to_match_is_released_without_a_gap_and_taken_up_again() {
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
fn a_row_that_is_evicted_finds_a_new_holder_and_the_old_one_stops() {
    let mut world = World::shared(true, 3, 12);
    world.busy(5);
    let pods = world.sim.pods();
    for pod in &pods {
        let key = World::key(pod);
        assert!(world.ask(|locks| async move { locks.evict(&key).await.unwrap() }));
    }
    for _ in 0..30 {
        world.write_all();
        // For up to a renewal interval the old holder believes what the administrator has undone.
        for _ in 0..10 {
            world.pass_forgiving(Duration::from_millis(100), "is held by");
        }
    }
    world.busy(5);
    world.pass(5);
    world.assert_exact();
}

#[test]
fn five_hundred_pods_at_once_are_all_collected() {
    let mut world = World::shared(false, 3, 0);
    let pods: Vec<_> = (0..500).map(|_| world.pod()).collect();
    pods.iter().for_each(|pod| world.write(pod));
    let took = world.until(20, "all are held", |world| world.holders().len() == 500);
    assert!(took <= 5 * SECOND, "{took:?}");
    world.pass(20);
    world.assert_exact();
    world.assert_even();
}

#[test]
fn a_task_that_panics_takes_no_other_down() {
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
fn nobody_holds_more_pods_than_it_may() {
    let mut world = World::new(false);
    world.max_pods = 8;
    world.add();
    world.add();
    (0..20).for_each(|_| drop(world.pod()));
    world.busy(30);
    assert!(
        world.shares().into_values().all(|share| share == 8),
        "{:?}",
        world.shares()
    );
    world.add();
    world.busy(40);
    world.pass(5);
    assert_eq!(world.holders().len(), 20);
    world.assert_exact();
}

#[test]
fn a_jump_of_the_database_clock_moves_no_pod_of_the_living() {
    for jump in [3_600_000, -3_600_000] {
        let mut world = World::shared(false, 3, 30);
        world.busy(7);
        let before = world.holders();
        world.table.skew(jump);
        world.busy(70);
        world.pass(5);
        assert_eq!(world.holders().len(), 30, "after {jump} ms");
        let found = world.reckon();
        assert_eq!((found.lost, found.disordered), (0, 0), "{found:?}");
        let holdoffs: u64 = world
            .replicas
            .iter()
            .map(|replica| replica.metrics.holdoffs.get())
            .sum();
        assert_eq!(holdoffs, 3);
        drop(before);
    }
}

#[test]
fn a_dead_api_server_does_not_keep_claims_from_being_given_back() {
    use podlog::sim::{Effect, Target, Verb};
    let mut world = World::shared(false, 2, 40);
    world.busy(5);
    let pods = world.sim.pods();
    pods.iter()
        .take(20)
        .for_each(|pod| world.act(|_| pod.remove().unwrap()));
    let hang = Effect::Delay(Duration::from_secs(60));
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
fn many_claims_that_end_while_the_store_is_silent_do_not_stall_the_loop() {
    let mut world = World::shared(false, 1, 60);
    world.busy(3);
    world.replicas[0].store.set(silent());
    for _ in 0..60 {
        world.pass(1);
        assert_eq!(world.replicas[0].health.late(), []);
    }
    let took = world.stop(0);
    assert!(took <= 20 * SECOND, "{took:?}");
}

#[test]
fn jobs_that_end_without_end_do_not_keep_a_replica_with_a_slow_store_from_claiming() {
    let mut world = World::new(false);
    world.add();
    let job = |world: &mut World, i: u32| {
        let spec = PodSpec::new("jobs", format!("j{i}")).node("n1").app("app");
        world.create(spec.restart_policy(RestartPolicy::Never))
    };
    let mut jobs: Vec<_> = (0..300).map(|i| job(&mut world, i)).collect();
    world.pass(10);
    world.replicas[0].store.set(slow(Duration::from_millis(1500)));
    let late = world.pod();
    for _ in 0..60 {
        world.act(|_| jobs.pop().unwrap().exit("app", 0).unwrap());
        world.pass_for(SECOND / 2);
    }
    assert!(world.holders().contains_key(late.uid()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_renewal_that_comes_after_the_deadline_revives_nothing() {
    let clock = Clock::tokio();
    let table = MemoryTable::new(clock);
    let inner = table.holder(Holder {
        replica: "r".into(),
        cluster: "test".into(),
        ttl: LEASE.ttl,
        grace: LEASE.grace,
    });
    let (key, about) = (LockKey::Pod("u".into()), About::default());
    let claim = inner.acquire(&[Want { key, about }]).await.unwrap().remove(0);
    let grant = Grant::new(claim.fence, GoodUntil::new(LEASE.good_until(clock.now())), clock);
    let switch = Switch::default();
    let flaky = Flaky {
        inner,
        switch: switch.clone(),
        fences: Fences::default(),
        wrongs: Wrongs::default(),
    };
    let (keeper, driver) = keeper(
        LEASE,
        clock,
        Metrics::default(),
        Health::new(clock).heart("renewal", LEASE.ttl),
    );
    keeper.keep(claim, grant.clone(), None);
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(Arc::new(flaky)));
    switch.set(cut());
    tokio::time::sleep(Duration::from_millis(12_500)).await;
    // Sent at 13 s, answered at 15.9 s, good until 15 s.
    switch.set(slow(Duration::from_millis(2900)));
    tokio::time::sleep(4 * SECOND).await;
    assert!(clock.now() > grant.good_until.deadline(), "revived");
    tokio::time::sleep(20 * SECOND).await;
    assert!(clock.now() > grant.good_until.deadline(), "revived");
}

#[test]
fn replicas_that_died_leave_no_row() {
    let mut world = World::shared(false, 3, 3);
    world.kill(0);
    world.pass(100);
    let replicas = world
        .rows()
        .rows
        .into_keys()
        .filter(|key| matches!(key, LockKey::Replica(_)));
    assert_eq!(replicas.count(), 2);
    let shares: BTreeMap<_, _> = world.shares();
    assert_eq!(shares.values().sum::<usize>(), 3);
}
