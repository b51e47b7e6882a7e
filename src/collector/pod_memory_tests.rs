//! What the collector remembers of pods, case by case.

use super::*;
use crate::domain::{Container, ContainerState, Instance, LockKey, Phase, PodRef};

/// A row as (pod, owner, fence, finished); the owner is empty when the row is free.
type TestRow<'a> = (&'a str, &'a str, u64, bool);

fn table(rows: &[TestRow<'_>]) -> LockTable {
    let row = |(uid, owner, fence, finished): &TestRow<'_>| {
        let row = LockRow {
            owner: (!owner.is_empty()).then(|| (*owner).into()),
            fence: Fence(*fence),
            expires_in: 9000,
            finished: *finished,
            requested_by: None,
            pod_ref: PodRef::default(),
            checkpoint_len: 0,
        };
        (LockKey::Pod((*uid).into()), row)
    };
    LockTable {
        rows: rows.iter().map(row).collect(),
        ..LockTable::default()
    }
}

/// A pod with one container that has run.
fn pod(uid: &str) -> Pod {
    let instance = Instance {
        id: "c1".into(),
        restart_count: 0,
        started: None,
    };
    Pod {
        uid: uid.into(),
        namespace: "ns".into(),
        name: uid.into(),
        node: None,
        labels: BTreeMap::new(),
        phase: Phase::Running,
        deleted: false,
        containers: vec![Container {
            name: "app".into(),
            state: ContainerState::Running(instance),
            previous: None,
        }],
    }
}

fn set_of(pods: impl IntoIterator<Item = Pod>) -> Arc<PodSet> {
    Arc::new(PodSet {
        pods: pods.into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod))).collect(),
        ..PodSet::default()
    })
}

