//! Why something could not be had from the API server, in words for the people who must mend it.
//!
//! Each message is one line with the thing, the cause and the remedy. Secrets never appear: what
//! the server or the TLS library said is repeated, what was sent is not.

use std::time::Duration;

use kube::client::AuthError;

use super::connect::chain;

/// A request that got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "cannot resolve the API server's name {0}: {1}; check the server address in the kubeconfig and the DNS of this machine"
    )]
    Name(String, String),
    #[error(
        "cannot reach the API server at {0}: connection refused; check that it runs and that the address in the kubeconfig is right"
    )]
    Refused(String),
    #[error(
        "cannot reach the API server at {0}: no connection within 5 s; check the address, the network and firewalls on the way"
    )]
    Slow(String),
    #[error(
        "the certificate of the API server at {0} is not trusted: {1}; give the cluster's CA (certificate-authority in the kubeconfig)"
    )]
    Certificate(String, String),
    #[error(
        "no TLS with the API server at {0}: {1}; check that the address is an https one and the client certificate is valid"
    )]
    Tls(String, String),
    #[error("the connection to the API server at {0} broke: {1}; it is tried again")]
    Lost(String, String),
}

/// Why there is no access to a cluster. Trying again cannot help until a person changes something.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No kubeconfig, and not in a pod.
    #[error("no cluster: {0}; give --kubeconfig or KUBECONFIG, or run in a pod with a service account")]
    Nowhere(String),
    /// The kubeconfig cannot be read or says nothing usable.
    #[error("kubeconfig {file}: {cause}; check the file, or name another with --kubeconfig")]
    Kubeconfig {
        /// The file, or how it was found.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The kubeconfig has no such context.
    #[error("kubeconfig {file} has no context {context:?} (it has: {known}); choose one with --context")]
    Context {
        /// The file, or how it was found.
        file: String,
        /// The context asked for.
        context: String,
        /// The contexts there are.
        known: String,
    },
    /// A proxy stands before the API server.
    #[error(
        "the API server is to be reached through the proxy {0}, which podlog cannot do; unset HTTPS_PROXY (or proxy-url in the kubeconfig) and let it connect directly"
    )]
    Proxy(String),
    /// The credentials or certificates in the kubeconfig cannot be used.
    #[error("the credentials for the API server cannot be used: {0}; check the user's entry in the kubeconfig")]
    Credentials(String),
}

/// Why the API server did not give what was asked for. Variants are named by what the caller does.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// A right is missing; the message says which, and how to grant it.
    #[error("{0}")]
    Forbidden(String),
    /// The credentials were refused (401).
    #[error("{0}")]
    Unauthorized(String),
    /// There is no such thing (404).
    #[error("{0}")]
    NotFound(String),
    /// The resource version asked for is too old (410): list again.
    #[error("the API server no longer has the changes since the last list")]
    Gone,
    /// The server asks for patience (429).
    #[error("the API server asks to wait {} s", after.as_secs())]
    Throttled {
        /// How long to wait at least.
        after: Duration,
    },
    /// No answer, or one of 5xx: try again.
    #[error("{0}")]
    Unavailable(String),
    /// Another refusal: trying the same again cannot help.
    #[error("{0}")]
    Rejected(String),
}

/// What was asked for, for metrics and messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The verb of the metrics: `list`, `watch`, `get`, `log`.
    pub(super) verb: &'static str,
    /// The resource as RBAC names it.
    pub(super) resource: &'static str,
    /// The namespace; `None` is all of them.
    pub(super) namespace: Option<&'a str>,
}

