//! A request to the API server as metrics and messages name it, and what each failure of it means.
//!
//! Nothing here sends a request.

use std::time::Duration;

use kube::client::AuthError;

use super::connect::ConnectError;
use super::error::ApiError;
use super::text::{error_chain, one_line};
use crate::domain::Message;

/// The longest wait that a server is obeyed in. A server that asks for years is faulty, and its pods would be forgotten.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The rights podlog needs, as YAML on one line.
const RULES: &str = r#"[{apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch"]}, {apiGroups: [""], resources: ["pods/log"], verbs: ["get"]}]"#;

/// The rule that grants one right, as YAML on one line.
#[must_use]
pub fn rule(verb: &str, resource: &str) -> String {
    format!(r#"- {{apiGroups: [""], resources: ["{resource}"], verbs: ["{verb}"]}}"#)
}

/// A request to the API server, as metrics and messages name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation<'a> {
    /// The verb in the metrics: `list`, `watch`, `get`, `create` or `log`.
    pub(super) verb: &'static str,
    /// The resource as RBAC names it.
    pub(super) resource: &'static str,
    /// The namespace; `None` is all of them.
    pub(super) namespace: Option<&'a str>,
}

impl Operation<'_> {
    /// The verb as RBAC names it: reading a log is `get` on `pods/log`.
    fn rbac_verb(&self) -> &'static str {
        if self.verb == "log" { "get" } else { self.verb }
    }

    /// The right is missing. `said` is the server's message, which may name the user.
    pub(super) fn forbidden(&self, said: &str) -> ApiError {
        let user = said
            .split_once("User \"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("this user", |(user, _)| user);
        let (scope, role) = match self.namespace {
            Some(namespace) => (
                format!("in namespace {namespace}"),
                format!("a Role in namespace {namespace}"),
            ),
            None => ("in all namespaces".to_owned(), "a ClusterRole".to_owned()),
        };
        ApiError::Forbidden(Message::new(
            format!("{user} may not {} {} {scope}", self.rbac_verb(), self.resource),
            format!("grant it by {role} with the rules {RULES}"),
        ))
    }

    /// What a status other than success means.
    pub(super) fn refused(&self, code: u16, said: &str, after: Option<Duration>) -> ApiError {
        let said = one_line(said);
        match code {
            401 => ApiError::Unauthorized(Message::new(
                format!("the API server refused the credentials (401 {said})"),
                "renew the token or certificate in the kubeconfig, or check the service account",
            )),
            403 => self.forbidden(&said),
            404 => {
                let text = format!("the API server knows no such {}: {said}", self.resource);
                ApiError::NotFound(Message::new(text, ""))
            }
            410 => ApiError::Gone,
            429 => ApiError::Throttled {
                after: after.unwrap_or(Duration::from_secs(1)).min(LONGEST_WAIT),
            },
            500.. => ApiError::unavailable(format!(
                "the API server failed to {} {}: {code} {said}",
                self.verb, self.resource
            )),
            _ => ApiError::rejected(format!(
                "the API server refused to {} {}: {code} {said}",
                self.verb, self.resource
            )),
        }
    }

    /// What an error of the kube client means.
    pub(super) fn failed(&self, error: kube::Error) -> ApiError {
        match error {
            kube::Error::Api(status) => {
                let after = status
                    .details
                    .as_ref()
                    .map(|d| d.retry_after_seconds)
                    .filter(|s| *s > 0);
                self.refused(
                    status.code,
                    &status.message,
                    after.map(|s| Duration::from_secs(s.into())),
                )
            }
            kube::Error::Auth(error) => unauthorized(&error),
            kube::Error::Service(error) => match (error.downcast_ref::<ConnectError>(), error.downcast_ref()) {
                (Some(error), _) => ApiError::Unavailable(error.message()),
                (None, Some(error)) => unauthorized(error),
                (None, None) => ApiError::unavailable(error_chain(&*error)),
            },
            // Its text repeats values of the answer, and a pod's environment may hold secrets.
            kube::Error::SerdeError(error) => ApiError::Unavailable(Message::new(
                format!(
                    "the API server's answer to {} {} cannot be read: {:?} error at line {} column {}",
                    self.verb,
                    self.resource,
                    error.classify(),
                    error.line(),
                    error.column()
                ),
                "check that the address in the kubeconfig is that of an API server",
            )),
            other => ApiError::unavailable(error_chain(&other)),
        }
    }
}

