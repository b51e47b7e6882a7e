//! Whole collectors in virtual time: rows of pods that cannot be listed or looked up keep nothing else from being
//! collected and cleared up.

use std::time::Duration;

use kube_sim::{Fault, PodSpec, SimPod, Target, Verb};
use podlog::domain::{AcquireRequest, AfterRelease, LockKey, PodRef, Release};
use podlog::lab::simulate::store::StoreFaults;
use podlog::locks::LockStore;
use podlog::metrics::Reason;

use crate::harness::Harness;

fn pod(namespace: &str, name: &str) -> PodSpec {
    PodSpec::new(namespace, name).node("n1").app("app")
}

fn unresolved(harness: &Harness, reason: &'static str) -> i64 {
    let metrics = &harness.replicas[0].metrics;
    metrics.rows_unresolved.get_or_create(&Reason { reason }).get()
}

/// Leaves rows of pods that do not exist any more. `finished`: their logs were read to the end.
fn leave_rows(harness: &Harness, namespace: &str, count: usize, finished: bool) {
    let requests: Vec<_> = (0..count)
        .map(|i| AcquireRequest {
            key: LockKey::Pod(format!("{namespace}-gone-{i}").as_str().into()),
            pod_ref: PodRef {
                namespace: namespace.into(),
                pod: format!("gone-{i}").as_str().into(),
                node: "n1".into(),
            },
        })
        .collect();
    harness.query_locks(|locks| async move {
        let claims = locks.acquire(&requests).await.unwrap();
        let after = if finished {
            AfterRelease::Finished
        } else {
            AfterRelease::Free
        };
        let releases = claims.into_iter().map(|claim| Release {
            claim,
            checkpoint: None,
            after: after.clone(),
        });
        locks.release(&releases.collect::<Vec<_>>()).await.unwrap();
    });
}

fn has_row(harness: &Harness, pod: &SimPod) -> bool {
    harness.lock_table().rows.contains_key(&Harness::key(pod))
}

#[test]
fn a_namespace_that_may_not_be_listed_keeps_no_replica_from_being_ready_and_no_pod_of_another_from_being_read() {
    for refused in [true, false] {
        let mut harness = Harness::new(true);
        (harness.namespaces, harness.max_pods) = (vec!["a".into(), "b".into()], 1);
        if refused {
            harness.sim.revoke("list", "pods", Some("b"));
        }
        harness.add_replica();
        harness.wait_until(5, "ready", |harness| harness.replicas[0].not_ready().is_empty());
        let first = harness.create(pod("a", "first"));
        harness.write_each_second(3);
        harness.change_cluster(|_| first.remove().unwrap());
        let next = harness.create(pod("a", "next"));
        // With --max-pods 1 it is not read before the claim of the deleted pod has ended.
        harness.wait_until(30, "the next pod is held", |harness| {
            harness.holders().contains_key(next.uid())
        });
        harness.write_each_second(3);
        harness.wait_until(300, "the row of the deleted pod is deleted", |harness| {
            !has_row(harness, &first)
        });
        let found = harness.audit();
        assert_eq!((found.lost, found.duplicated), (0, 0), "{found:?}");
        // Its pods are collected as soon as it may be listed.
        harness.sim.grant("list", "pods", Some("b"));
        harness.change_cluster(|_| next.remove().unwrap());
        let late = harness.create(pod("b", "late"));
        harness.wait_until(60, "the pod of b is held", |harness| {
            harness.holders().contains_key(late.uid())
        });
    }
}

#[test]
fn rows_outside_the_scope_are_never_asked_about_and_are_counted() {
    let mut harness = Harness::new(true);
    harness.namespaces = vec!["a".into(), "b".into()];
    harness.sim.revoke("list", "pods", Some("b"));
    leave_rows(&harness, "elsewhere", 320, false);
    leave_rows(&harness, "b", 5, false);
    leave_rows(&harness, "a", 10, true);
    harness.add_replica();
    harness.wait_until(300, "the finished rows of a are deleted", |harness| {
        harness.pod_rows() == 325
    });
    assert_eq!(unresolved(&harness, "out_of_scope"), 320);
    assert_eq!(unresolved(&harness, "no_answer"), 5, "the namespace is not listed");
    assert_eq!(harness.sim.requests()[&Verb::Get], 10, "one for each pod of a");
}

#[test]
fn a_namespace_whose_pods_may_not_be_read_is_asked_seldom_and_holds_up_no_other() {
    let mut harness = Harness::new(true);
    harness.sim.revoke("get", "pods", Some("elsewhere"));
    leave_rows(&harness, "elsewhere", 320, false);
    leave_rows(&harness, "shop", 10, true);
    harness.add_replica();
    let shop_is_clear = |harness: &Harness| harness.pod_rows() == 320;
    harness.wait_until(300, "the finished rows of shop are deleted", shop_is_clear);
    assert_eq!(unresolved(&harness, "no_answer"), 320);
    harness.pass(1900);
    // At most 64 are sent before the first refusal. Then there is one after 5 s, 10 s, 20 s ... 1280 s.
    let gets = harness.sim.requests()[&Verb::Get];
    assert!(gets <= 64 + 10 + 10, "{gets} requests in about 36 min");
    harness.sim.grant("get", "pods", Some("elsewhere"));
    harness.wait_until(3600, "all rows are deleted", |harness| harness.pod_rows() == 0);
    assert_eq!(unresolved(&harness, "no_answer"), 0);
}

#[test]
fn a_deleted_pod_that_cannot_be_claimed_yet_is_tried_again_within_seconds() {
    let mut harness = Harness::balanced(true, 2, 6);
    harness.write_each_second(6);
    let dead = harness.kill(1);
    let holders = harness.holders();
    let orphans = harness.sim.pods();
    let orphans: Vec<_> = orphans
        .iter()
        .filter(|pod| holders.get(pod.uid()) == Some(&dead))
        .collect();
    assert!(!orphans.is_empty());
    for pod in &orphans {
        harness.change_cluster(|_| pod.remove().unwrap());
    }
    // Until a while after the claims of the dead replica have expired, no pod can be claimed.
    harness.replicas[0].store.set(StoreFaults {
        refused_operation: Some("acquire"),
        ..StoreFaults::default()
    });
    harness.pass(40);
    harness.replicas[0].store.set(StoreFaults::default());
    let finished = |harness: &Harness| harness.lock_table().rows.values().filter(|row| row.finished).count();
    let took = harness.wait_until(60, "the deleted pods are finished", |harness| {
        finished(harness) == orphans.len()
    });
    assert!(took < Duration::from_secs(15), "after {took:?}");
}

#[test]
fn a_lookup_without_an_answer_is_repeated_within_seconds() {
    let mut harness = Harness::new(true);
    leave_rows(&harness, "shop", 4, true);
    let fails = Fault::Refuse {
        status: 500,
        retry_after: None,
    };
    harness.sim.inject(Target::verb(Verb::Get), fails, 40);
    harness.add_replica();
    harness.wait_until(10, "it is counted", |harness| unresolved(harness, "no_answer") == 4);
    harness.wait_until(300, "all rows are deleted", |harness| harness.pod_rows() == 0);
}
