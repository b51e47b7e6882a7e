//! The API server: takes a request, applies the injected faults that match it, and passes it to the code that answers.
//! It has no state of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::Service;

use super::answer::{Refusal, complete, json_bytes, object};
use super::faults::{Fault, RequestSubject, Verb};
use super::list::{self, table_object};
use super::route::{ApiRoute, Query, wants_table};
use super::select::Selector;
use super::shared::Shared;
use super::stream::{SimBody, reset};
use super::{logs, watch};

/// The API server as a tower service, for a `kube::Client` or for a port.
#[derive(Debug, Clone)]
pub struct SimService {
    shared: Arc<Shared>,
}

impl SimService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<B> Service<Request<B>> for SimService
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<SimBody>;
    /// Only injected faults break connections.
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<SimBody>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let call = Call::new(parts);
            shared.count(call.subject.verb);
            let faults = shared.faults.take_due(&call.subject);
            for fault in &faults {
                match fault {
                    Fault::Delay(time) => tokio::time::sleep(*time).await,
                    Fault::Disconnect => return Err(reset()),
                    Fault::Refuse { status, retry_after } => {
                        return Ok(Refusal::with_status(*status, *retry_after).response());
                    }
                    Fault::Cut { .. } | Fault::Mute { .. } | Fault::KubeletMessage { .. } => {}
                }
            }
            if let Err(refusal) = shared.rights.authenticate(&call.parts.headers) {
                return Ok(refusal.response());
            }
            let answer = match call.route {
                Some(ApiRoute::Review) if call.has_right_method() => review(&shared, body, call.is_json()).await,
                _ => shared
                    .rights
                    .authorize(&call.subject)
                    .and_then(|()| call.answer(&shared, &faults)),
            };
            tracing::trace!(method = %call.parts.method, uri = %call.parts.uri, refused = answer.is_err(), "request");
            Ok(answer.unwrap_or_else(|refusal| refusal.response()))
        })
    }
}

/// A request without its body.
struct Call {
    parts: request::Parts,
    query: Query,
    route: Option<ApiRoute>,
    subject: RequestSubject,
}

impl Call {
    fn new(parts: request::Parts) -> Self {
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let route = ApiRoute::parse(parts.uri.path());
        let mut subject = route.as_ref().map_or(
            RequestSubject {
                verb: Verb::Other,
                namespace: None,
                pod: None,
                container: None,
            },
            |route| route.subject(&query),
        );
        subject.container = query.text("container").map(str::to_owned);
        Self {
            parts,
            query,
            route,
            subject,
        }
    }

    fn has_right_method(&self) -> bool {
        self.route
            .as_ref()
            .is_some_and(|route| route.method() == self.parts.method)
    }

    fn is_json(&self) -> bool {
        let kind = self.parts.headers.get(CONTENT_TYPE);
        kind.is_none_or(|kind| kind.as_bytes().starts_with(b"application/json"))
    }