impl Asked<'_> {
    /// The verb as RBAC names it: reading a log is `get` on `pods/log`.
    fn right(&self) -> &'static str {
        if self.verb == "log" { "get" } else { self.verb }
    }

    /// Says which right is missing and the rule that grants all podlog needs.
    pub(super) fn forbidden(&self, said: &str) -> String {
        let who = said
            .split_once("User \"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("this user", |(user, _)| user);
        let (place, remedy) = match self.namespace {
            Some(namespace) => (
                format!("in namespace {namespace}"),
                format!("a Role in namespace {namespace}"),
            ),
            None => ("in all namespaces".to_owned(), "a ClusterRole".to_owned()),
        };
        format!(
            "{who} may not {} {} {place}: grant it by {remedy} with the rules {RULES}",
            self.right(),
            self.resource
        )
    }

    /// What a status other than success means.
    pub(super) fn refused(&self, code: u16, said: &str, after: Option<Duration>) -> ApiError {
        let said = one_line(said);
        match code {
            401 => ApiError::Unauthorized(format!(
                "the API server refused the credentials (401 {said}); renew the token or certificate in the kubeconfig, or check the service account"
            )),
            403 => ApiError::Forbidden(self.forbidden(&said)),
            404 => ApiError::NotFound(format!("the API server knows no such {}: {said}", self.resource)),
            410 => ApiError::Gone,
            429 => ApiError::Throttled {
                after: after.unwrap_or(Duration::from_secs(1)).min(PATIENCE),
            },
            500.. => ApiError::Unavailable(format!(
                "the API server failed to {} {}: {code} {said}",
                self.verb, self.resource
            )),
            _ => ApiError::Rejected(format!(
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
            kube::Error::Service(error) => match (error.downcast_ref::<Failure>(), error.downcast_ref()) {
                (Some(failure), _) => ApiError::Unavailable(failure.to_string()),
                (None, Some(error)) => unauthorized(error),
                (None, None) => ApiError::Unavailable(chain(&*error)),
            },
            // Its words repeat values of the answer, and a pod's environment may hold secrets.
            kube::Error::SerdeError(error) => ApiError::Unavailable(format!(
                "the API server's answer to {} {} cannot be read: {:?} error at line {} column {}; check that the address in the kubeconfig is that of an API server",
                self.verb,
                self.resource,
                error.classify(),
                error.line(),
                error.column()
            )),
            other => ApiError::Unavailable(chain(&other)),
        }
    }
}

fn unauthorized(error: &AuthError) -> ApiError {
    ApiError::Unauthorized(format!(
        "no credentials for the API server: {}; check the user's entry in the kubeconfig",
        no_credentials(error)
    ))
}

/// Why there are no credentials. The command line of an exec plugin, its environment and what it
/// printed may hold secrets, and kube's words repeat them; what it said on its error output is for people.
pub(super) fn no_credentials(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { out, .. } => {
            let said = one_line(&String::from_utf8_lossy(&out.stderr));
            format!("the exec plugin failed ({}): {said}", out.status)
        }
        AuthError::AuthExecParse(_) => "the exec plugin did not print an ExecCredential".into(),
        other => chain(other),
    }
}

/// What podlog needs, in the form that YAML takes on one line.
pub(super) const RULES: &str = r#"[{apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch"]}, {apiGroups: [""], resources: ["pods/log"], verbs: ["get"]}]"#;

/// The rule that grants one right, in the form that YAML takes on one line.
#[must_use]
pub fn rule(verb: &str, resource: &str) -> String {
    format!(r#"- {{apiGroups: [""], resources: ["{resource}"], verbs: ["{verb}"]}}"#)
}

/// Text from elsewhere on one line of bounded length, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let line = text.trim().chars().take(400);
    line.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The longest that a server is obeyed that asks for patience. One that asks for years is out of its mind, and its
/// pods would be forgotten.
const PATIENCE: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_named_with_the_rule_that_grants_it() {
        let asked = Asked {
            verb: "log",
            resource: "pods/log",
            namespace: Some("shop"),
        };
        let said = r#"pods "a" is forbidden: User "system:serviceaccount:shop:podlog" cannot get resource "pods/log""#;
        let ApiError::Forbidden(text) = asked.refused(403, said, None) else {
            panic!("not a missing right")
        };
        assert!(text.starts_with(
            "system:serviceaccount:shop:podlog may not get pods/log in namespace shop: grant it by a Role"
        ));
        assert!(
            text.contains(r#"resources: ["pods/log"], verbs: ["get"]"#) && !text.contains('\n'),
            "{text}"
        );
        let everywhere = Asked {
            verb: "watch",
            resource: "pods",
            namespace: None,
        }
        .forbidden("");
        assert!(everywhere.starts_with("this user may not watch pods in all namespaces: grant it by a ClusterRole"));
    }

    #[test]
    fn statuses_are_told_apart_by_what_to_do_about_them() {
        let asked = Asked {
            verb: "list",
            resource: "pods",
            namespace: None,
        };
        assert!(matches!(asked.refused(401, "", None), ApiError::Unauthorized(_)));
        assert!(matches!(asked.refused(410, "", None), ApiError::Gone));
        let ApiError::Throttled { after } = asked.refused(429, "", Some(Duration::from_secs(7))) else {
            panic!()
        };
        assert_eq!(after, Duration::from_secs(7));
        let ApiError::Throttled { after } = asked.refused(429, "", Some(Duration::from_secs(u64::MAX))) else {
            panic!()
        };
        assert_eq!(after, PATIENCE);
        assert!(matches!(asked.refused(503, "", None), ApiError::Unavailable(_)));
        assert!(matches!(asked.refused(422, "", None), ApiError::Rejected(_)));
    }
}
