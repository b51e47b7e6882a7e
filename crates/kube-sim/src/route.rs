//! Parses requests: the path, the query parameters, and whether the client wants a table. It answers no request.

use std::collections::BTreeMap;

use http::header::ACCEPT;
use http::{Method, request};

use super::answer::Refusal;
use super::faults::{RequestSubject, Verb};

/// The paths that the API server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiRoute {
    Version,
    Healthy,
    CoreVersions,
    CoreResources,
    Groups,
    ReviewResources,
    Review,
    /// The pods of one namespace, or of all.
    Pods(Option<String>),
    Pod(String, String),
    Log(String, String),
    Namespaces,
    Namespace(String),
    Nodes,
    Node(String),
}

impl ApiRoute {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        Some(match parts[..] {
            ["version"] => Self::Version,
            ["healthz" | "livez" | "readyz"] => Self::Healthy,
            ["api"] => Self::CoreVersions,
            ["api", "v1"] => Self::CoreResources,
            ["apis"] => Self::Groups,
            ["apis", "authorization.k8s.io", "v1"] => Self::ReviewResources,
            ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => Self::Review,
            ["api", "v1", "pods"] => Self::Pods(None),
            ["api", "v1", "namespaces", ns, "pods"] => Self::Pods(Some(ns.to_owned())),
            ["api", "v1", "namespaces", ns, "pods", pod] => Self::Pod(ns.to_owned(), pod.to_owned()),
            ["api", "v1", "namespaces", ns, "pods", pod, "log"] => Self::Log(ns.to_owned(), pod.to_owned()),
            ["api", "v1", "namespaces"] => Self::Namespaces,
            ["api", "v1", "namespaces", name] => Self::Namespace(name.to_owned()),
            ["api", "v1", "nodes"] => Self::Nodes,
            ["api", "v1", "nodes", name] => Self::Node(name.to_owned()),
            _ => return None,
        })
    }

    /// The only method that is allowed.
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Review => Method::POST,
            _ => Method::GET,
        }
    }

    /// The subject by which faults and counters know the request.
    pub(super) fn subject(&self, query: &Query) -> RequestSubject {
        let verb = match self {
            Self::Pods(_) if query.flag("watch") => Verb::Watch,
            Self::Pods(_) => Verb::List,
            Self::Pod(..) => Verb::Get,
            Self::Log(..) => Verb::Log,
            _ => Verb::Other,
        };
        let (namespace, pod) = match self {
            Self::Pods(namespace) => (namespace.clone(), None),
            Self::Pod(namespace, pod) | Self::Log(namespace, pod) => (Some(namespace.clone()), Some(pod.clone())),
            _ => (None, None),
        };
        RequestSubject {
            verb,
            namespace,
            pod,
            container: None,
        }
    }
}

/// The query parameters. If a name occurs twice, the first value counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let mut parameters = BTreeMap::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            parameters.entry(key.into_owned()).or_insert_with(|| value.into_owned());
        }
        Self(parameters)
    }

    /// The value of a parameter. An empty value counts as not set.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is true. As in Kubernetes, every value except `false` and `0` is true, also an empty one.
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.0.get(name);
        value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let number = self.text(name).map(str::parse).transpose();
        number
            .map_err(|_| Refusal::bad_request(format!("strconv.ParseInt: parsing {:?}: invalid syntax", self.0[name])))
    }

    /// The requested resource version. `0` means any version.
    pub(super) fn version(&self) -> Result<u64, Refusal> {
        let version = self.text("resourceVersion").unwrap_or("0");
        version
            .parse()
            .map_err(|_| Refusal::bad_request(format!("Invalid value: {version:?}: invalid resource version")))
    }
}

/// Whether the client prefers a table, as kubectl does when it prints.
pub(super) fn wants_table(parts: &request::Parts) -> bool {
    let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.split(',').next().is_some_and(|first| first.contains("as=Table")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_kubernetes_reads_them() {
        let query = Query::parse("a=true&b=false&c=0&d&e=FALSE&f=no");
        let flags = ["a", "b", "c", "d", "e", "f", "g"].map(|name| query.flag(name));
        assert_eq!(flags, [true, false, false, true, false, true, false]);
    }

    #[test]
    fn paths_are_parsed() {
        let log = ApiRoute::parse("/api/v1/namespaces/shop/pods/cart-0/log");
        assert_eq!(log, Some(ApiRoute::Log("shop".into(), "cart-0".into())));
        assert_eq!(ApiRoute::parse("/api/v1/pods"), Some(ApiRoute::Pods(None)));
        assert_eq!(ApiRoute::parse("/apis/apps/v1/deployments"), None);
    }

    #[test]
    fn parameters_are_decoded_and_checked() {
        let query = Query::parse("labelSelector=app%20in%20(a%2Cb)&tailLines=x&limit=3&resourceVersion=0");
        assert_eq!(query.text("labelSelector"), Some("app in (a,b)"));
        assert_eq!(query.number("limit"), Ok(Some(3)));
        assert_eq!(query.number("absent"), Ok(None));
        assert!(query.number("tailLines").is_err());
        assert_eq!(query.version(), Ok(0));
    }
}