    fn answer(&self, shared: &Arc<Shared>, faults: &[Fault]) -> Result<Response<SimBody>, Refusal> {
        let unknown_path = || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "the server could not find the requested resource",
            )
        };
        let route = self.route.as_ref().ok_or_else(unknown_path)?;
        if !self.has_right_method() {
            let message = "the server does not allow this method on the requested resource";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        Ok(match route {
            ApiRoute::Version => object(&version()),
            ApiRoute::Healthy => complete(StatusCode::OK, "text/plain", "ok"),
            ApiRoute::CoreVersions => object(&json!({"kind": "APIVersions", "versions": ["v1"]})),
            ApiRoute::CoreResources => object(&core_resources()),
            ApiRoute::Groups => object(&groups()),
            ApiRoute::ReviewResources | ApiRoute::Review => object(&review_resources()),
            ApiRoute::Pods(namespace) => return self.pods(shared, namespace.as_deref(), faults),
            ApiRoute::Pod(namespace, name) => return self.pod(shared, namespace, name),
            ApiRoute::Log(..) => return logs::open(shared, self.subject.clone(), &self.query, faults),
            ApiRoute::Namespaces => {
                let state = shared.state();
                object(&list::names(
                    "Namespace",
                    state.version(),
                    shared.clock.base(),
                    state.namespaces.iter(),
                ))
            }
            ApiRoute::Nodes => {
                let state = shared.state();
                object(&list::names(
                    "Node",
                    state.version(),
                    shared.clock.base(),
                    state.nodes.iter(),
                ))
            }
            ApiRoute::Namespace(name) if shared.state().namespaces.contains(name) => {
                object(&list::named("Namespace", name, shared.clock.base()))
            }
            ApiRoute::Namespace(name) => return Err(Refusal::not_found("namespaces", name)),
            ApiRoute::Node(name) if shared.state().nodes.contains(name) => {
                object(&list::named("Node", name, shared.clock.base()))
            }
            ApiRoute::Node(name) => return Err(Refusal::not_found("nodes", name)),
        })
    }

    fn pods(
        &self,
        shared: &Arc<Shared>,
        namespace: Option<&str>,
        faults: &[Fault],
    ) -> Result<Response<SimBody>, Refusal> {
        let selector = |name| self.query.text(name).unwrap_or_default();
        let selector = Selector::parse(namespace, selector("labelSelector"), selector("fieldSelector"));
        let selector = selector.map_err(Refusal::bad_request)?;
        let table = wants_table(&self.parts);
        if self.subject.verb == Verb::Watch {
            watch::open(shared, selector, &self.query, table, self.subject.clone(), faults)
        } else {
            list::pods(shared, &selector, &self.query, table)
        }
    }

    fn pod(&self, shared: &Shared, namespace: &str, name: &str) -> Result<Response<SimBody>, Refusal> {
        let key = (namespace.to_owned(), name.to_owned());
        let pod = shared.state().published(&key).cloned();
        let pod = pod.ok_or_else(|| Refusal::not_found("pods", name))?;
        if wants_table(&self.parts) {
            let metadata = json!({"resourceVersion": pod.version.to_string()});
            return Ok(object(&table_object(&metadata, true, &[pod.row(shared.clock.now())])));
        }
        Ok(json_bytes(pod.json.clone()))
    }
}

/// Answers whether the caller has a permission.
async fn review<B>(shared: &Shared, body: B, is_json: bool) -> Result<Response<SimBody>, Refusal>
where
    B: Body,
{
    let unreadable = |what: &str| Refusal::bad_request(format!("the review cannot be read: {what}"));
    let body = body.collect().await.map_err(|_| unreadable("the body broke off"))?;
    let review = if is_json {
        serde_json::from_reader(body.aggregate().reader())
    } else {
        // kubectl sends protobuf and accepts JSON. It is always told that it has the permission.
        Ok(json!({}))
    };
    let mut review: Value = review.map_err(|error| unreadable(&error.to_string()))?;
    let allowed = shared.rights.is_allowed(&review);
    let Some(fields) = review.as_object_mut() else {
        return Err(unreadable("not an object"));
    };
    for (field, value) in [
        ("apiVersion", json!("authorization.k8s.io/v1")),
        ("kind", json!("SelfSubjectAccessReview")),
        ("status", json!({"allowed": allowed})),
    ] {
        fields.insert(field.to_owned(), value);
    }
    let mut response = object(&review);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0-sim", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "", "goVersion": "", "compiler": "rustc", "platform": "podlog/sim",
    })
}

fn core_resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
        {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list", "watch"],
         "shortNames": ["po"], "categories": ["all"]},
        {"name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
        {"name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace",
         "verbs": ["get", "list"], "shortNames": ["ns"]},
        {"name": "nodes", "singularName": "node", "namespaced": false, "kind": "Node", "verbs": ["get", "list"],
         "shortNames": ["no"]},
    ]})
}

fn groups() -> Value {
    let version = json!({"groupVersion": "authorization.k8s.io/v1", "version": "v1"});
    let group = json!({"name": "authorization.k8s.io", "versions": [version], "preferredVersion": version});
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
}

fn review_resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "authorization.k8s.io/v1", "resources": [
        {"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
         "kind": "SelfSubjectAccessReview", "verbs": ["create"]},
    ]})
}
