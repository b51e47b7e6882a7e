//! Questions that are asked once: what there is now, and what these credentials are and may.
//!
//! Nothing here is followed or repeated; each call is one answer within its deadline.

use std::time::Duration;

use http::{Request, header};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod};
use kube::Resource;
use kube::api::{ListParams, ObjectList};

use super::convert::{Names, convert};
use super::failure::{ApiError, Asked, one_line};
use super::select::Scope;
use super::{Cluster, GET_DEADLINE};
use crate::domain::Pod;

/// Pods on one page of a list: about 5 MB.
const PAGE: u32 = 500;

/// The most pages of a list: twice the 150,000 pods that Kubernetes can have, on pages that are half empty.
const PAGES: usize = 1_200;

/// A page of a list of pods, as far as they are wanted.
struct Page {
    pods: Vec<Pod>,
    /// Where the next page begins; `None` after the last.
    next: Option<String>,
    /// The version of the whole list.
    version: String,
}

impl Cluster {
    /// The pods of a namespace, or of all, and the version of that list. `deadline` is for each page.
    pub(super) async fn pages(
        &self,
        scope: &Scope,
        namespace: Option<&str>,
        names: &mut Names,
        deadline: Duration,
    ) -> Result<(Vec<Pod>, String), ApiError> {
        let (mut pods, mut next) = (Vec::new(), None);
        for _ in 0..PAGES {
            let page = self.page(scope, namespace, next, names, deadline).await?;
            pods.extend(page.pods);
            next = page.next;
            if next.is_none() {
                return Ok((pods, page.version));
            }
        }
        Err(ApiError::Unavailable(format!(
            "the list of pods does not end: {PAGES} pages of {PAGE}; check what stands before the API server"
        )))
    }

    /// One page of the pods of a namespace, or of all. `deadline` is for this page.
    async fn page(
        &self,
        scope: &Scope,
        namespace: Option<&str>,
        next: Option<String>,
        names: &mut Names,
        deadline: Duration,
    ) -> Result<Page, ApiError> {
        let params = ListParams {
            label_selector: scope.labels.clone(),
            field_selector: scope.fields.clone(),
            limit: Some(PAGE),
            continue_token: next,
            ..ListParams::default()
        };
        let asked = Asked {
            verb: "list",
            resource: "pods",
            namespace,
        };
        let request = kube::core::Request::new(ApiPod::url_path(&(), namespace)).list(&params);
        let request = request.map_err(|error| ApiError::Rejected(error.to_string()))?;
        let page = self
            .ask(asked, deadline, self.fetch::<ObjectList<ApiPod>>(request))
            .await?;
        Ok(Page {
            pods: page
                .items
                .into_iter()
                .filter_map(|pod| wanted(scope, pod, names))
                .collect(),
            next: page.metadata.continue_.filter(|token| !token.is_empty()),
            version: page.metadata.resource_version.unwrap_or_default(),
        })
    }

    /// The pods of a namespace, or of all, that there are now.
    pub async fn pods_now(&self, scope: &Scope, namespace: Option<&str>) -> Result<Vec<Pod>, ApiError> {
        let mut names = Names::default();
        let (pods, _) = self.pages(scope, namespace, &mut names, GET_DEADLINE).await?;
        Ok(pods)
    }

    /// Whether there is a namespace of this name. Needs a right that podlog can do without.
    pub async fn has_namespace(&self, name: &str) -> Result<bool, ApiError> {
        let asked = Asked {
            verb: "get",
            resource: "namespaces",
            namespace: None,
        };
        let request = kube::core::Request::new(Namespace::url_path(&(), None));
        Ok(self.get::<Namespace>(asked, &request, name).await?.is_some())
    }

    /// The user as the API server knows it. Needs no right; servers before 1.28 do not answer.
    pub async fn who(&self) -> Result<String, ApiError> {
        let asked = Asked {
            verb: "create",
            resource: "selfsubjectreviews",
            namespace: None,
        };
        let review = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;
        let request = Request::post(SelfSubjectReview::url_path(&(), None))
            .header(header::CONTENT_TYPE, "application/json")
            .body(review.as_bytes().to_vec())
            .map_err(|error| ApiError::Rejected(error.to_string()))?;
        let answer: SelfSubjectReview = self.ask(asked, GET_DEADLINE, self.fetch(request)).await?;
        let user = answer.status.and_then(|status| status.user_info);
        Ok(user.and_then(|user| user.username).unwrap_or_default())
    }

    /// How long Kubernetes lets a pod end, when there is such a pod.
    pub async fn termination_grace(&self, namespace: &str, name: &str) -> Result<Option<Duration>, ApiError> {
        let asked = Asked {
            verb: "get",
            resource: "pods",
            namespace: Some(namespace),
        };
        let request = kube::core::Request::new(ApiPod::url_path(&(), Some(namespace)));
        let pod = self.get::<ApiPod>(asked, &request, name).await?;
        let seconds = pod.and_then(|pod| pod.spec?.termination_grace_period_seconds);
        Ok(seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs))
    }
}

/// The pod, if it is to be collected.
pub(super) fn wanted(scope: &Scope, pod: ApiPod, names: &mut Names) -> Option<Pod> {
    let meta = &pod.metadata;
    let wants = scope.selection.wants(meta.labels.as_ref(), meta.annotations.as_ref());
    if !wants {
        return None;
    }
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    let pod = convert(pod, names);
    if pod.is_none() {
        tracing::warn!(
            namespace = one_line(&namespace.unwrap_or_default()),
            pod = one_line(&name.unwrap_or_default()),
            "the API server shows a pod whose names or UID are impossible; it is passed over"
        );
    }
    pod
}
