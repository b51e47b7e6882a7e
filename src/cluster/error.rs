//! Why there is no access to the cluster, or why the API server did not do what was requested.
//!
//! Each error says what failed and what to do about it. It repeats what the server or a library said, never what podlog
//! sent, so it holds no secrets.

use std::fmt;
use std::time::Duration;

use crate::domain::Message;

/// Why there is no access to a cluster. Trying again cannot help until a person changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// No kubeconfig, and not in a pod.
    NoCluster(String),
    /// The kubeconfig cannot be read or used.
    Kubeconfig {
        /// The file, or where it was looked for.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The kubeconfig has no such context.
    NoContext {
        /// The file, or where it was looked for.
        file: String,
        /// The context that is set.
        context: String,
        /// The contexts in the file.
        known: String,
    },
    /// The kubeconfig names a proxy, by this host.
    Proxy(String),
    /// The credentials or certificates in the kubeconfig cannot be used.
    Credentials(String),
}

impl AccessError {
    /// What is wrong, and what to do about it.
    #[must_use]
    pub fn message(&self) -> Message {
        match self {
            Self::NoCluster(cause) => Message::new(
                format!("no cluster: {cause}"),
                "set --kubeconfig or KUBECONFIG, or run in a pod with a service account",
            ),
            Self::Kubeconfig { file, cause } => Message::new(
                format!("kubeconfig {file}: {cause}"),
                "check the file, or set another with --kubeconfig",
            ),
            Self::NoContext { file, context, known } => Message::new(
                format!("kubeconfig {file} has no context {context:?} (it has: {known})"),
                "choose one with --context",
            ),
            Self::Proxy(host) => Message::new(
                format!("the kubeconfig sets the proxy {host} (proxy-url), and podlog does not support proxies"),
                "remove proxy-url so that podlog connects directly",
            ),
            Self::Credentials(cause) => Message::new(
                format!("the credentials for the API server cannot be used: {cause}"),
                "check the user's entry in the kubeconfig",
            ),
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

impl std::error::Error for AccessError {}

/// Why the API server did not do what was requested. Variants are named by what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// A right is missing (403). The message names it, and the rule that grants it.
    Forbidden(Message),
    /// The credentials were refused (401).
    Unauthorized(Message),
    /// There is no such object (404).
    NotFound(Message),
    /// The resource version is too old (410): list again.
    Gone,
    /// The server asks to wait (429).
    Throttled {
        /// The shortest time to wait.
        after: Duration,
    },
    /// No answer, or one of 5xx: try again.
    Unavailable(Message),
    /// Another refusal: the same request cannot succeed.
    Rejected(Message),
}

impl ApiError {
    /// What failed, and what to do about it.
    #[must_use]
    pub fn message(&self) -> Message {
        match self {
            Self::Gone => Message::new("the API server no longer has the changes since the last list", ""),
            Self::Throttled { after } => Message::new(format!("the API server asks to wait {} s", after.as_secs()), ""),
            Self::Forbidden(message)
            | Self::Unauthorized(message)
            | Self::NotFound(message)
            | Self::Unavailable(message)
            | Self::Rejected(message) => message.clone(),
        }
    }

    /// No answer, for this reason, without anything to do about it.
    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(Message::new(text, ""))
    }

    /// A request that cannot be made or is refused, without anything to do about it.
    pub(super) fn rejected(text: impl fmt::Display) -> Self {
        Self::Rejected(Message::new(text.to_string(), ""))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

impl std::error::Error for ApiError {}
