//! The list of pods, page by page.
//!
//! It asks for each page once; repeating a list is up to the caller.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Resource;
use kube::api::{ListParams, ObjectList};

use super::client::{Cluster, GET_DEADLINE};
use super::convert::{SharedNames, convert_selected};
use super::error::ApiError;
use super::operation::Operation;
use super::select::Scope;
use crate::domain::{Message, Pod};

/// Pods on one page of a list: about 5 MB.
const PAGE: u32 = 500;

/// The most pages of a list: twice the 150,000 pods that Kubernetes supports, on pages that are half empty.
/// 2 x 150,000 / 250 = 1,200.
const PAGES: usize = 1_200;

/// The selected pods of a namespace, or of all.
pub(super) struct PodList {
    pub(super) pods: Vec<Pod>,
    /// The resource version of the list.
    pub(super) version: String,
}

/// The selected pods of one page.
struct PodPage {
    pods: Vec<Pod>,
    /// The token of the next page; `None` after the last.
    next: Option<String>,
    /// The resource version of the whole list.
    version: String,
}

/// The selected pods of a namespace, or of all, that there are now.
pub async fn list_pods(cluster: &Cluster, scope: &Scope, namespace: Option<&str>) -> Result<Vec<Pod>, ApiError> {
    let mut names = SharedNames::default();
    let list = list(cluster, scope, namespace, &mut names, GET_DEADLINE).await?;
    Ok(list.pods)
}

/// Lists the selected pods of a namespace, or of all. `deadline` is for each page.
pub(super) async fn list(
    cluster: &Cluster,
    scope: &Scope,
    namespace: Option<&str>,
    names: &mut SharedNames,
    deadline: Duration,
) -> Result<PodList, ApiError> {
    let (mut pods, mut next) = (Vec::new(), None);
    for _ in 0..PAGES {
        let page = page(cluster, scope, namespace, next, names, deadline).await?;
        pods.extend(page.pods);
        next = page.next;
        if next.is_none() {
            return Ok(PodList {
                pods,
                version: page.version,
            });
        }
    }
    Err(ApiError::Unavailable(Message::new(
        format!("the list of pods does not end: {PAGES} pages of {PAGE}"),
        "check the proxy or load balancer before the API server",
    )))
}

async fn page(
    cluster: &Cluster,
    scope: &Scope,
    namespace: Option<&str>,
    token: Option<String>,
    names: &mut SharedNames,
    deadline: Duration,
) -> Result<PodPage, ApiError> {
    let params = ListParams {
        label_selector: scope.labels.clone(),
        field_selector: scope.fields.clone(),
        limit: Some(PAGE),
        continue_token: token,
        ..ListParams::default()
    };
    let operation = Operation {
        verb: "list",
        resource: "pods",
        namespace,
    };
    let request = kube::core::Request::new(ApiPod::url_path(&(), namespace)).list(&params);
    let request = request.map_err(ApiError::rejected)?;
    let fetching = cluster.fetch::<ObjectList<ApiPod>>(request);
    let page = cluster.send(operation, deadline, fetching).await?;
    let pods = page.items.into_iter();
    Ok(PodPage {
        pods: pods
            .filter_map(|pod| convert_selected(&scope.selection, pod, names))
            .collect(),
        next: page.metadata.continue_.filter(|token| !token.is_empty()),
        version: page.metadata.resource_version.unwrap_or_default(),
    })
}
