//! Why a log is not read, and where a reason is to be looked for.
//!
//! Values only.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Pod;

/// A reason that passes by itself within seconds, such as a kubelet that restarts, is not worth a warning before this.
const SHORT: Duration = Duration::from_secs(10);

/// The time in which the API server and a kubelet come to agree on a container that has just started.
const START: Duration = Duration::from_secs(30);

/// Why a log is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnreadReason {
    /// The API server does not answer, fails, or refuses the credentials, or the connection to it breaks.
    ApiServer,
    /// The API server asks to be called less often.
    Throttled,
    /// podlog lacks a right.
    Forbidden,
    /// Something between podlog and the API server answered instead.
    Proxy,
    /// The API server cannot reach the kubelet.
    KubeletUnreachable,
    /// The kubelet refuses the API server.
    KubeletRefused,
    /// The kubelet cannot serve the log.
    KubeletFailed,
    /// The kubelet says that there is no such log, although the pod's status shows one.
    NoLog,
    /// The log has no timestamps.
    NoTimestamps,
    /// Streams of the log end at once, so it is only read from time to time.
    NotFollowed,
    /// The pod's status shows that the container runs, but not the ID of the instance.
    NoContainerId,
    /// The checkpoint names a later instance than the one that runs.
    LaterInstanceStored,
}

impl UnreadReason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::ApiServer,
        Self::Throttled,
        Self::Forbidden,
        Self::Proxy,
        Self::KubeletUnreachable,
        Self::KubeletRefused,
        Self::KubeletFailed,
        Self::NoLog,
        Self::NoTimestamps,
        Self::NotFollowed,
        Self::NoContainerId,
        Self::LaterInstanceStored,
    ];

    /// The `reason` of the metric `podlog_streams_unread` and of `/status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "api_server",
            Self::Throttled => "throttled",
            Self::Forbidden => "forbidden",
            Self::Proxy => "proxy",
            Self::KubeletUnreachable => "kubelet_unreachable",
            Self::KubeletRefused => "kubelet_refused",
            Self::KubeletFailed => "kubelet_failed",
            Self::NoLog => "no_log",
            Self::NoTimestamps => "no_timestamps",
            Self::NotFollowed => "not_followed",
            Self::NoContainerId => "no_container_id",
            Self::LaterInstanceStored => "later_instance_stored",
        }
    }

    /// How long a log must be unread before it is worth a warning.
    #[must_use]
    pub fn patience(self) -> Duration {
        match self {
            Self::Forbidden | Self::KubeletRefused => Duration::ZERO,
            Self::ApiServer
            | Self::Throttled
            | Self::Proxy
            | Self::KubeletUnreachable
            | Self::KubeletFailed
            | Self::NoTimestamps
            | Self::NotFollowed => SHORT,
            Self::NoLog | Self::NoContainerId | Self::LaterInstanceStored => START,
        }
    }

    /// Where the cause is to be looked for when this pod is not read. Logs of one place share a warning.
    #[must_use]
    pub fn place(self, pod: &Pod) -> Place {
        match self {
            Self::ApiServer | Self::Throttled | Self::Proxy => Place::ApiServer,
            Self::Forbidden => Place::Namespace(pod.namespace.clone()),
            Self::KubeletUnreachable
            | Self::KubeletRefused
            | Self::KubeletFailed
            | Self::NoLog
            | Self::NoTimestamps
            | Self::NotFollowed
            | Self::NoContainerId => Place::Node(pod.node.clone().unwrap_or_default()),
            Self::LaterInstanceStored => Place::Pod(pod.namespace.clone(), pod.name.clone()),
        }
    }
}

/// Where the cause of unread logs is to be looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The API server.
    ApiServer,
    /// One namespace.
    Namespace(Arc<str>),
    /// One node.
    Node(Arc<str>),
    /// One pod, by namespace and name.
    Pod(Arc<str>, Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiServer => f.write_str("the API server"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Node(name) if name.is_empty() => f.write_str("no node"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Pod(namespace, name) => write!(f, "pod {namespace}/{name}"),
        }
    }
}