fn unauthorized(error: &AuthError) -> ApiError {
    ApiError::Unauthorized(Message::new(
        format!("no credentials for the API server: {}", no_credentials(error)),
        "check the user's entry in the kubeconfig",
    ))
}

/// Why there are no credentials. The command line of an exec plugin, its environment and its standard output may hold
/// secrets, and kube's text repeats them. Its standard error is written for people, so it is repeated.
pub(super) fn no_credentials(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { out, .. } => {
            let said = one_line(&String::from_utf8_lossy(&out.stderr));
            format!("the exec plugin failed ({}): {said}", out.status)
        }
        AuthError::AuthExecParse(_) => "the exec plugin did not print an ExecCredential".into(),
        other => error_chain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named_with_the_rule_that_grants_it() {
        let operation = Operation {
            verb: "log",
            resource: "pods/log",
            namespace: Some("shop"),
        };
        let said = r#"pods "a" is forbidden: User "system:serviceaccount:shop:podlog" cannot get resource "pods/log""#;
        let ApiError::Forbidden(message) = operation.refused(403, said, None) else {
            panic!("not a missing right")
        };
        assert_eq!(
            message.text,
            "system:serviceaccount:shop:podlog may not get pods/log in namespace shop"
        );
        assert!(
            message.remedy.starts_with("grant it by a Role in namespace shop")
                && message.remedy.contains(r#"resources: ["pods/log"], verbs: ["get"]"#)
                && !message.remedy.contains('\n'),
            "{message}"
        );
        let everywhere = Operation {
            verb: "watch",
            resource: "pods",
            namespace: None,
        };
        let text = everywhere.forbidden("").to_string();
        assert!(
            text.starts_with("this user may not watch pods in all namespaces; grant it by a ClusterRole"),
            "{text}"
        );
    }

    #[test]
    fn each_status_becomes_the_error_that_tells_the_caller_what_to_do() {
        let operation = Operation {
            verb: "list",
            resource: "pods",
            namespace: None,
        };
        assert!(matches!(operation.refused(401, "", None), ApiError::Unauthorized(_)));
        assert!(matches!(operation.refused(404, "", None), ApiError::NotFound(_)));
        assert_eq!(operation.refused(410, "", None), ApiError::Gone);
        let throttled = |seconds| operation.refused(429, "", Some(Duration::from_secs(seconds)));
        let after = Duration::from_secs(7);
        assert_eq!(throttled(7), ApiError::Throttled { after });
        let after = LONGEST_WAIT;
        assert_eq!(throttled(u64::MAX), ApiError::Throttled { after });
        assert!(matches!(operation.refused(503, "", None), ApiError::Unavailable(_)));
        assert!(matches!(operation.refused(422, "", None), ApiError::Rejected(_)));
    }

    #[test]
    fn every_failure_of_a_connection_names_the_server_and_has_a_remedy() {
        let (address, cause) = ("k8s:6443".to_owned(), "cause".to_owned());
        let operation = Operation {
            verb: "get",
            resource: "version",
            namespace: None,
        };
        for error in [
            ConnectError::Lookup {
                host: address.clone(),
                cause: cause.clone(),
            },
            ConnectError::Refused {
                address: address.clone(),
            },
            ConnectError::TimedOut {
                address: address.clone(),
            },
            ConnectError::Certificate {
                address: address.clone(),
                cause: cause.clone(),
            },
            ConnectError::Tls {
                address: address.clone(),
                cause: cause.clone(),
            },
            ConnectError::Broken { address, cause },
        ] {
            let ApiError::Unavailable(message) = operation.failed(kube::Error::Service(Box::new(error))) else {
                panic!("a connection may succeed later")
            };
            assert!(
                message.text.contains("k8s:6443") && !message.remedy.is_empty(),
                "{message}"
            );
        }
    }
}
