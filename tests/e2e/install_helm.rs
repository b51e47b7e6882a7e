//! One release of the chart, installed by helm into a namespace of its own.
//!
//! All of it is removed when the test ends, also when it fails. Nothing here depends on what is collected.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams};
use kube::discovery::{Discovery, verbs};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::fixture::{Fixture, PATIENCE, create_namespace, delete_namespace, print_line, until};
use crate::servers;

/// How long helm waits for the replicas.
const TIMEOUT: &str = "--timeout=4m";

/// What the tests need besides a cluster and a database.
pub(crate) struct HelmSetup {
    /// The image of podlog, as `REPOSITORY:TAG`.
    image: String,
    /// Where pods find the database: `HOST:PORT`.
    database: String,
}

impl HelmSetup {
    /// Reads the environment; `None` when the test is to be skipped.
    pub(crate) fn find() -> Option<Self> {
        let image = servers::named("PODLOG_TEST_PODLOG_IMAGE")?;
        let server = servers::named("PODLOG_TEST_MYSQL")?;
        if let Err(error) = Command::new("helm").arg("version").output() {
            servers::skip(&format!("helm cannot be run: {error}; put it on the PATH"));
            return None;
        }
        let url = url::Url::parse(&server).unwrap();
        let port = url.port().unwrap_or(3306);
        let host = url.host_str().unwrap_or_default();
        let local = ["127.0.0.1", "localhost", "[::1]"].contains(&host);
        let database = match (
            std::env::var("PODLOG_TEST_MYSQL_FOR_PODS"),
            std::env::var("LAB_NODE_IP"),
        ) {
            (Ok(place), _) => place,
            (_, Ok(node)) if local => format!("{node}:{port}"),
            _ if local => {
                servers::skip(
                    "PODLOG_TEST_MYSQL is on this machine; say with PODLOG_TEST_MYSQL_FOR_PODS=HOST:PORT where pods find it",
                );
                return None;
            }
            _ => format!("{host}:{port}"),
        };
        Some(Self { image, database })
    }
}

/// A release called `podlog` in the namespace `LAB-podlog`.
#[derive(Clone)]
pub(crate) struct Release {
    fixture: Fixture,
    pub(crate) namespace: String,
}

impl Release {
    /// Creates the namespace, which admits only pods of the restricted standard, and the values that all installations
    /// share.
    pub(crate) async fn prepare(fixture: &Fixture, means: &HelmSetup) -> Self {
        let namespace = format!("{}-podlog", fixture.namespace);
        create_namespace(&fixture.kube, &namespace).await;
        let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let namespaces: Api<Namespace> = Api::all(fixture.kube.clone());
        let (params, label) = (PatchParams::default(), Patch::Merge(label));
        namespaces.patch(&namespace, &params, &label).await.unwrap();
        let mut url = url::Url::parse(&fixture.url).unwrap();
        let password = url.password().unwrap_or_default().to_owned();
        url.set_password(None).unwrap();
        let (host, port) = means.database.rsplit_once(':').unwrap();
        url.set_host(Some(host)).unwrap();
        url.set_port(port.parse().ok()).unwrap();
        let (repository, tag) = means.image.rsplit_once(':').unwrap();
        let store = json!({"url": url.as_str(), "password": password});
        let values = json!({"lock": store, "sink": store, "image": {"repository": repository, "tag": tag}});
        let release = Self {
            fixture: fixture.clone(),
            namespace,
        };
        std::fs::write(release.file("values.json"), values.to_string()).unwrap();
        release
    }

    fn file(&self, name: &str) -> String {
        self.fixture.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs helm on this release; it must succeed.
    async fn helm(&self, args: &[&str]) {
        let began = Instant::now();
        let mut helm = tokio::process::Command::new("helm");
        helm.args(args).args(["--namespace", &self.namespace]);
        let output = helm.output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "helm {args:?}: {said}");
        let took = began.elapsed().as_secs_f64();
        print_line(&format!("e2e: helm {} took {took:.1} s", args[0]));
    }

    /// `helm install` or `upgrade` with further values; waits until the replicas are ready.
    pub(crate) async fn apply(&self, command: &str, values: &Value) {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/podlog");
        let (shared, more) = (self.file("values.json"), self.file("more.json"));
        std::fs::write(&more, values.to_string()).unwrap();
        self.helm(&[command, "podlog", chart, "-f", &shared, "-f", &more, "--wait", TIMEOUT])
            .await;
    }

