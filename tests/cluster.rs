//! The Kubernetes adapter against a real API server and kubelet.
//!
//! Needs `KUBECONFIG` and, on a node, the image `docker.io/library/busybox:lab`. Each test has a
//! namespace of its own and deletes it, also when it fails.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use podlog::cluster::{Access, ApiError, Cluster, LogError, LogQuery, LogStream, Scope};
use podlog::domain::{Container, ContainerKind, Phase, Pod, PodSet, State, Time};
use podlog::metrics::Metrics;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Container starts are slow on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace on the cluster, and podlog's view of it.
#[derive(Clone)]
struct Lab {
    kube: Client,
    namespace: String,
    cluster: Cluster,
    metrics: Metrics,
}

/// Runs a test in a namespace of its own.
async fn in_namespace<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Lab) -> F) {
    if std::env::var_os("KUBECONFIG").is_none() {
        assert!(
            std::env::var("PODLOG_TEST_REQUIRE_ALL").as_deref() != Ok("1"),
            "KUBECONFIG is not set and every test is required"
        );
        println!("SKIPPED: KUBECONFIG is not set; this test needs a real cluster");
        return;
    }
    let kube = Client::try_default().await.unwrap();
    let namespace = format!("podlog-test-{:08x}", fastrand::u32(..));
    let namespaces: Api<Namespace> = Api::all(kube.clone());
    let made = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
    namespaces.create(&PostParams::default(), &made).await.unwrap();
    let metrics = Metrics::default();
    let cluster = Cluster::connect(&Access::default(), metrics.clone()).await.unwrap();
    let lab = Lab {
        kube,
        namespace: namespace.clone(),
        cluster,
        metrics,
    };
    let mut body = JoinSet::new();
    body.spawn(test(lab));
    let end = body.join_next().await.unwrap();
    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    if let Err(failed) = end {
        std::panic::resume_unwind(failed.into_panic());
    }
}

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "docker.io/library/busybox:lab", "imagePullPolicy": "Never", "command": ["sh", "-c", script]})
}

