//! What a replica shows over HTTP: a snapshot of its work, its health, its readiness and its metrics.
//!
//! The collector publishes [`Status`] values. Nothing here asks the collector for anything or changes what it does.

pub mod health;
pub mod ready;
pub mod server;

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::domain::{Fence, PodUid, ReplicaId, Time};

/// A replica's work at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This replica.
    pub replica: ReplicaId,
    /// The cluster it collects.
    pub cluster: Arc<str>,
    /// The program's version.
    pub version: &'static str,
    /// When it started.
    #[serde(serialize_with = "rfc3339")]
    pub started: Time,
    /// When this snapshot was made.
    #[serde(serialize_with = "rfc3339")]
    pub at: Time,
    /// The replicas that are alive, as of the last read of the claims.
    pub replicas: Vec<ReplicaId>,
    /// The namespaces whose pods cannot be listed now.
    pub namespaces_unlisted: Vec<UnlistedStatus>,
    /// The pods this replica knows, held by any replica.
    pub pods: Vec<PodStatus>,
}

impl Status {
    /// The status of a replica that has just started.
    #[must_use]
    pub fn new(replica: ReplicaId, cluster: Arc<str>, started: Time) -> Self {
        Self {
            replica,
            cluster,
            version: env!("CARGO_PKG_VERSION"),
            started,
            at: started,
            replicas: Vec::new(),
            namespaces_unlisted: Vec::new(),
            pods: Vec::new(),
        }
    }
}

/// A namespace whose pods cannot be listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnlistedStatus {
    /// The namespace; none if all namespaces are listed together.
    pub namespace: Option<Arc<str>>,
    /// The `reason` of the metric `podlog_namespaces_unlisted`.
    pub reason: &'static str,
    /// What was said, and what to do about it.
    pub message: String,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub since: Time,
}

/// One pod as this replica knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodStatus {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The pod's identity.
    pub uid: PodUid,
    /// The replica that holds it, as of the last read of the claims.
    pub holder: Option<ReplicaId>,
    /// The fence of its latest claim.
    pub fence: Fence,
    /// Milliseconds until the claim expires, as of the last read of the claims; negative after that.
    pub expires_in_ms: i64,
    /// Whether the pod has ended and is collected to its end.
    pub finished: bool,
    /// How far its streams are stored, and which are not read, if this replica holds the pod.
    pub streams: Vec<StreamStatus>,
}

/// How far one stream is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// The container's name.
    pub container: Arc<str>,
    /// The ID of the container instance; empty if none of the container was read yet.
    pub container_id: Arc<str>,
    /// `followed`, `finished` or `unread`.
    pub state: &'static str,
    /// Why it is unread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<UnreadStatus>,
    /// The timestamp of the last stored line.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub position: Option<Time>,
}

/// Why a stream is not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadStatus {
    /// The `reason` of the metric `podlog_streams_unread`.
    pub reason: &'static str,
    /// What was said, and what to do about it.
    pub message: String,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub since: Time,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference to the field"
)]
fn rfc3339<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn maybe_rfc3339<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}