    /// `helm test`, which calls the API server and the database with the permissions of the replicas.
    pub(crate) async fn test(&self) {
        self.helm(&["test", "podlog", TIMEOUT]).await;
    }

    /// Rolls back to the previous release; waits until the replicas are ready.
    pub(crate) async fn roll_back(&self) {
        self.helm(&["rollback", "podlog", "--wait", TIMEOUT]).await;
    }

    pub(crate) async fn uninstall(&self) {
        self.helm(&["uninstall", "podlog", "--wait", TIMEOUT]).await;
    }

    pub(crate) async fn scale(&self, replicas: u32) {
        let deployments: Api<Deployment> = Api::namespaced(self.fixture.kube.clone(), &self.namespace);
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let params = PatchParams::default();
        deployments.patch_scale("podlog", &params, &scale).await.unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.fixture.kube.clone(), &self.namespace)
    }

    /// The names of the replicas that are not being deleted.
    pub(crate) async fn replicas(&self) -> BTreeSet<String> {
        let params = ListParams::default().labels("app.kubernetes.io/component=replica");
        let pods = self.pods().list(&params).await.unwrap();
        let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        alive.map(ResourceExt::name_any).collect()
    }

    /// `kubectl delete --force --grace-period=0`.
    pub(crate) async fn delete_pod_by_force(&self, replica: &str) {
        let at_once = DeleteParams::default().grace_period(0);
        self.pods().delete(replica, &at_once).await.unwrap();
    }

    /// The restarts of containers so far, over all replicas.
    pub(crate) async fn restarts(&self) -> i32 {
        let pods = self.pods().list(&ListParams::default()).await.unwrap();
        let statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
        let containers = statuses.flat_map(|status| status.container_statuses.iter().flatten());
        containers.map(|container| container.restart_count).sum()
    }

    /// Copies the logs of the replicas into the fixture's folder.
    pub(crate) async fn keep_words(&self) {
        let Ok(pods) = self.pods().list(&ListParams::default()).await else {
            return;
        };
        for name in pods.iter().map(ResourceExt::name_any) {
            let words = self.pods().logs(&name, &LogParams::default()).await;
            let words = words.unwrap_or_else(|error| error.to_string());
            std::fs::write(self.file(&format!("{name}.log")), words).ok();
        }
    }

    /// Removes everything, also after a release that failed half-way.
    pub(crate) async fn remove(&self) {
        let mut helm = Command::new("helm");
        helm.args([
            "uninstall",
            "podlog",
            "--ignore-not-found",
            "--namespace",
            &self.namespace,
        ]);
        helm.output().ok();
        delete_namespace(&self.fixture.kube, &self.namespace).await;
    }

    /// Every object of any kind in the cluster that has the label of a release in this namespace or of the test's,
    /// or in which helm keeps its history.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let kube = &self.fixture.kube;
        let mut found = Vec::new();
        let all = Discovery::new(kube.clone()).run().await.unwrap();
        let kinds = all.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
        for (kind, _) in kinds.filter(|(_, can)| can.supports_operation(verbs::LIST)) {
            let objects: Api<DynamicObject> = Api::all_with(kube.clone(), &kind);
            let params = ListParams::default().labels("app.kubernetes.io/instance=podlog");
            let listed = objects.list(&params).await.unwrap();
            let names = listed.iter().filter(|object| {
                let place = object.namespace().unwrap_or_else(|| object.name_any());
                place.starts_with(&*self.fixture.namespace)
            });
            found.extend(names.map(|object| format!("{} {}", kind.kind, object.name_any())));
        }
        let secrets: Api<Secret> = Api::namespaced(kube.clone(), &self.namespace);
        let history = secrets.list(&ListParams::default()).await.unwrap();
        found.extend(history.iter().map(|secret| format!("Secret {}", secret.name_any())));
        found
    }

    /// Waits until the deployment has this many replicas and all are ready.
    pub(crate) async fn settled(&self, replicas: i32) {
        let deployments: Api<Deployment> = Api::namespaced(self.fixture.kube.clone(), &self.namespace);
        until("all replicas are ready", PATIENCE, async || {
            let status = deployments.get("podlog").await.unwrap().status.unwrap_or_default();
            let counts = [status.replicas, status.ready_replicas, status.updated_replicas];
            let fine = counts.iter().all(|count| *count == Some(replicas));
            fine.then_some(())
                .ok_or(format!("{counts:?} are, {replicas} should be"))
        })
        .await;
    }
}

/// A pause between two operations.
pub(crate) const BREATH: Duration = Duration::from_secs(3);