fn set(uids: &[&str]) -> Arc<PodSet> {
    set_of(uids.iter().map(|uid| pod(uid)))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn not_held(_: &PodUid) -> bool {
    false
}

fn ages(memory: &mut PodMemory, rows: &[TestRow<'_>], now: Duration) -> Vec<(String, u64)> {
    memory.on_table(&table(rows), now);
    let ages = memory.candidates(&set(&["a", "b"]), &table(rows), not_held, now);
    let seconds = ages.into_iter().map(|(uid, age)| (uid.to_string(), age.as_secs()));
    seconds.collect()
}

fn pair(a: u64, b: u64) -> Vec<(String, u64)> {
    vec![("a".into(), a), ("b".into(), b)]
}

#[test]
fn the_age_of_a_pod_counts_from_when_its_row_is_absent_or_free() {
    let mut memory = PodMemory::default();
    assert_eq!(ages(&mut memory, &[("b", "other", 1, false)], at(10)), pair(0, 0));
    assert_eq!(ages(&mut memory, &[("b", "", 1, false)], at(13)), pair(3, 0));
    assert_eq!(ages(&mut memory, &[("b", "", 1, false)], at(15)), pair(5, 2));
    let held_in_between = [("a", "other", 2, false), ("b", "", 1, false)];
    assert_eq!(ages(&mut memory, &held_in_between, at(16)), pair(0, 3));
    assert_eq!(ages(&mut memory, &[("b", "", 1, true)], at(17)), pair(0, 0));
}

#[test]
fn a_pod_that_this_replica_holds_has_no_age_and_is_not_remembered() {
    let mut memory = PodMemory::default();
    let ages = memory.candidates(&set(&["a"]), &table(&[]), |_| true, at(10));
    assert_eq!(ages.into_iter().collect::<Vec<_>>(), [("a".into(), Duration::ZERO)]);
    assert!(memory.pods.is_empty());
}

#[test]
fn a_pod_that_backs_off_is_left_out_until_its_time_has_come() {
    let mut memory = PodMemory::default();
    memory.back_off(&"a".into(), at(20));
    assert_eq!(ages(&mut memory, &[], at(19)), [("b".into(), 0)]);
    assert_eq!(ages(&mut memory, &[], at(20)), pair(0, 1));
}

#[test]
fn an_unsaved_checkpoint_counts_only_while_no_other_replica_has_held_the_pod() {
    let uid = PodUid::from("a");
    let keep = || {
        let mut memory = PodMemory::default();
        memory.keep_unsaved(&uid, Fence(7), Checkpoint::default());
        memory
    };
    let mut memory = keep();
    memory.on_table(&table(&[("a", "", 7, false)]), at(1));
    assert_eq!(memory.take_unsaved(&uid, Fence(7)), Some(Checkpoint::default()));
    assert_eq!(memory.take_unsaved(&uid, Fence(7)), None, "it is taken once");
    assert_eq!(
        keep().take_unsaved(&uid, Fence(8)),
        None,
        "another claim came in between"
    );
    for rows in [&[("a", "", 8, false)][..], &[]] {
        let mut memory = keep();
        memory.on_table(&table(rows), at(1));
        assert!(memory.pods.is_empty(), "{rows:?}");
    }
    let mut memory = keep();
    memory.on_saved(&uid);
    assert!(memory.pods.is_empty());
}

#[test]
fn a_pod_without_a_live_holder_is_reported_once_after_the_limit() {
    let mut memory = PodMemory::default();
    let mut reported = |rows: &[TestRow<'_>], now| -> Vec<String> {
        let is_alive = |id: &ReplicaId| id.as_str() == "alive";
        let (set, table) = (set(&["a", "b", "c"]), table(rows));
        let pods = memory.newly_unclaimed(&set, &table, not_held, is_alive, at(now), at(40));
        pods.iter().map(|pod| pod.name.to_string()).collect()
    };
    let rows = [("a", "alive", 1, false), ("b", "dead", 1, false), ("c", "", 1, true)];
    let none: [&str; 0] = [];
    assert_eq!(reported(&rows, 0), none);
    assert_eq!(reported(&rows, 39), none);
    assert_eq!(reported(&rows, 40), ["b"]);
    assert_eq!(reported(&rows, 41), none, "it has been reported");
    let held = [rows[0], ("b", "alive", 2, false), rows[2]];
    assert_eq!(reported(&held, 42), none);
    assert_eq!(reported(&rows, 43), none);
    assert_eq!(reported(&rows, 83), ["b"], "the time counts anew");
}

#[test]
fn a_pod_that_backs_off_is_not_reported_as_unclaimed() {
    let mut memory = PodMemory::default();
    memory.back_off(&"a".into(), at(200));
    let pods = memory.newly_unclaimed(&set(&["a"]), &table(&[]), not_held, |_| false, at(100), Duration::ZERO);
    assert!(pods.is_empty());
}

const KEEP_FOR: Duration = Duration::from_mins(3);

/// A memory from whose set pod `a` is missing.
fn one_missing() -> PodMemory {
    let mut memory = PodMemory::default();
    assert_eq!(memory.on_set(&set(&["a", "b"])), 0);
    assert_eq!(memory.on_set(&set(&["b"])), 0);
    memory
}

fn without_row(memory: &PodMemory) -> Vec<&str> {
    memory.missing_without_row().map(|pod| pod.uid.as_str()).collect()
}

#[test]
fn a_missing_pod_without_a_row_is_remembered_for_three_minutes_after_the_table_was_read() {
    let mut memory = one_missing();
    assert!(without_row(&memory).is_empty(), "the table has not been read");
    memory.update_missing(&table(&[]), at(10), KEEP_FOR);
    assert_eq!(without_row(&memory), ["a"]);
    assert!(memory.missing_as_deleted(&"a".into()).is_some_and(|pod| pod.deleted));
    memory.update_missing(&table(&[]), at(189), KEEP_FOR);
    assert_eq!(without_row(&memory), ["a"]);
    memory.update_missing(&table(&[]), at(190), KEEP_FOR);
    assert!(memory.pods.is_empty());
}

#[test]
fn a_missing_pod_with_a_row_is_remembered_until_the_row_is_finished_or_deleted() {
    for end in [&[("a", "", 1, true)][..], &[]] {
        let mut memory = one_missing();
        memory.update_missing(&table(&[("a", "other", 1, false)]), at(10), KEEP_FOR);
        memory.update_missing(&table(&[("a", "", 1, false)]), at(1000), KEEP_FOR);
        assert!(without_row(&memory).is_empty());
        assert!(memory.missing_as_deleted(&"a".into()).is_some());
        memory.update_missing(&table(end), at(1001), KEEP_FOR);
        assert!(memory.pods.is_empty(), "{end:?}");
    }
}

#[test]
fn a_pod_that_comes_back_or_is_not_selected_any_more_is_not_missing() {
    let mut memory = one_missing();
    memory.on_set(&set(&["a", "b"]));
    assert!(memory.pods.is_empty());
    let mut memory = one_missing();
    memory.forget_missing(&"a".into());
    assert!(memory.pods.is_empty());
}

#[test]
fn a_pod_that_never_ran_leaves_nothing_to_report() {
    let mut memory = PodMemory::default();
    let waiting = Pod {
        containers: Vec::new(),
        ..pod("a")
    };
    memory.on_set(&set_of([waiting]));
    memory.on_set(&set(&[]));
    assert!(memory.pods.is_empty());
}

#[test]
fn missing_pods_beyond_the_limit_are_counted_and_not_remembered() {
    let mut memory = PodMemory::default();
    let many = (0..MAX_MISSING + 3).map(|i| pod(&format!("pod-{i}")));
    memory.on_set(&set_of(many));
    assert_eq!(memory.on_set(&set(&[])), 3);
    assert_eq!(memory.pods.len(), MAX_MISSING);
}

#[test]
fn a_tombstone_is_old_after_its_age_and_forgotten_with_its_row() {
    let mut memory = PodMemory::default();
    let rows = table(&[("a", "", 1, true)]);
    memory.add_tombstone(&"a".into(), at(10));
    assert!(memory.is_tombstone(&"a".into()) && !memory.is_tombstone(&"b".into()));
    assert!(memory.old_tombstones(&rows, at(189), KEEP_FOR).is_empty());
    assert_eq!(memory.old_tombstones(&rows, at(190), KEEP_FOR), ["a".into()]);
    assert!(memory.old_tombstones(&table(&[]), at(191), KEEP_FOR).is_empty());
    assert!(memory.pods.is_empty());
}
