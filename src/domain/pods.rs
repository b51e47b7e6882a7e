//! What there is to collect: pods, their containers and the instances that ran in them.
//!
//! A [`Pod`] keeps only what collection needs, so that ten thousand of them cost tens of
//! megabytes. It is a value: two sets of pods compare equal or they do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{ContainerId, PodUid};
use super::time::Time;

/// One pod incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its identity.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name; another incarnation may have the same.
    pub name: Arc<str>,
    /// The node it runs on, once it is scheduled.
    pub node: Option<Arc<str>>,
    /// Its labels, which records carry.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Where it is in its life.
    pub phase: Phase,
    /// The object no longer exists in the API. Its log cannot be asked for any more.
    pub gone: bool,
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
    pub fn is_over(&self) -> bool {
        self.gone || self.phase == Phase::Ended
    }

    /// Whether a container has ever run, so that there is something to read.
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.containers
            .iter()
            .any(|c| c.last.is_some() || c.state.instance().is_some())
    }
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted, not all containers have started.
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
    /// What it does now.
    pub state: State,
    /// The instance before the present one; it has ended. Only this one is kept by the kubelet.
    pub last: Option<Instance>,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started, or between two instances.
    Waiting,
    /// An instance runs.
    Running(Instance),
    /// The instance has ended.
    Terminated(Instance),
}

impl State {
    /// The present instance, running or ended.
    #[must_use]
    pub fn instance(&self) -> Option<&Instance> {
        match self {
            Self::Waiting => None,
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
    pub restart: u32,
    /// When it started, to the second, as the API says.
    pub started: Option<Time>,
}

/// All pods that match the selection, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSet {
    /// The pods by UID.
    pub pods: BTreeMap<PodUid, Arc<Pod>>,
    /// Whether every namespace has been listed, so that a missing pod is a pod that is gone.
    pub complete: bool,
}
