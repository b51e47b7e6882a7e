//! The Kubernetes side: discovery of pods and the streams of their logs.
//!
//! This is the only place that knows the kube library. It reads: pods by list and watch, one pod at
//! a time, logs. It never decides what to collect beyond the selection it is given, never follows a
//! stream by itself and never writes to the cluster.

mod access;
mod dial;
mod discover;
mod failure;
mod gate;
mod logs;
mod prune;
mod select;
mod tasks;
mod transport;
mod watch;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Api;
use kube::client::Body;
use tokio::time::Instant;
use tower::{BoxError, Service};

pub use access::Access;
pub use failure::{ApiError, ClusterError};
pub use gate::{Gate, Limits, Turn};
pub use logs::{LogError, LogQuery, LogStream};
pub use select::{Scope, ScopeError, Selection};

use access::Clients;
use failure::Asked;
use prune::Names;

use crate::domain::Pod;
use crate::metrics::{Metrics, Request as Counted};

/// A single pod, a review of rights, the version.
const GET_DEADLINE: Duration = Duration::from_secs(10);
/// A page of 500 pods; the server itself gives up after 60 s.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// The first byte of a watch or a log.
const HEADERS_DEADLINE: Duration = Duration::from_secs(15);
/// Credentials are read anew after the server refused them, at most this often.
const RENEW_INTERVAL: Duration = Duration::from_mins(1);

/// A cluster. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How the clients are made anew; `None` when they came from a service.
    access: Option<Access>,
    clients: Mutex<Clients>,
    /// When they were last made anew.
    renewed: tokio::sync::Mutex<Instant>,
    metrics: Metrics,
}

impl Cluster {
    /// Reads the configuration and prepares the clients. Talks to nobody yet, except that an exec
    /// plugin named in the kubeconfig is run: see [`version`](Self::version).
    pub async fn connect(access: &Access, metrics: Metrics) -> Result<Self, ClusterError> {
        let clients = Clients::build(access.config().await?, access.plain_http2).await?;
        Ok(Self::with(clients, Some(access.clone()), metrics))
    }

    /// A cluster behind a service that answers requests, such as a simulated one. All requests go
    /// there; must be called inside a Tokio runtime.
    pub fn over<S, B>(service: S, metrics: Metrics) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::with(Clients::over(service), None, metrics)
    }

    fn with(clients: Clients, access: Option<Access>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            access,
            clients: Mutex::new(clients),
            renewed: tokio::sync::Mutex::new(Instant::now()),
            metrics,
        }))
    }

    fn clients(&self) -> Clients {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pods of a namespace, or of all.
    fn pods(&self, namespace: Option<&str>) -> Api<ApiPod> {
        match namespace {
            Some(namespace) => Api::namespaced(self.clients().api, namespace),
            None => Api::all(self.clients().api),
        }
    }

    /// The version of the API server: tells whether it is there and lets us in.
    pub async fn version(&self) -> Result<String, ApiError> {
        let asked = Asked {
            verb: "get",
            resource: "version",
            namespace: None,
        };
        let client = self.clients().api;
        let info = self.ask(asked, GET_DEADLINE, client.apiserver_version()).await?;
        Ok(info.git_version)
    }

    /// The pod of this name as the API server knows it now; `None` when there is none.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ApiError> {
        let asked = Asked {
            verb: "get",
            resource: "pods",
            namespace: Some(namespace),
        };
        let pods = self.pods(Some(namespace));
        let pod = self.ask(asked, GET_DEADLINE, pods.get_opt(name)).await?;
        Ok(pod.and_then(|pod| prune::prune(pod, &mut Names::default())))
    }

    /// Sends one request under a deadline, counts it, and says what its failure means.
    async fn ask<T>(
        &self,
        asked: Asked<'_>,
        deadline: Duration,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        let Ok(answer) = tokio::time::timeout(deadline, request).await else {
            self.count(asked.verb, 0);
            return Err(ApiError::Unavailable(format!(
                "the API server did not answer to {} {} within {} s",
                asked.verb,
                asked.resource,
                deadline.as_secs()
            )));
        };
        let code = match &answer {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(_) => 0,
        };
        self.count(asked.verb, code);
        match answer {
            Ok(value) => Ok(value),
            Err(error) => {
                let failure = asked.failed(error);
                if matches!(failure, ApiError::Unauthorized(_)) {
                    self.renew().await;
                }
                Err(failure)
            }
        }
    }

    fn count(&self, verb: &'static str, code: u16) {
        self.0.metrics.api_requests.get_or_create(&Counted { verb, code }).inc();
    }

    /// Reads the credentials anew after they were refused: client certificates end, and the files
    /// and plugins they come from have newer ones. Streams that are open stay open.
    async fn renew(&self) {
        let Some(access) = &self.0.access else { return };
        let Ok(mut renewed) = self.0.renewed.try_lock() else {
            return;
        };
        if renewed.elapsed() < RENEW_INTERVAL {
            return;
        }
        *renewed = Instant::now();
        let built = async { Clients::build(access.config().await?, access.plain_http2).await };
        match built.await {
            Ok(clients) => {
                tracing::info!("the API server refused the credentials; they were read anew");
                *self.0.clients.lock().unwrap_or_else(PoisonError::into_inner) = clients;
            }
            Err(error) => tracing::warn!(%error, "the credentials could not be read anew"),
        }
    }
}