impl Lab {
    async fn create(&self, name: &str, spec: &Value) {
        let mut spec = spec.clone();
        spec["terminationGracePeriodSeconds"] = json!(0);
        let pod = json!({"metadata": {"name": name, "labels": {"test": name}}, "spec": spec});
        let pod: ApiPod = serde_json::from_value(pod).unwrap();
        let pods: Api<ApiPod> = Api::namespaced(self.kube.clone(), &self.namespace);
        // The namespace's service account takes a moment to appear.
        let creating = async {
            while pods.create(&PostParams::default(), &pod).await.is_err() {
                sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, creating).await.expect("the pod can be created");
    }

    async fn pod_when(&self, name: &str, what: impl Fn(&Pod) -> bool) -> Pod {
        let waiting = async {
            loop {
                if let Some(pod) = self.cluster.pod(&self.namespace, name).await.unwrap()
                    && what(&pod)
                {
                    return pod;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the pod gets there")
    }

    fn query(&self, pod: &str, container: &str) -> LogQuery {
        LogQuery {
            namespace: self.namespace.clone(),
            pod: pod.into(),
            container: container.into(),
            follow: false,
            previous: false,
            since: None,
            tail_lines: None,
        }
    }

    async fn read(&self, query: &LogQuery) -> Vec<(Time, String)> {
        let mut log = self.cluster.open_log(query).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(more) = log.next().await.unwrap() {
            bytes.extend_from_slice(&more);
        }
        lines(&bytes)
    }

    /// Discovers in the background until the test ends.
    fn discover(&self, scope: Scope, tasks: &mut JoinSet<()>) -> tokio::sync::watch::Receiver<Arc<PodSet>> {
        let (out, seen) = tokio::sync::watch::channel(Arc::default());
        let cluster = self.cluster.clone();
        tasks.spawn(async move { cluster.discover(&scope, out, CancellationToken::new()).await.unwrap() });
        seen
    }

    /// podlog's access as a service account of this namespace that has no rights.
    async fn stranger(&self, folder: &tempfile::TempDir) -> Cluster {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), &self.namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": "stranger"}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let asked = TokenRequest::default();
        let made = accounts
            .create_token_request("stranger", &PostParams::default(), &asked)
            .await
            .unwrap();
        let access = with_token(folder, &made.status.unwrap().token);
        Cluster::connect(&access, self.metrics.clone()).await.unwrap()
    }
}

/// The kubeconfig of the environment with another user.
fn with_token(folder: &tempfile::TempDir, token: &str) -> Access {
    let known = kube::config::Kubeconfig::read().unwrap();
    let mut config = serde_json::to_value(known).unwrap();
    let users = config["users"].as_array_mut().unwrap();
    for user in users {
        user["user"] = json!({"token": token});
    }
    let path: PathBuf = folder.path().join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    Access {
        kubeconfig: Some(path),
        ..Access::default()
    }
}

fn lines(bytes: &[u8]) -> Vec<(Time, String)> {
    let text = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parsed = text.map(|line| Time::split_line(line).expect("every line has its time"));
    parsed
        .map(|(time, rest)| (time, String::from_utf8(rest.to_vec()).unwrap()))
        .collect()
}

async fn next_lines(log: &mut LogStream, count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.iter().filter(|byte| **byte == b'\n').count() < count {
            bytes.extend_from_slice(&log.next().await.unwrap().expect("the log goes on"));
        }
    };
    timeout(PATIENCE, reading).await.expect("the lines come");
    lines(&bytes).into_iter().map(|(_, line)| line).collect()
}

fn running(c: &Container) -> bool {
    matches!(c.state, State::Running(_))
}

#[tokio::test]
async fn containers_of_all_sorts_are_discovered_with_their_instances() {
    in_namespace(|lab| async move {
        let mut sidecar = container("proxy", "sleep 1000");
        sidecar["restartPolicy"] = json!("Always");
        let init = container("setup", "echo ready");
        let spec = json!({"initContainers": [init, sidecar], "containers": [container("app", "sleep 1000")]});
        let mut tasks = JoinSet::new();
        let scope = Scope {
            namespaces: vec![lab.namespace.clone()],
            ..Scope::default()
        };
        let mut seen = lab.discover(scope, &mut tasks);
        let empty = timeout(PATIENCE, seen.wait_for(|set| set.complete))
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert!(empty.pods.is_empty());
        lab.create("all", &spec).await;
        let up = |set: &Arc<PodSet>| set.pods.values().any(|pod| pod.container("app").is_some_and(running));
        let set = timeout(PATIENCE, seen.wait_for(up)).await.unwrap().unwrap().clone();
        let pod = set.pods.values().next().unwrap();
        assert_eq!((set.pods.len(), &*pod.name, pod.phase), (1, "all", Phase::Running));
        assert!(pod.node.is_some() && pod.labels.get("test").is_some());
        let kinds: Vec<_> = pod.containers.iter().map(|c| c.kind).collect();
        assert_eq!(kinds, [ContainerKind::Init, ContainerKind::Sidecar, ContainerKind::App]);
        let State::Terminated(setup) = &pod.containers[0].state else {
            panic!("{pod:?}")
        };
        assert!(setup.restart == 0 && setup.started.is_some() && setup.id.as_str().len() == 64);
        assert!(running(&pod.containers[1]));
        assert_eq!(
            lab.cluster.pod(&lab.namespace, "all").await.unwrap().as_ref(),
            Some(&**pod)
        );
        let pods: Api<ApiPod> = Api::namespaced(lab.kube.clone(), &lab.namespace);
        pods.delete("all", &DeleteParams::default()).await.unwrap();
        timeout(PATIENCE, seen.wait_for(|set| set.pods.is_empty()))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(lab.cluster.pod(&lab.namespace, "all").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_log_is_followed_over_http2_and_read_from_a_second_on() {
    in_namespace(|lab| async move {
        let script = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done";
        lab.create("talk", &json!({"containers": [container("app", script)]}))
            .await;
        lab.pod_when("talk", |pod| pod.container("app").is_some_and(running))
            .await;
        let follow = LogQuery {
            follow: true,
            ..lab.query("talk", "app")
        };
        let mut log = lab.cluster.open_log(&follow).await.unwrap();
        assert_eq!(log.version(), http::Version::HTTP_2);
        let first = next_lines(&mut log, 10).await;
        assert_eq!(&first[..3], ["line 0", "line 1", "line 2"]);
        drop(log);
        let all = lab.read(&lab.query("talk", "app")).await;
        let (time, line) = all
            .iter()
            .find(|(time, _)| time.0 % 1_000_000_000 > 600_000_000)
            .unwrap();
        let since = LogQuery {
            since: Some(*time),
            ..lab.query("talk", "app")
        };
        let later = lab.read(&since).await;
        assert!(
            later.iter().any(|(_, text)| text == line),
            "the line at {time} is not skipped"
        );
        assert!(later[0].0.0 >= time.floor_seconds() * 1_000_000_000);
        let tail = LogQuery {
            tail_lines: Some(2),
            ..lab.query("talk", "app")
        };
        assert_eq!(lab.read(&tail).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_instance_before_is_read_after_a_restart() {
    in_namespace(|lab| async move {
        let script = "echo one of $HOSTNAME; sleep 3; exit 1";
        lab.create("crash", &json!({"containers": [container("app", script)]}))
            .await;
        let first = lab
            .pod_when("crash", |pod| pod.container("app").is_some_and(running))
            .await;
        let previous = LogQuery {
            previous: true,
            ..lab.query("crash", "app")
        };
        assert!(first.containers[0].last.is_none());
        assert_eq!(lab.cluster.open_log(&previous).await.unwrap_err(), LogError::NoPrevious);
        let id = first.containers[0].state.instance().unwrap().id.clone();
        let restarted = |pod: &Pod| pod.containers[0].last.is_some() && running(&pod.containers[0]);
        let second = lab.pod_when("crash", restarted).await;
        let last = second.containers[0].last.clone().unwrap();
        assert_eq!((last.id, last.restart), (id, 0));
        let now = second.containers[0].state.instance().unwrap();
        assert_eq!(now.restart, 1);
        assert_eq!(lab.read(&previous).await.len(), 1);
        let looping = |pod: &Pod| pod.containers[0].state == State::Waiting;
        let third = lab.pod_when("crash", looping).await;
        let last = third.containers[0].last.clone().unwrap();
        assert!(
            last.restart >= 1 && (last.restart > 1 || last.id == now.id),
            "{last:?} after {now:?}"
        );
        assert_eq!(
            lab.read(&lab.query("crash", "app")).await.len(),
            1,
            "the ended instance answers"
        );
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_has_ended_says_so() {
    in_namespace(|lab| async move {
        let spec = |script| json!({"restartPolicy": "Never", "containers": [container("app", script)]});
        lab.create("good", &spec("echo done")).await;
        lab.create("bad", &spec("echo done; exit 3")).await;
        for name in ["good", "bad"] {
            let pod = lab.pod_when(name, |pod| pod.phase == Phase::Ended).await;
            assert!(matches!(pod.containers[0].state, State::Terminated(_)), "{pod:?}");
            assert_eq!(lab.read(&lab.query(name, "app")).await.len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told_apart() {
    in_namespace(|lab| async move {
        let open = |pod: &'static str, container: &'static str| {
            let lab = lab.clone();
            async move { lab.cluster.open_log(&lab.query(pod, container)).await.unwrap_err() }
        };
        assert_eq!(open("nobody", "app").await, LogError::NotFound);
        let mut missing = container("app", "true");
        missing["image"] = json!("docker.io/library/no-such-image:lab");
        lab.create("waiting", &json!({"containers": [missing]})).await;
        lab.pod_when("waiting", |pod| pod.node.is_some()).await;
        let text = open("waiting", "other").await;
        assert!(
            matches!(&text, LogError::Rejected(text) if text.contains("other")),
            "{text:?}"
        );
        // Until the kubelet has seen the pod it answers 404.
        let refused = async {
            loop {
                match open("waiting", "app").await {
                    LogError::NotFound => sleep(Duration::from_millis(100)).await,
                    other => return other,
                }
            }
        };
        assert_eq!(timeout(PATIENCE, refused).await.unwrap(), LogError::Waiting);
        let nowhere = json!({"nodeSelector": {"no": "such"}, "containers": [container("app", "true")]});
        lab.create("unscheduled", &nowhere).await;
        assert_eq!(open("unscheduled", "app").await, LogError::NotScheduled);
    })
    .await;
}

#[tokio::test]
async fn a_missing_right_is_named_with_the_rule_that_grants_it() {
    in_namespace(|lab| async move {
        let folder = tempfile::tempdir().unwrap();
        let stranger = lab.stranger(&folder).await;
        stranger.version().await.unwrap();
        let who = format!("system:serviceaccount:{}:stranger may not", lab.namespace);
        let LogError::Forbidden(text) = stranger.open_log(&lab.query("any", "app")).await.unwrap_err() else {
            panic!("reading a log is refused for want of a right")
        };
        assert!(
            text.starts_with(&format!("{who} get pods/log in namespace {}", lab.namespace)),
            "{text}"
        );
        assert!(text.contains(r#"resources: ["pods/log"], verbs: ["get"]"#), "{text}");
        let Err(ApiError::Forbidden(text)) = stranger.pod(&lab.namespace, "any").await else {
            panic!("reading a pod is refused for want of a right")
        };
        assert!(text.starts_with(&format!("{who} get pods in namespace")), "{text}");
        let access = with_token(&folder, "not-a-token");
        let nobody = Cluster::connect(&access, lab.metrics.clone()).await.unwrap();
        assert!(matches!(nobody.version().await, Err(ApiError::Unauthorized(_))));
    })
    .await;
}

#[tokio::test]
async fn only_the_named_namespaces_and_labels_are_discovered() {
    in_namespace(|lab| async move {
        let spec = json!({"containers": [container("app", "sleep 1000")]});
        lab.create("one", &spec).await;
        lab.create("two", &spec).await;
        let mut tasks = JoinSet::new();
        let namespaces = vec![lab.namespace.clone(), "podlog-test-no-such-namespace".to_owned()];
        let scope = Scope {
            namespaces,
            labels: Some("test in (one, three)".into()),
            ..Scope::default()
        };
        let mut seen = lab.discover(scope, &mut tasks);
        let set = timeout(PATIENCE, seen.wait_for(|set| set.complete))
            .await
            .unwrap()
            .unwrap()
            .clone();
        let names: Vec<_> = set.pods.values().map(|pod| &*pod.name).collect();
        assert_eq!(names, ["one"]);
        lab.create("three", &spec).await;
        timeout(PATIENCE, seen.wait_for(|set| set.pods.len() == 2))
            .await
            .unwrap()
            .unwrap();
    })
    .await;
}
