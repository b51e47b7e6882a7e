//! The Kubernetes side: discovery of pods and the streams of their logs.
//!
//! This is the only place that knows the kube library. It reads: pods by list and watch, one pod at
//! a time, logs. It never decides what to collect beyond the selection it is given, never follows a
//! stream by itself and never writes to the cluster.

mod access;
mod connect;
mod convert;
mod discover;
mod events;
mod failure;
mod logs;
mod look;
mod pool;
mod select;
mod stream_limits;
mod tasks;
mod watch;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::Pod as ApiPod;
use k8s_openapi::apimachinery::pkg::version::Info as VersionInfo;
use kube::Resource;
use kube::api::GetParams;
use kube::client::Body;
use kube::core::Status;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower::{BoxError, Service};

pub use access::Access;
pub use failure::{ApiError, ClusterError, rule};
pub use logs::{LogError, LogQuery, LogStream};
pub use pool::connections;
pub use select::{Scope, ScopeError, Selection};
pub use stream_limits::{BURST, StreamLimiter, StreamLimits, StreamPermit};

use access::Clients;
use convert::Names;
use failure::Asked;

use crate::domain::Pod;
use crate::metrics::{Metrics, Request as Counted};

/// A single pod, a review of rights, the version.
const GET_DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer in bytes: 500 pods of half a megabyte, which is a hundred times what they are.
const LONGEST_ANSWER: usize = 256 << 20;
/// The longest refusal in bytes: a Status object, which is a few hundred.
const LONGEST_REFUSAL: usize = 64 << 10;
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
    renewed: tokio::sync::Mutex<Option<Instant>>,
    metrics: Metrics,
}

impl Cluster {
    /// Reads the configuration and prepares the clients. Talks to nobody yet, except that an exec
    /// plugin named in the kubeconfig is run: see [`version`](Self::version).
    pub async fn connect(access: &Access, metrics: Metrics) -> Result<Self, ClusterError> {
        let clients = Clients::build(access.config().await?).await?;
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
            renewed: tokio::sync::Mutex::default(),
            metrics,
        }))
    }

    fn clients(&self) -> Clients {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The version of the API server: tells whether it is there and lets us in.
    pub async fn version(&self) -> Result<String, ApiError> {
        let asked = Asked {
            verb: "get",
            resource: "version",
            namespace: None,
        };
        let request = Request::get("/version").body(Vec::new());
        let request = request.map_err(|error| ApiError::Rejected(error.to_string()))?;
        let info: VersionInfo = self.ask(asked, GET_DEADLINE, self.fetch(request)).await?;
        Ok(info.git_version)
    }

    /// The pod of this name as the API server knows it now; `None` when there is none.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ApiError> {
        let asked = Asked {
            verb: "get",
            resource: "pods",
            namespace: Some(namespace),
        };
        let request = kube::core::Request::new(ApiPod::url_path(&(), Some(namespace)));
        let pod = self.get::<ApiPod>(asked, &request, name).await?;
        Ok(pod.and_then(|pod| convert::convert(pod, &mut Names::default())))
    }

    /// Whether these credentials may do this in a namespace, or in all: a verb and a resource as RBAC
    /// names them, such as `get` and `pods/log`. Asking needs no right.
    pub async fn may(&self, verb: &str, resource: &str, namespace: Option<&str>) -> Result<bool, ApiError> {
        let asked = Asked {
            verb: "create",
            resource: "selfsubjectaccessreviews",
            namespace: None,
        };
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = serde_json::json!({
            "verb": verb, "resource": resource, "subresource": subresource, "namespace": namespace.unwrap_or_default()
        });
        let review = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes}
        });
        let request = Request::post(SelfSubjectAccessReview::url_path(&(), None))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(review.to_string().into_bytes())
            .map_err(|error| ApiError::Rejected(error.to_string()))?;
        let answer: SelfSubjectAccessReview = self.ask(asked, GET_DEADLINE, self.fetch(request)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Says which right is missing when no namespace of the scope may be listed: then there is nothing to
    /// do until somebody grants it. Where some may, discovery goes on with those and warns of the others.
    pub async fn admit(&self, scope: &Scope) -> Result<(), ApiError> {
        let places = scope.places();
        for namespace in &places {
            // A server that does not answer the question is asked the real thing later.
            if self.may("list", "pods", *namespace).await.unwrap_or(true) {
                return Ok(());
            }
        }
        let asked = Asked {
            verb: "list",
            resource: "pods",
            namespace: places.first().copied().flatten(),
        };
        Err(ApiError::Forbidden(asked.forbidden("")))
    }

    /// One object; `None` when there is none.
    async fn get<T: DeserializeOwned>(
        &self,
        asked: Asked<'_>,
        request: &kube::core::Request,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let request = request.get(name, &GetParams::default());
        let request = request.map_err(|error| ApiError::Rejected(error.to_string()))?;
        match self.ask(asked, GET_DEADLINE, self.fetch(request)).await {
            Ok(object) => Ok(Some(object)),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and reads the object in the answer. By hand, because kube logs the whole
    /// answer when it cannot read it, and a pod's environment may hold secrets; it also copies it.
    async fn fetch<T: DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, kube::Error> {
        let client = self.clients().api;
        let response = client.send(request.map(Body::from)).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let body = Limited::new(response.into_body(), LONGEST_ANSWER);
        let bytes = body.collect().await.map_err(kube::Error::Service)?.to_bytes();
        serde_json::from_slice(&bytes).map_err(kube::Error::SerdeError)
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
        if renewed.is_some_and(|last| last.elapsed() < RENEW_INTERVAL) {
            return;
        }
        *renewed = Some(Instant::now());
        let built = async { Clients::build(access.config().await?).await };
        match built.await {
            Ok(clients) => {
                tracing::info!("the API server refused the credentials; they were read anew");
                *self.0.clients.lock().unwrap_or_else(PoisonError::into_inner) = clients;
            }
            Err(error) => tracing::warn!(%error, "the credentials could not be read anew"),
        }
    }
}

/// What the server says in place of what was asked for.
async fn refusal(response: Response<Body>) -> kube::Error {
    let code = response.status().as_u16();
    let said = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
    let bytes = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let status = serde_json::from_slice::<Status>(&bytes);
    let status = status.unwrap_or_else(|_| Status::failure(&String::from_utf8_lossy(&bytes), ""));
    kube::Error::Api(Box::new(status.with_code(code)))
}

/// The pod in this JSON as discovery keeps it; `None` when it is none, is not wanted, or has impossible names. This is
/// how a pod of a list or of an event is read, by itself, so that it can be tested with anything.
#[must_use]
pub fn pod_of(json: &[u8], selection: &Selection) -> Option<Pod> {
    let pod: ApiPod = serde_json::from_slice(json).ok()?;
    let wanted = selection.wants(pod.metadata.labels.as_ref(), pod.metadata.annotations.as_ref());
    wanted.then(|| convert::convert(pod, &mut Names::default())).flatten()
}
