//! Tests of the conversion of pods, with small pods in JSON.

use serde_json::{Value, json};

use super::*;

fn pod(mut value: Value) -> Pod {
    let meta = json!({"uid": "u1", "namespace": "shop", "name": "cart-0", "labels": {"app": "cart"}});
    for (key, default) in meta.as_object().unwrap() {
        if value["metadata"].get(key).is_none() {
            value["metadata"][key] = default.clone();
        }
    }
    convert(serde_json::from_value(value).unwrap(), &mut SharedNames::default()).unwrap()
}

fn container(status: Value) -> Container {
    let mut status = status;
    status["name"] = json!("app");
    status["image"] = json!("i");
    status["imageID"] = json!("i");
    status["ready"] = json!(false);
    let pod = pod(json!({
        "metadata": {},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"phase": "Running", "containerStatuses": [status]}
    }));
    pod.containers.into_iter().next().unwrap()
}

fn terminated(id: &str) -> Value {
    json!({"terminated": {"exitCode": 1, "containerID": format!("containerd://{id}"), "startedAt": "2026-11-20T10:00:00Z"}})
}

fn instance(id: &str, restart_count: u32, started: bool) -> Instance {
    Instance {
        id: id.into(),
        restart_count,
        started: started.then_some(Time(1_795_168_800_000_000_000)),
    }
}

#[test]
fn containers_of_every_kind_are_kept_in_the_order_they_start() {
    let pod = pod(json!({
        "metadata": {},
        "spec": {
            "nodeName": "n1",
            "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "app"}],
            "ephemeralContainers": [{"name": "debug"}]
        },
        "status": {"phase": "Pending"}
    }));
    let names: Vec<_> = pod.containers.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["setup", "proxy", "app", "debug"]);
    assert_eq!(
        (pod.node.as_deref(), pod.phase, pod.deleted),
        (Some("n1"), Phase::Pending, false)
    );
    assert!(!pod.has_log());
}

#[test]
fn a_running_container_has_the_restart_count_and_the_previous_instance_has_one_less() {
    let c = container(json!({
        "restartCount": 2, "containerID": "containerd://c",
        "state": {"running": {"startedAt": "2026-11-20T10:00:00Z"}}, "lastState": terminated("b")
    }));
    assert_eq!(c.state, ContainerState::Running(instance("c", 2, true)));
    assert_eq!(c.previous, Some(instance("b", 1, true)));
}

#[test]
fn a_terminated_container_has_the_restart_count_and_the_previous_instance_has_one_less() {
    let c = container(
        json!({"restartCount": 1, "containerID": "containerd://b", "state": terminated("b"), "lastState": terminated("a")}),
    );
    assert_eq!(
        (c.state, c.previous),
        (
            ContainerState::Terminated(instance("b", 1, true)),
            Some(instance("a", 0, true))
        )
    );
}

#[test]
fn in_a_crash_loop_the_last_instance_has_the_restart_count() {
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let c = container(
        json!({"restartCount": 1, "containerID": "containerd://b", "state": waiting, "lastState": terminated("b")}),
    );
    assert_eq!(
        (c.state, c.previous),
        (ContainerState::Waiting, Some(instance("b", 1, true)))
    );
}

#[test]
fn without_a_current_instance_the_last_one_has_one_restart_less() {
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    let c = container(json!({"restartCount": 3, "state": waiting, "lastState": terminated("c")}));
    assert_eq!(c.previous, Some(instance("c", 2, true)));
}

#[test]
fn a_container_that_never_ran_has_no_instance() {
    let c =
        container(json!({"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}}));
    assert_eq!((c.state, c.previous), (ContainerState::Waiting, None));
    let c = container(json!({"restartCount": 0, "state": {"terminated": {"exitCode": 137, "containerID": ""}}}));
    assert_eq!((c.state, c.previous), (ContainerState::Waiting, None));
}

#[test]
fn a_failed_pod_has_ended_only_when_no_container_runs() {
    let with = |phase: &str, state: Value| {
        pod(json!({
            "metadata": {}, "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": phase, "containerStatuses": [{
                "name": "app", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "containerID": "cri-o://a", "state": state
            }]}
        }))
        .phase
    };
    assert_eq!(with("Failed", json!({"running": {}})), Phase::Running);
    assert_eq!(with("Failed", terminated("a")), Phase::Ended);
    assert_eq!(with("Succeeded", terminated("a")), Phase::Ended);
    assert_eq!(with("Failed", json!({"waiting": {}})), Phase::Ended);
    assert_eq!(with("Running", terminated("a")), Phase::Running);
    assert_eq!(with("Unknown", json!({"running": {}})), Phase::Running);
}

#[test]
fn an_annotation_excludes_containers() {
    let pod = pod(json!({
        "metadata": {"annotations": {"podlog.io/containers": "app"}},
        "spec": {"initContainers": [{"name": "setup"}], "containers": [{"name": "app"}, {"name": "proxy"}]}
    }));
    let names: Vec<_> = pod.containers.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["app"]);
}

#[test]
fn a_pod_without_a_uid_is_ignored() {
    let nameless = json!({"metadata": {"name": "a", "namespace": "b"}});
    assert!(convert(serde_json::from_value(nameless).unwrap(), &mut SharedNames::default()).is_none());
}

#[test]
fn names_are_shared_while_they_are_used_and_dropped_afterwards() {
    let mut names = SharedNames::default();
    let (a, b) = (names.share("app"), names.share("app"));
    assert!(Arc::ptr_eq(&a, &b));
    names.drop_unused();
    assert_eq!(names.names.len(), 1);
    drop((a, b));
    names.drop_unused();
    assert!(names.names.is_empty());
}

#[test]
fn names_of_pods_that_come_and_go_do_not_add_up() {
    let mut names = SharedNames::default();
    let used: Vec<_> = (0..2000).map(|i| names.share(&format!("used-{i}"))).collect();
    for i in 0..100_000 {
        drop(names.share(&format!("gone-{i}")));
    }
    let kept = names.names.len();
    assert!((2000..=4000).contains(&kept), "{kept} names are kept");
    assert!(
        used.iter().all(|name| Arc::ptr_eq(name, &names.share(name))),
        "names that are used stay shared"
    );
}

#[test]
fn a_container_that_runs_without_a_usable_id_is_not_taken_for_one_that_waits() {
    let long = "x".repeat(500);
    for id in [
        json!(""),
        json!(null),
        json!("containerd://"),
        json!(format!("containerd://{long}")),
    ] {
        let c = container(json!({"restartCount": 0, "containerID": id, "state": {"running": {}}, "lastState": {}}));
        assert_eq!((c.state, c.previous), (ContainerState::RunningWithoutId, None), "{id}");
    }
}
