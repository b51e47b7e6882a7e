//! A namespace on a real cluster, created for one test, and what tests do in it.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use podlog::cluster::{Access, Cluster, LogQuery, LogStream, Scope, discover, open_log};
use podlog::domain::{Container, ContainerState, Pod, PodSet, Time};
use podlog::metrics::Metrics;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::servers;

/// Container starts are slow on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A namespace on the cluster, and podlog's view of it.
#[derive(Clone)]
pub(crate) struct ClusterFixture {
    pub(crate) kube: Client,
    pub(crate) namespace: String,
    pub(crate) cluster: Cluster,
    pub(crate) metrics: Metrics,
}

/// Runs a test in a namespace of its own.
pub(crate) async fn in_namespace<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(ClusterFixture) -> F) {
    if servers::named("KUBECONFIG").is_none() {
        return;
    }
    let kube = Client::try_default().await.unwrap();
    let namespace = format!("podlog-test-{:08x}", fastrand::u32(..));
    let namespaces: Api<Namespace> = Api::all(kube.clone());
    let made = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
    namespaces.create(&PostParams::default(), &made).await.unwrap();
    let metrics = Metrics::default();
    let cluster = Cluster::connect(&Access::default(), metrics.clone()).await.unwrap();
    let fixture = ClusterFixture {
        kube,
        namespace: namespace.clone(),
        cluster,
        metrics,
    };
    let mut body = JoinSet::new();
    body.spawn(test(fixture));
    let end = body.join_next().await.unwrap();
    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    if let Err(failed) = end {
        std::panic::resume_unwind(failed.into_panic());
    }
}

pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": servers::image(), "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]})
}

impl ClusterFixture {
    pub(crate) async fn create(&self, name: &str, spec: &Value) {
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

    pub(crate) async fn pod_when(&self, name: &str, what: impl Fn(&Pod) -> bool) -> Pod {
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
        timeout(PATIENCE, waiting).await.expect("the pod reaches its state")
    }

    pub(crate) fn query(&self, pod: &str, container: &str) -> LogQuery {
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

    pub(crate) async fn read(&self, query: &LogQuery) -> Vec<(Time, String)> {
        let mut log = open_log(&self.cluster, query).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(more) = log.next().await.unwrap() {
            bytes.extend_from_slice(&more);
        }
        lines(&bytes)
    }

    /// Runs discovery in the background until the test ends.
    pub(crate) fn discover(&self, scope: Scope, tasks: &mut JoinSet<()>) -> tokio::sync::watch::Receiver<Arc<PodSet>> {
        let (out, seen) = tokio::sync::watch::channel(Arc::default());
        let cluster = self.cluster.clone();
        tasks.spawn(async move { discover(&cluster, &scope, out, CancellationToken::new()).await.unwrap() });
        seen
    }

    /// The token of a new service account without permissions.
    pub(crate) async fn token(&self, name: &str) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), &self.namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let (params, asked) = (PostParams::default(), TokenRequest::default());
        let made = accounts.create_token_request(name, &params, &asked).await;
        made.unwrap().status.unwrap().token
    }

    /// podlog's access as such an account.
    pub(crate) async fn stranger(&self, folder: &tempfile::TempDir) -> Cluster {
        let access = with_token(folder, &self.token("stranger").await);
        Cluster::connect(&access, self.metrics.clone()).await.unwrap()
    }
}

/// The kubeconfig of the environment with another user.
pub(crate) fn with_token(folder: &tempfile::TempDir, token: &str) -> Access {
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
    let parsed = text.map(|line| Time::split_line(line).expect("every line has a timestamp"));
    parsed
        .map(|(time, rest)| (time, String::from_utf8(rest.to_vec()).unwrap()))
        .collect()
}

pub(crate) async fn next_lines(log: &mut LogStream, count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    let reading = async {
        while memchr::memchr_iter(b'\n', &bytes).count() < count {
            bytes.extend_from_slice(&log.next().await.unwrap().expect("the log continues"));
        }
    };
    timeout(PATIENCE, reading).await.expect("the lines arrive");
    lines(&bytes).into_iter().map(|(_, line)| line).collect()
}

pub(crate) fn running(c: &Container) -> bool {
    matches!(c.state, ContainerState::Running(_))
}
