//! The client of the API server: single requests under deadlines, and fresh credentials after a refusal.
//!
//! It never repeats a request. Lists, watches and logs are built on it elsewhere.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Collected, Limited};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod};
use k8s_openapi::apimachinery::pkg::version::Info as VersionInfo;
use kube::Resource;
use kube::api::GetParams;
use kube::client::Body;
use kube::core::Status;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::access::{Access, Clients};
use super::connect::ConnectError;
use super::convert::{SharedNames, convert};
use super::error::{AccessError, ApiError};
use super::operation::Operation;
use super::select::Scope;
use crate::domain::Pod;
use crate::domain::backoff::Backoff;
use crate::metrics::{Metrics, Request as RequestLabels};
use crate::sync::lock;

/// The longest time for a single pod, a review of rights or the version.
pub(super) const GET_DEADLINE: Duration = Duration::from_secs(10);
/// The longest time for the first byte of a watch or a log.
pub(super) const HEADERS_DEADLINE: Duration = Duration::from_secs(15);
/// The longest answer in bytes: a page of 500 pods of half a megabyte each, a hundred times their usual size.
const LONGEST_ANSWER: usize = 256 << 20;
/// The longest refusal in bytes: a Status object, which is a few hundred.
const LONGEST_REFUSAL: usize = 64 << 10;
/// The shortest and the longest time from one reading of the credentials to the next.
const RENEW_PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

/// A cluster. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<ClusterInner>);

#[derive(Debug)]
struct ClusterInner {
    /// How the clients are built again; `None` when they came from a service.
    access: Option<Access>,
    clients: Mutex<Clients>,
    renewal: tokio::sync::Mutex<Renewal>,
    metrics: Metrics,
}

/// When the clients may be built again.
#[derive(Debug)]
struct Renewal {
    not_before: Option<Instant>,
    backoff: Backoff,
}

impl Cluster {
    /// Reads the configuration and prepares the clients. Sends no request, but runs the exec plugin that the kubeconfig
    /// names, if any. [`version`](Self::version) tests the connection.
    pub async fn connect(access: &Access, metrics: Metrics) -> Result<Self, AccessError> {
        let clients = Clients::build(access.config().await?).await?;
        Ok(Self::new(clients, Some(access.clone()), metrics))
    }

