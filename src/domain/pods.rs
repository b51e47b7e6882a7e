//! What is collected: pods, their containers and the instances of containers.
//!
//! A [`Pod`] has only what collecting needs, so that ten thousand pods take tens of megabytes. It is a value that can be
//! compared; it never asks the API server for anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{ContainerId, PodUid};
use super::listings::Listings;
use super::time::Time;

/// One pod. A pod that is created again under the same name is another pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its identity.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name. Another pod may have the same name at another time.
    pub name: Arc<str>,
    /// The node it runs on, once it is scheduled.
    pub node: Option<Arc<str>>,
    /// Its labels, which records carry.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether its containers have started or ended.
    pub phase: Phase,
    /// Whether the pod is deleted: the object does not exist any more and its log cannot be read.
    pub deleted: bool,
    /// The containers to collect: init, sidecar, app and ephemeral ones.
    pub containers: Vec<Container>,
}

impl Pod {
    /// The container of this name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| &*c.name == name)
    }

    /// Whether no container will ever run again.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.deleted || self.phase == Phase::Ended
    }

    /// Whether a container has ever run, so that there is something to read.
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.containers
            .iter()
            .any(|c| c.previous.is_some() || c.state.instance().is_some())
    }
}

/// The phase of a pod, as far as collecting needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have started.
    Pending,
    /// At least one container runs or will run again.
    Running,
    /// Succeeded or failed: no container will run again.
    Ended,
}

/// One container of a pod, with the instance that runs and the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name in the pod.
    pub name: Arc<str>,
    /// Whether an instance runs now.
    pub state: ContainerState,
    /// The instance before the present one; it has ended. The kubelet keeps the logs of no earlier one.
    pub previous: Option<Instance>,
}

/// Whether an instance of a container runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started, or between two instances.
    Waiting,
    /// An instance runs.
    Running(Instance),
    /// An instance runs, but the status does not say which.
    RunningWithoutId,
    /// The instance has ended.
    Terminated(Instance),
}

impl ContainerState {
    /// The present instance, running or ended.
    #[must_use]
    pub fn instance(&self) -> Option<&Instance> {
        match self {
            Self::Waiting | Self::RunningWithoutId => None,
            Self::Running(instance) | Self::Terminated(instance) => Some(instance),
        }
    }
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The runtime's ID.
    pub id: ContainerId,
    /// How many instances came before it.
    pub restart_count: u32,
    /// The time at which it started, in whole seconds, as the API says.
    pub started: Option<Time>,
}

/// The pods that match the selection, as far as they have been listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSet {
    /// The pods by UID.
    pub pods: BTreeMap<PodUid, Arc<Pod>>,
    /// Which namespaces have been listed.
    pub listings: Listings,
}
