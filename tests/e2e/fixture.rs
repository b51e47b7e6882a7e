//! A namespace on a real cluster and a database on a real MySQL server, created for one test and deleted afterwards.
//!
//! With `KEEP=1` both are kept for inspection. Nothing here depends on what podlog does.

use std::future::Future;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tokio::time::sleep;

use crate::replica::Replica;
use crate::servers;

/// Container starts are slow on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A namespace, a database and a folder for one test.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) kube: Client,
    pub(crate) namespace: Arc<str>,
    /// The database, with its password.
    pub(crate) url: Arc<str>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    admin: Box<MySqlConnectOptions>,
    database: Arc<str>,
}

/// Prints to stderr, past the test runner's capture.
pub(crate) fn print_line(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

pub(crate) fn keeps_everything() -> bool {
    std::env::var("KEEP").as_deref() == Ok("1")
}

/// Runs a test with a namespace and a database of its own, and removes both also when the test fails.
pub(crate) async fn run<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F) {
    let Some((_, server)) = servers::named("KUBECONFIG").zip(servers::named("PODLOG_TEST_MYSQL")) else {
        return;
    };
    let fixture = Fixture::new(&server).await;
    let outcome = AssertUnwindSafe(test(fixture.clone())).catch_unwind().await;
    if outcome.is_err() {
        fixture.print_logs();
    }
    fixture.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A container of a pod that runs a shell script.
pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": servers::image(), "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script]})
}

/// A pod with one container `app`.
pub(crate) fn pod(name: &str, policy: &str, script: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"restartPolicy": policy, "containers": [container("app", script)]}})
}

impl Fixture {
    async fn new(server: &str) -> Self {
        let kube = Client::try_default().await.unwrap();
        let name = format!("podlog-e2e-{:08x}", fastrand::u32(..));
        create_namespace(&kube, &name).await;
        let mut url = url::Url::parse(server).unwrap();
        let admin = Box::new(MySqlConnectOptions::from_str(server).unwrap());
        let database = name.replace('-', "_");
        let mut sql = admin.connect().await.unwrap();
        let create = format!("CREATE DATABASE {database}");
        sql.execute(AssertSqlSafe(create)).await.unwrap();
        url.set_path(&database);
        let folder = tempfile::Builder::new()
            .disable_cleanup(keeps_everything())
            .tempdir()
            .unwrap();
        let logs = folder.path().display();
        print_line(&format!(
            "e2e: namespace {name}, database {database}, logs of the replicas in {logs}"
        ));
        Self {
            kube,
            namespace: name.into(),
            url: url.as_str().into(),
            folder: Arc::new(folder),
            admin,
            database: database.into(),
        }
    }

    async fn remove(&self) {
        if keeps_everything() {
            return print_line(&format!("KEEP=1: {} and its database stay", self.namespace));
        }
        delete_namespace(&self.kube, &self.namespace).await;
        let mut sql = self.admin.connect().await.unwrap();
        let drop = format!("DROP DATABASE {}", self.database);
        sql.execute(AssertSqlSafe(drop)).await.unwrap();
    }

    /// Prints the end of each replica's log.
    fn print_logs(&self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|end| end == "log") {
                print_line(&format!("---- {}", entry.path().display()));
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                print_line(&lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
    }

    pub(crate) async fn sql(&self) -> MySqlConnection {
        let options = self.admin.as_ref().clone();
        options.database(&self.database).connect().await.unwrap()
    }

    pub(crate) fn pods(&self) -> Api<ApiPod> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    /// Creates a pod and returns its UID.
    pub(crate) async fn create(&self, pod: &Value) -> String {
        create(&self.kube, &self.namespace, pod).await
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn annotate(&self, name: &str, key: &str, value: Option<&str>) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let (pods, params) = (self.pods(), PatchParams::default());
        pods.patch(name, &params, &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until every pod of the namespace is at least running.
    pub(crate) async fn all_started(&self) {
        until("all pods have started", PATIENCE, async || {
            let pods = self.pods().list(&ListParams::default()).await.unwrap().items;
            let waiting = pods.iter().filter(|pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                matches!(phase, None | Some("Pending"))
            });
            let names: Vec<String> = waiting.map(ResourceExt::name_any).collect();
            names.is_empty().then_some(()).ok_or(format!("{names:?} have not"))
        })
        .await;
    }

    /// A replica with the usual settings, only for this namespace.
    pub(crate) fn replica(&self, name: &str) -> Replica {
        self.replica_with(name, &["--namespace", &self.namespace])
    }

    /// A replica with these settings.
    pub(crate) fn replica_with(&self, name: &str, args: &[&str]) -> Replica {
        Replica::start(&self.url, self.folder.path(), name, args)
    }

    /// A kubeconfig for a new service account with these permissions in these namespaces.
    pub(crate) async fn kubeconfig(&self, rights: &[(&str, Value)]) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), &self.namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": "reader"}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        for (namespace, rules) in rights {
            let role = json!({"metadata": {"name": "reader"}, "rules": rules});
            let roles: Api<Role> = Api::namespaced(self.kube.clone(), namespace);
            let role = serde_json::from_value(role).unwrap();
            roles.create(&PostParams::default(), &role).await.unwrap();
            let binding = json!({"metadata": {"name": "reader"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": &*self.namespace}]});
            let bindings: Api<RoleBinding> = Api::namespaced(self.kube.clone(), namespace);
            let binding = serde_json::from_value(binding).unwrap();
            bindings.create(&PostParams::default(), &binding).await.unwrap();
        }
        let (params, asked) = (PostParams::default(), TokenRequest::default());
        let made = accounts.create_token_request("reader", &params, &asked).await.unwrap();
        let token = made.status.unwrap().token;
        let known = kube::config::Kubeconfig::read().unwrap();
        let mut config = serde_json::to_value(known).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

impl Fixture {
    /// Replaces the permissions of the service account of [`Fixture::kubeconfig`] in the fixture's namespace.
    pub(crate) async fn set_rules(&self, rules: Value) {
        let granted: Api<Role> = Api::namespaced(self.kube.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"rules": rules}));
        granted.patch("reader", &PatchParams::default(), &patch).await.unwrap();
    }
}

pub(crate) async fn create_namespace(kube: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(kube.clone());
    let made = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces.create(&PostParams::default(), &made).await.unwrap();
}

pub(crate) async fn delete_namespace(kube: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(kube.clone());
    let pods: Api<ApiPod> = Api::namespaced(kube.clone(), name);
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete_collection(&at_once, &ListParams::default()).await.unwrap();
    namespaces.delete(name, &DeleteParams::default()).await.unwrap();
}

/// Creates a pod and returns its UID.
pub(crate) async fn create(kube: &Client, namespace: &str, pod: &Value) -> String {
    let mut pod = pod.clone();
    let spec = &mut pod["spec"];
    if spec["terminationGracePeriodSeconds"].is_null() {
        spec["terminationGracePeriodSeconds"] = json!(1);
    }
    let pod: ApiPod = serde_json::from_value(pod).unwrap();
    let pods: Api<ApiPod> = Api::namespaced(kube.clone(), namespace);
    // The namespace's service account takes a moment to appear.
    until("the pod can be created", PATIENCE, async || {
        let made = pods.create(&PostParams::default(), &pod).await;
        made.map(|pod| pod.uid().unwrap()).map_err(|error| error.to_string())
    })
    .await
}

/// Tries until it succeeds; fails after `limit` with the last reason.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < end, "not within {limit:?}: {what}; {why}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}