    /// A cluster behind a service that answers requests, such as a simulated one. All requests go there. Must be called
    /// inside a Tokio runtime.
    pub fn over<S, B>(service: S, metrics: Metrics) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::new(Clients::over(service), None, metrics)
    }

    fn new(clients: Clients, access: Option<Access>, metrics: Metrics) -> Self {
        Self(Arc::new(ClusterInner {
            access,
            clients: Mutex::new(clients),
            renewal: tokio::sync::Mutex::new(Renewal {
                not_before: None,
                backoff: Backoff::new(RENEW_PAUSES.0, RENEW_PAUSES.1),
            }),
            metrics,
        }))
    }

    pub(super) fn clients(&self) -> Clients {
        lock(&self.0.clients).clone()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The version of the API server. Shows that it answers and accepts the credentials.
    pub async fn version(&self) -> Result<String, ApiError> {
        let operation = Operation {
            verb: "get",
            resource: "version",
            namespace: None,
        };
        let request = Request::get("/version").body(Vec::new());
        let request = request.map_err(ApiError::rejected)?;
        let info: VersionInfo = self.send(operation, GET_DEADLINE, self.fetch(request)).await?;
        Ok(info.git_version)
    }

    /// The pod of this name as the API server knows it now; `None` when there is none.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ApiError> {
        let pod = self.get_pod(namespace, name).await?;
        Ok(pod.and_then(|pod| convert(pod, &mut SharedNames::default())))
    }

    /// The termination grace period of the pod of this name; `None` when there is no such pod.
    pub async fn termination_grace(&self, namespace: &str, name: &str) -> Result<Option<Duration>, ApiError> {
        let pod = self.get_pod(namespace, name).await?;
        let seconds = pod.and_then(|pod| pod.spec?.termination_grace_period_seconds);
        Ok(seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs))
    }

    async fn get_pod(&self, namespace: &str, name: &str) -> Result<Option<ApiPod>, ApiError> {
        let operation = Operation {
            verb: "get",
            resource: "pods",
            namespace: Some(namespace),
        };
        let request = kube::core::Request::new(ApiPod::url_path(&(), Some(namespace)));
        self.get(operation, &request, name).await
    }

    /// Whether there is a namespace of this name. Needs a right that podlog can do without.
    pub async fn has_namespace(&self, name: &str) -> Result<bool, ApiError> {
        let operation = Operation {
            verb: "get",
            resource: "namespaces",
            namespace: None,
        };
        let request = kube::core::Request::new(Namespace::url_path(&(), None));
        Ok(self.get::<Namespace>(operation, &request, name).await?.is_some())
    }

    /// The user name under which the API server knows these credentials. Needs no right; servers before 1.28 do not
    /// answer.
    pub async fn user(&self) -> Result<String, ApiError> {
        let operation = Operation {
            verb: "create",
            resource: "selfsubjectreviews",
            namespace: None,
        };
        let review = serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let answer: SelfSubjectReview = self
            .create(operation, &SelfSubjectReview::url_path(&(), None), &review)
            .await?;
        let user = answer.status.and_then(|status| status.user_info);
        Ok(user.and_then(|user| user.username).unwrap_or_default())
    }

    /// Whether these credentials may do this in a namespace, or in all: a verb and a resource as RBAC names them, such as
    /// `get` and `pods/log`. Needs no right.
    pub async fn may(&self, verb: &str, resource: &str, namespace: Option<&str>) -> Result<bool, ApiError> {
        let operation = Operation {
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
        let answer: SelfSubjectAccessReview = self
            .create(operation, &SelfSubjectAccessReview::url_path(&(), None), &review)
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Fails when pods may be listed in no namespace of the scope: then nothing can be collected until somebody grants
    /// the right. If some namespaces may be listed, discovery collects those and warns about the others.
    pub async fn require_list_right(&self, scope: &Scope) -> Result<(), ApiError> {
        let namespaces = scope.list_namespaces();
        for namespace in &namespaces {
            // If the server does not answer the question, the list itself will show it.
            if self.may("list", "pods", *namespace).await.unwrap_or(true) {
                return Ok(());
            }
        }
        let operation = Operation {
            verb: "list",
            resource: "pods",
            namespace: namespaces.first().copied().flatten(),
        };
        Err(operation.forbidden(""))
    }

    /// Creates an object and reads the answer. Used for reviews, which the server does not store.
    async fn create<T: DeserializeOwned>(
        &self,
        operation: Operation<'_>,
        path: &str,
        object: &serde_json::Value,
    ) -> Result<T, ApiError> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(object.to_string().into_bytes())
            .map_err(ApiError::rejected)?;
        self.send(operation, GET_DEADLINE, self.fetch(request)).await
    }

    /// One object; `None` when there is none.
    async fn get<T: DeserializeOwned>(
        &self,
        operation: Operation<'_>,
        request: &kube::core::Request,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let request = request.get(name, &GetParams::default());
        let request = request.map_err(ApiError::rejected)?;
        match self.send(operation, GET_DEADLINE, self.fetch(request)).await {
            Ok(object) => Ok(Some(object)),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and reads the object in the answer. kube's own method copies the answer, and logs all of it when
    /// it cannot be read; a pod's environment may hold secrets.
    pub(super) async fn fetch<T: DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, kube::Error> {
        let client = self.clients().api;
        let response = client.send(request.map(Body::from)).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let body = Limited::new(response.into_body(), LONGEST_ANSWER);
        let bytes = body.collect().await.map_err(kube::Error::Service)?.to_bytes();
        serde_json::from_slice(&bytes).map_err(kube::Error::SerdeError)
    }

    /// Awaits the answer to a request under a deadline, counts it, and says what its failure means.
    pub(super) async fn send<T>(
        &self,
        operation: Operation<'_>,
        deadline: Duration,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        let Ok(answer) = tokio::time::timeout(deadline, request).await else {
            self.count(operation.verb, 0);
            return Err(ApiError::unavailable(format!(
                "the API server did not answer to {} {} within {} s",
                operation.verb,
                operation.resource,
                deadline.as_secs()
            )));
        };
        let code = match &answer {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(_) => 0,
        };
        self.count(operation.verb, code);
        match answer {
            Ok(value) => Ok(value),
            Err(error) => {
                let about_trust = is_about_trust(&error);
                let error = operation.failed(error);
                if about_trust || matches!(error, ApiError::Unauthorized(_)) {
                    self.renew_credentials(&error).await;
                }
                Err(error)
            }
        }
    }

    /// Counts a request by its HTTP status; 0 is no answer.
    pub(super) fn count(&self, verb: &'static str, code: u16) {
        let labels = RequestLabels { verb, code };
        self.0.metrics.api_requests.get_or_create(&labels).inc();
    }

    /// Reads the configuration again, with the CA and the credentials, after one side did not trust the other:
    /// certificates expire and are replaced, and the files and plugins they come from have newer ones. Open streams stay
    /// open.
    pub(super) async fn renew_credentials(&self, why: &ApiError) {
        let Some(access) = &self.0.access else { return };
        let Ok(mut renewal) = self.0.renewal.try_lock() else {
            return;
        };
        let now = Instant::now();
        if renewal.not_before.is_some_and(|at| now < at) {
            return;
        }
        // Trust that was lost long after the last renewal is another matter than the one before.
        let is_new = renewal.not_before.is_none_or(|at| now >= at + RENEW_PAUSES.1);
        if is_new {
            renewal.backoff.reset();
        }
        renewal.not_before = Some(now + renewal.backoff.next_wait(0.0));
        let built = async { Clients::build(access.config().await?).await };
        match built.await {
            Ok(clients) => {
                if is_new {
                    tracing::info!(%why, "podlog reads the configuration of the cluster again, with CA and credentials, until it fits");
                }
                *lock(&self.0.clients) = clients;
            }
            Err(error) if is_new => {
                tracing::warn!(%why, %error, "the configuration of the cluster cannot be read again; podlog goes on trying");
            }
            Err(error) => tracing::debug!(%why, %error, "the configuration of the cluster still cannot be read again"),
        }
    }
}

/// Whether there is no connection because one side does not trust the other.
pub(super) fn is_about_trust(error: &kube::Error) -> bool {
    let kube::Error::Service(error) = error else {
        return false;
    };
    error
        .downcast_ref::<ConnectError>()
        .is_some_and(ConnectError::is_about_trust)
}

/// The error in a response whose status is not success.
pub(super) async fn refusal(response: Response<Body>) -> kube::Error {
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
    let bytes = body.map(Collected::to_bytes).unwrap_or_default();
    let status = serde_json::from_slice::<Status>(&bytes);
    let status = status.unwrap_or_else(|_| Status::failure(&String::from_utf8_lossy(&bytes), ""));
    kube::Error::Api(Box::new(status.with_code(code)))
}
