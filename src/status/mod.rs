//! What outsiders may see of a replica: a snapshot of its work, its health, its readiness, its metrics.
//!
//! The collector publishes [`Status`] values; nothing here asks the collector anything or changes
//! what it does.

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
    /// The replicas that are alive, as last seen.
    pub replicas: Vec<ReplicaId>,
    /// The pods that are known here, whoever holds them.
    pub pods: Vec<PodStatus>,
}

impl Status {
    /// The status of a replica that has seen nothing yet.
    #[must_use]
    pub fn new(replica: ReplicaId, cluster: Arc<str>, started: Time) -> Self {
        Self {
            replica,
            cluster,
            version: env!("CARGO_PKG_VERSION"),
            started,
            at: started,
            replicas: Vec::new(),
            pods: Vec::new(),
        }
    }
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
    /// Who holds it, as last seen.
    pub holder: Option<ReplicaId>,
    /// The number of its latest claim.
    pub fence: Fence,
    /// Milliseconds until the claim expires, as last seen; negative when it has.
    pub expires_in_ms: i64,
    /// Whether it is done with.
    pub finished: bool,
    /// How far its streams have been stored, when held here.
    pub streams: Vec<StreamStatus>,
}

/// How far one stream has been stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// The container's name.
    pub container: Arc<str>,
    /// The container instance.
    pub container_id: Arc<str>,
    /// What is being done about it, in a word or two.
    pub state: &'static str,
    /// The timestamp of the last stored line.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub position: Option<Time>,
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
