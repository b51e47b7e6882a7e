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
use tower::{BoxError, Service};

use super::access::Access;
use super::clients::Clients;
use super::connect::ConnectError;
use super::convert::{SharedNames, convert};
use super::error::{AccessError, ApiError};
use super::operation::Operation;
use super::renewal::Renewal;
use super::select::Scope;
use crate::domain::Pod;
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
/// A cluster. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<ClusterInner>);

#[derive(Debug)]
struct ClusterInner {
    clients: Mutex<Clients>,
    /// Builds the clients again; `None` when they came from a service.
    renewal: Option<Renewal>,
    metrics: Metrics,
}

impl Cluster {
    /// Reads the configuration and prepares the clients. Sends no request, but runs the exec plugin that the kubeconfig
    /// names, if any. [`version`](Self::version) tests the connection.
    pub async fn connect(access: &Access, metrics: Metrics) -> Result<Self, AccessError> {
        let (renewal, clients) = Renewal::start(access).await?;
        Ok(Self::new(clients, Some(renewal), metrics))
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

    fn new(clients: Clients, renewal: Option<Renewal>, metrics: Metrics) -> Self {
        Self(Arc::new(ClusterInner {
            clients: Mutex::new(clients),
            renewal,
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

    /// Awaits the answer to a request under a deadline, counts it, and says what its failure means. Before that, it looks
    /// whether the configuration of the cluster has changed.
    pub(super) async fn send<T>(
        &self,
        operation: Operation<'_>,
        deadline: Duration,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        if let Some(renewal) = &self.0.renewal {
            self.replace_clients(renewal.look().await);
        }
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

    /// Reads the configuration again after one side did not trust the other.
    pub(super) async fn renew_credentials(&self, why: &ApiError) {
        if let Some(renewal) = &self.0.renewal {
            self.replace_clients(renewal.renew(why).await);
        }
    }

    fn replace_clients(&self, clients: Option<Clients>) {
        if let Some(clients) = clients {
            *lock(&self.0.clients) = clients;
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
