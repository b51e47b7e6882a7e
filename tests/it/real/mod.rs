//! The Kubernetes client against a real API server and kubelet.
//!
//! Needs `KUBECONFIG`, and an image with a shell that the nodes have or can pull: `PODLOG_TEST_IMAGE`, by default
//! `docker.io/library/busybox:1`. Each test has a namespace of its own and deletes it, also when it fails.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Api;
use kube::api::DeleteParams;
use podlog::cluster::{ApiError, Cluster, LogError, LogQuery, Scope, open_log};
use podlog::domain::{ContainerState, Phase, Pod, PodSet};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::fixture::{PATIENCE, container, in_namespace, next_lines, running, with_token};

#[tokio::test]
async fn containers_of_all_types_are_discovered_with_their_instances() {
    in_namespace(|fixture| async move {
        let mut sidecar = container("proxy", "sleep 1000");
        sidecar["restartPolicy"] = json!("Always");
        let init = container("setup", "echo ready");
        let spec = json!({"initContainers": [init, sidecar], "containers": [container("app", "sleep 1000")]});
        let mut tasks = JoinSet::new();
        let scope = Scope {
            namespaces: vec![fixture.namespace.clone()],
            ..Scope::default()
        };
        let mut seen = fixture.discover(scope, &mut tasks);
        let empty = timeout(PATIENCE, seen.wait_for(|set| set.listings.is_settled()))
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert!(empty.pods.is_empty());
        fixture.create("all", &spec).await;
        let up = |set: &Arc<PodSet>| set.pods.values().any(|pod| pod.container("app").is_some_and(running));
        let set = timeout(PATIENCE, seen.wait_for(up)).await.unwrap().unwrap().clone();
        let pod = set.pods.values().next().unwrap();
        assert_eq!((set.pods.len(), &*pod.name, pod.phase), (1, "all", Phase::Running));
        assert!(pod.node.is_some() && pod.labels.contains_key("test"));
        assert_eq!(pod.containers.len(), 3);
        let ContainerState::Terminated(setup) = &pod.containers[0].state else {
            panic!("{pod:?}")
        };
        assert!(setup.restart_count == 0 && setup.started.is_some() && setup.id.as_str().len() == 64);
        assert!(running(&pod.containers[1]));
        assert_eq!(
            fixture.cluster.pod(&fixture.namespace, "all").await.unwrap().as_ref(),
            Some(&**pod)
        );
        let pods: Api<ApiPod> = Api::namespaced(fixture.kube.clone(), &fixture.namespace);
        pods.delete("all", &DeleteParams::default()).await.unwrap();
        timeout(PATIENCE, seen.wait_for(|set| set.pods.is_empty()))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(fixture.cluster.pod(&fixture.namespace, "all").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_log_is_followed_over_http2_and_read_from_a_given_second() {
    in_namespace(|fixture| async move {
        let script = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done";
        fixture
            .create("talk", &json!({"containers": [container("app", script)]}))
            .await;
        fixture
            .pod_when("talk", |pod| pod.container("app").is_some_and(running))
            .await;
        let follow = LogQuery {
            follow: true,
            ..fixture.query("talk", "app")
        };
        let mut log = open_log(&fixture.cluster, &follow).await.unwrap();
        assert_eq!(log.version(), http::Version::HTTP_2);
        let first = next_lines(&mut log, 10).await;
        assert_eq!(&first[..3], ["line 0", "line 1", "line 2"]);
        drop(log);
        let all = fixture.read(&fixture.query("talk", "app")).await;
        let (time, line) = all
            .iter()
            .find(|(time, _)| time.0 % 1_000_000_000 > 600_000_000)
            .unwrap();
        let since = LogQuery {
            since: Some(*time),
            ..fixture.query("talk", "app")
        };
        let later = fixture.read(&since).await;
        assert!(
            later.iter().any(|(_, text)| text == line),
            "the line at {time} is not skipped"
        );
        assert!(later[0].0.0 >= time.floor_seconds() * 1_000_000_000);
        let tail = LogQuery {
            tail_lines: Some(2),
            ..fixture.query("talk", "app")
        };
        assert_eq!(fixture.read(&tail).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_previous_instance_is_read_after_a_restart() {
    in_namespace(|fixture| async move {
        let script = "echo one of $HOSTNAME; sleep 3; exit 1";
        fixture
            .create("crash", &json!({"containers": [container("app", script)]}))
            .await;
        let first = fixture
            .pod_when("crash", |pod| pod.container("app").is_some_and(running))
            .await;
        let previous = LogQuery {
            previous: true,
            ..fixture.query("crash", "app")
        };
        assert!(first.containers[0].previous.is_none());
        assert_eq!(
            open_log(&fixture.cluster, &previous).await.unwrap_err(),
            LogError::NoPrevious
        );
        let id = first.containers[0].state.instance().unwrap().id.clone();
        let restarted = |pod: &Pod| pod.containers[0].previous.is_some() && running(&pod.containers[0]);
        let second = fixture.pod_when("crash", restarted).await;
        let last = second.containers[0].previous.clone().unwrap();
        assert_eq!((last.id, last.restart_count), (id, 0));
        let now = second.containers[0].state.instance().unwrap();
        assert_eq!(now.restart_count, 1);
        assert_eq!(fixture.read(&previous).await.len(), 1);
        let looping = |pod: &Pod| pod.containers[0].state == ContainerState::Waiting;
        let third = fixture.pod_when("crash", looping).await;
        let last = third.containers[0].previous.clone().unwrap();
        assert!(
            last.restart_count >= 1 && (last.restart_count > 1 || last.id == now.id),
            "{last:?} after {now:?}"
        );
        assert_eq!(
            fixture.read(&fixture.query("crash", "app")).await.len(),
            1,
            "the ended instance answers"
        );
    })
    .await;
}

#[tokio::test]
async fn an_ended_pod_is_reported_as_ended() {
    in_namespace(|fixture| async move {
        let spec = |script| json!({"restartPolicy": "Never", "containers": [container("app", script)]});
        fixture.create("good", &spec("echo done")).await;
        fixture.create("bad", &spec("echo done; exit 3")).await;
        for name in ["good", "bad"] {
            let pod = fixture.pod_when(name, |pod| pod.phase == Phase::Ended).await;
            assert!(
                matches!(pod.containers[0].state, ContainerState::Terminated(_)),
                "{pod:?}"
            );
            assert_eq!(fixture.read(&fixture.query(name, "app")).await.len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn the_reasons_why_a_log_cannot_be_read_are_distinguished() {
    in_namespace(|fixture| async move {
        let open = |pod: &'static str, container: &'static str| {
            let fixture = fixture.clone();
            async move {
                open_log(&fixture.cluster, &fixture.query(pod, container))
                    .await
                    .unwrap_err()
            }
        };
        assert_eq!(open("nobody", "app").await, LogError::NotFound);
        let mut missing = container("app", "true");
        missing["image"] = json!("docker.io/library/no-such-image:fixture");
        fixture.create("waiting", &json!({"containers": [missing]})).await;
        fixture.pod_when("waiting", |pod| pod.node.is_some()).await;
        let text = open("waiting", "other").await;
        assert!(
            matches!(&text, LogError::Rejected(message) if message.text.contains("other")),
            "{text:?}"
        );
        // Until the kubelet has seen the pod it answers 404, and then for a moment that it has no status of the container.
        let refused = async {
            loop {
                match open("waiting", "app").await {
                    LogError::NotFound | LogError::NoStatus(_) => sleep(Duration::from_millis(100)).await,
                    other => return other,
                }
            }
        };
        assert_eq!(timeout(PATIENCE, refused).await.unwrap(), LogError::Waiting);
        let nowhere = json!({"nodeSelector": {"no": "such"}, "containers": [container("app", "true")]});
        fixture.create("unscheduled", &nowhere).await;
        assert_eq!(open("unscheduled", "app").await, LogError::NotScheduled);
    })
    .await;
}

#[tokio::test]
async fn a_missing_permission_is_named_with_the_rule_that_grants_it() {
    in_namespace(|fixture| async move {
        let folder = tempfile::tempdir().unwrap();
        let stranger = fixture.stranger(&folder).await;
        stranger.version().await.unwrap();
        let who = format!("system:serviceaccount:{}:stranger may not", fixture.namespace);
        let LogError::Forbidden(text) = open_log(&stranger, &fixture.query("any", "app")).await.unwrap_err() else {
            panic!("reading a log is refused without the permission")
        };
        let text = text.to_string();
        assert!(
            text.starts_with(&format!("{who} get pods/log in namespace {}", fixture.namespace)),
            "{text}"
        );
        assert!(text.contains(r#"resources: ["pods/log"], verbs: ["get"]"#), "{text}");
        let Err(ApiError::Forbidden(text)) = stranger.pod(&fixture.namespace, "any").await else {
            panic!("reading a pod is refused without the permission")
        };
        let text = text.to_string();
        assert!(text.starts_with(&format!("{who} get pods in namespace")), "{text}");
        assert!(!stranger.may("get", "pods/log", Some(&fixture.namespace)).await.unwrap());
        assert!(
            fixture
                .cluster
                .may("get", "pods/log", Some(&fixture.namespace))
                .await
                .unwrap()
        );
        assert!(fixture.cluster.may("watch", "pods", None).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn refused_credentials_are_read_again() {
    in_namespace(|fixture| async move {
        let folder = tempfile::tempdir().unwrap();
        let token = fixture.token("rotated").await;
        let access = with_token(&folder, "not-a-token");
        let cluster = Cluster::connect(&access, fixture.metrics.clone()).await.unwrap();
        with_token(&folder, &token);
        assert!(matches!(cluster.version().await, Err(ApiError::Unauthorized(_))));
        cluster.version().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn only_the_named_namespaces_and_labels_are_discovered() {
    in_namespace(|fixture| async move {
        let spec = json!({"containers": [container("app", "sleep 1000")]});
        fixture.create("one", &spec).await;
        fixture.create("two", &spec).await;
        let mut tasks = JoinSet::new();
        let namespaces = vec![fixture.namespace.clone(), "podlog-test-no-such-namespace".to_owned()];
        let scope = Scope {
            namespaces,
            labels: Some("test in (one, three)".into()),
            ..Scope::default()
        };
        let mut seen = fixture.discover(scope, &mut tasks);
        let set = timeout(PATIENCE, seen.wait_for(|set| set.listings.is_settled()))
            .await
            .unwrap()
            .unwrap()
            .clone();
        let names: Vec<_> = set.pods.values().map(|pod| &*pod.name).collect();
        assert_eq!(names, ["one"]);
        fixture.create("three", &spec).await;
        timeout(PATIENCE, seen.wait_for(|set| set.pods.len() == 2))
            .await
            .unwrap()
            .unwrap();
    })
    .await;
}
