//! The token and the permissions of the caller. The caller has every permission that is not revoked. Requests with another
//! token or without permission are refused, and access reviews say which permissions there are.

use std::collections::BTreeSet;
use std::sync::Mutex;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::answer::Refusal;
use super::faults::{RequestSubject, Verb};
use super::sync::lock;

/// A permission to revoke: a verb, a resource such as `pods/log`, and a namespace, or `None` for all namespaces.
type Right = (String, String, Option<String>);

#[derive(Debug, Default)]
pub(super) struct Rights {
    taken: Mutex<BTreeSet<Right>>,
    /// The token that every request must have; `None` lets any request pass.
    token: Mutex<Option<String>>,
}

impl Rights {
    pub(super) fn require_token(&self, token: &str) {
        *lock(&self.token) = Some(token.to_owned());
    }

    /// Refuses a request without the token.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = lock(&self.token);
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match &*token {
            Some(token) if sent != Some(&format!("Bearer {token}")) => {
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn change(&self, right: Right, taken: bool) {
        let mut all = lock(&self.taken);
        if taken {
            all.insert(right);
        } else {
            all.remove(&right);
        }
    }

    fn has(&self, verb: &str, resource: &str, namespace: Option<&str>) -> bool {
        let taken = lock(&self.taken);
        let meant = |(v, r, n): &Right| v == verb && r == resource && (n.is_none() || n.as_deref() == namespace);
        !taken.iter().any(meant)
    }

    /// Refuses a request whose permission is revoked.
    pub(super) fn authorize(&self, subject: &RequestSubject) -> Result<(), Refusal> {
        let (verb, resource) = match subject.verb {
            Verb::List => ("list", "pods"),
            Verb::Watch => ("watch", "pods"),
            Verb::Get => ("get", "pods"),
            Verb::Log => ("get", "pods/log"),
            Verb::Other => return Ok(()),
        };
        if self.has(verb, resource, subject.namespace.as_deref()) {
            return Ok(());
        }
        let message = format!(r#"pods is forbidden: User "sim" cannot {verb} resource "{resource}" in API group """#);
        Err(Refusal::new(StatusCode::FORBIDDEN, message))
    }

    /// Whether the caller has the permission that an access review asks about. The answer to a review that cannot be
    /// read is yes.
    pub(super) fn is_allowed(&self, review: &Value) -> bool {
        let asked = &review["spec"]["resourceAttributes"];
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let resource = match text("subresource") {
            "" => text("resource").to_owned(),
            sub => format!("{}/{sub}", text("resource")),
        };
        let namespace = Some(text("namespace")).filter(|name| !name.is_empty());
        self.has(text("verb"), &resource, namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_that_is_revoked_in_one_namespace_remains_in_another() {
        let rights = Rights::default();
        let right = || ("get".to_owned(), "pods/log".to_owned(), Some("shop".to_owned()));
        rights.change(right(), true);
        assert!(!rights.has("get", "pods/log", Some("shop")));
        assert!(rights.has("get", "pods/log", Some("other")) && rights.has("get", "pods", Some("shop")));
        let review = serde_json::json!({"spec": {"resourceAttributes":
            {"verb": "get", "resource": "pods", "subresource": "log", "namespace": "shop"}}});
        assert!(!rights.is_allowed(&review));
        rights.change(right(), false);
        assert!(rights.is_allowed(&review));
    }

    #[test]
    fn a_request_without_the_token_is_refused() {
        let rights = Rights::default();
        let sent = |token: &str| HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())]);
        assert!(rights.authenticate(&HeaderMap::new()).is_ok(), "none is required");
        rights.require_token("second");
        assert!(rights.authenticate(&sent("second")).is_ok());
        for headers in [sent("first"), HeaderMap::new()] {
            assert!(rights.authenticate(&headers).is_err(), "{headers:?}");
        }
    }
}
