//! The clusters on which the cluster contract is tested: the simulated cluster in the process, the same behind a port,
//! or a real one. A test cluster runs pods and provides a client; it asserts nothing.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, Config};
use kube_sim::{PodSpec, RestartPolicy, SimBody, SimCluster, SimPod, SimSettings};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::servers;

/// What a container does: print these lines, then exit, or stay if there is no code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) prints: &'static [&'static str],
    pub(crate) exits: Option<i32>,
}

pub(crate) trait TestCluster {
    fn client(&self) -> Client;

    fn namespace(&self) -> &str;

    /// Whether the very first version is surely no longer known.
    fn has_forgotten(&self) -> bool;

    /// Runs a pod, labelled `app` with its name, until every script has printed its lines.
    async fn run(&self, name: &str, scripts: &[Script]);

    /// Creates a pod no node will ever take.
    async fn run_nowhere(&self, name: &str);

    /// Creates a pod whose image cannot be pulled.
    async fn run_without_image(&self, name: &str);

    /// Deletes a pod at once.
    async fn delete(&self, name: &str);

    /// Deletes a pod that a killed run has left.
    async fn delete_leftover(&self, _name: &str) {}

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client(), self.namespace())
    }

    /// A request below the pods of the namespace: status and body.
    async fn get(&self, path: &str) -> (StatusCode, String) {
        let uri = format!("/api/v1/namespaces/{}/pods{path}", self.namespace());
        self.send(Request::get(uri).body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.client().send(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// The simulated cluster, with or without a port in between.
pub(crate) struct SimTestCluster {
    pub(crate) cluster: SimCluster,
    client: Client,
    stop: CancellationToken,
    _server: JoinSet<()>,
}

impl SimTestCluster {
    pub(crate) fn in_process() -> Self {
        let cluster = SimCluster::default();
        let client = Client::new(cluster.service(), "default");
        let (stop, server) = (CancellationToken::new(), JoinSet::new());
        Self {
            cluster,
            client,
            stop,
            _server: server,
        }
    }

    pub(crate) async fn behind_a_port() -> Self {
        let cluster = SimCluster::default();
        let (stop, mut server) = (CancellationToken::new(), JoinSet::new());
        let port = serve(&cluster, &mut server, &stop).await;
        let config = Config::new(format!("http://127.0.0.1:{port}").parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Self {
            cluster,
            client,
            stop,
            _server: server,
        }
    }
}

impl Drop for SimTestCluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves the cluster on a free port.
pub(crate) async fn serve(cluster: &SimCluster, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cluster, stop) = (cluster.clone(), stop.clone());
    tasks.spawn(async move { cluster.serve(listener, stop).await });
    port
}

impl TestCluster for SimTestCluster {
    fn client(&self) -> Client {
        self.client.clone()
    }

    fn namespace(&self) -> &'static str {
        "contract"
    }

    fn has_forgotten(&self) -> bool {
        true
    }

    async fn run(&self, name: &str, scripts: &[Script]) {
        let spec = PodSpec::new(self.namespace(), name).node("n1").label("app", name);
        let spec = spec.restart_policy(RestartPolicy::Never);
        let spec = scripts.iter().fold(spec, |spec, script| spec.app(script.name));
        let pod = self.cluster.create(spec).unwrap();
        for script in scripts {
            pod.start(script.name).unwrap();
            for line in script.prints {
                pod.line(script.name, *line).unwrap();
            }
            if let Some(code) = script.exits {
                pod.exit(script.name, code).unwrap();
            }
        }
    }

    async fn run_nowhere(&self, name: &str) {
        self.cluster
            .create(PodSpec::new(self.namespace(), name).app("app"))
            .unwrap();
    }

    async fn run_without_image(&self, name: &str) {
        let spec = PodSpec::new(self.namespace(), name).node("n1").app("app");
        self.cluster
            .create(spec)
            .unwrap()
            .set_waiting("app", "ErrImagePull")
            .unwrap();
    }

    async fn delete(&self, name: &str) {
        self.cluster.pod(self.namespace(), name).unwrap().remove().unwrap();
    }
}

/// A real cluster, reached as KUBECONFIG says, in a namespace of its own that must exist.
pub(crate) struct RealTestCluster {
    client: Client,
    namespace: String,
    image: String,
}

impl RealTestCluster {
    /// Nothing if no real cluster is named.
    pub(crate) async fn from_environment() -> Option<Self> {
        servers::named("KUBECONFIG")?;
        Some(Self {
            client: Client::try_default().await.unwrap(),
            namespace: std::env::var("PODLOG_TEST_NAMESPACE").unwrap_or_else(|_| "default".to_owned()),
            image: servers::image(),
        })
    }

    async fn create(&self, name: &str, spec: serde_json::Value) {
        let metadata = json!({"name": name, "labels": {"app": name}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.delete(name).await;
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    fn container(&self, script: &Script) -> serde_json::Value {
        let mut shell: Vec<String> = script.prints.iter().map(|line| format!("echo '{line}'")).collect();
        shell.push(
            script
                .exits
                .map_or("sleep 3600".to_owned(), |code| format!("exit {code}")),
        );
        json!({"name": script.name, "image": self.image, "command": ["sh", "-c", shell.join("; ")]})
    }
}

impl TestCluster for RealTestCluster {
    fn client(&self) -> Client {
        self.client.clone()
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn has_forgotten(&self) -> bool {
        false
    }

    async fn run(&self, name: &str, scripts: &[Script]) {
        let containers: Vec<_> = scripts.iter().map(|script| self.container(script)).collect();
        self.create(name, json!({"restartPolicy": "Never", "containers": containers}))
            .await;
        for script in scripts {
            eventually(async || {
                let (status, log) = self.get(&format!("/{name}/log?container={}", script.name)).await;
                let pod = self.pods().get(name).await.unwrap();
                let ended = phase(&pod) != "Pending" && (script.exits.is_none() || phase(&pod) != "Running");
                status == StatusCode::OK && log.lines().count() >= script.prints.len() && ended
            })
            .await;
        }
    }

    async fn run_nowhere(&self, name: &str) {
        let containers = json!([{"name": "app", "image": self.image}]);
        let selector = json!({"podlog.test/no-such-node": "true"});
        self.create(name, json!({"nodeSelector": selector, "containers": containers}))
            .await;
    }

    async fn run_without_image(&self, name: &str) {
        let containers = json!([{"name": "app", "image": "podlog.invalid/no-such-image:1"}]);
        self.create(name, json!({"containers": containers})).await;
        eventually(async || {
            let (_, answer) = self.get(&format!("/{name}/log")).await;
            answer.contains("pull")
        })
        .await;
    }

    async fn delete(&self, name: &str) {
        let now = DeleteParams::default().grace_period(0);
        // There may be nothing to delete.
        drop(self.pods().delete(name, &now).await);
        let field = format!("metadata.name={name}");
        eventually(async || {
            let found = self.pods().list(&ListParams::default().fields(&field)).await.unwrap();
            found.items.is_empty()
        })
        .await;
    }

    async fn delete_leftover(&self, name: &str) {
        self.delete(name).await;
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Polls until the condition holds; a minute is long enough for a real cluster.
pub(crate) async fn eventually(holds: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute");
}

/// A simulated cluster in 1970.
pub(crate) fn cluster() -> SimCluster {
    SimCluster::new(SimSettings {
        now: jiff::Timestamp::UNIX_EPOCH,
        ..SimSettings::default()
    })
}

/// The pod `shop/cart-0` with a running container `app`.
pub(crate) fn running(cluster: &SimCluster) -> SimPod {
    let spec = PodSpec::new("shop", "cart-0").node("n1").app("app");
    let pod = cluster.create(spec).unwrap();
    pod.start("app").unwrap();
    pod
}

pub(crate) async fn ask(cluster: &SimCluster, uri: &str) -> http::Response<SimBody> {
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    cluster.service().oneshot(request).await.unwrap()
}

/// The log of that pod.
pub(crate) async fn open(cluster: &SimCluster, query: &str) -> SimBody {
    let uri = format!("/api/v1/namespaces/shop/pods/cart-0/log?{query}");
    let response = ask(cluster, &uri).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}

pub(crate) async fn whole(body: SimBody) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
