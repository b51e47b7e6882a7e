//! Converts a pod of the API into the few fields that collection needs.
//!
//! Pure, except for a warning about impossible pods. The API's object is some 20 KB in memory and is dropped here. The
//! result shares its strings with the other pods, most of which have the same labels, containers and nodes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ContainerState as ApiContainerState, ContainerStatus, Pod as ApiPod, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;

use super::select::{Selection, wants_container};
use super::text::one_line;
use crate::domain::{Container, ContainerId, ContainerState, Instance, Phase, Pod, PodUid, Time};

/// Strings that occur in many pods, stored once for as long as a pod uses them.
#[derive(Debug, Default)]
pub(super) struct SharedNames {
    names: HashSet<Arc<str>>,
    /// The number of strings at which the unused ones are dropped.
    limit: usize,
}

/// Below this number of strings, which take some 50 KB, unused ones are not looked for.
const FEW_NAMES: usize = 1024;

impl SharedNames {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return Arc::clone(known);
        }
        if self.names.len() >= self.limit.max(FEW_NAMES) {
            self.drop_unused();
        }
        let new: Arc<str> = text.into();
        self.names.insert(Arc::clone(&new));
        new
    }

    /// Drops the strings that no pod uses any more. It looks at all of them, so it is called again only when there are
    /// twice as many as are used now.
    fn drop_unused(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
        self.limit = self.names.len() * 2;
        self.names.shrink_to(self.limit);
    }
}

/// The longest UID, container name and container ID, in bytes: the width of their columns at the database sinks.
/// Kubernetes has UIDs of 36, names of at most 63 and IDs of 64.
const UID: usize = 64;
const CONTAINER: usize = 128;
/// The longest name of an object in Kubernetes.
const NAME: usize = 253;

/// Whether this may stand in paths, keys and lines of text: visible ASCII of some length, without a slash.
fn is_name(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

/// What is kept of a pod; `None` for a pod without a UID or with impossible names, which the API server never sends. One
/// such pod would make the database refuse a whole batch of claims.
pub(super) fn convert(pod: ApiPod, names: &mut SharedNames) -> Option<Pod> {
    let meta = pod.metadata;
    let uid = PodUid::from(meta.uid.filter(|uid| is_name(uid, UID))?);
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let labels = meta.labels.unwrap_or_default();
    let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| (names.share(k), names.share(v))).collect();
    let mut containers = Vec::new();
    for name in named(&spec) {
        if is_name(name, CONTAINER) && wants_container(meta.annotations.as_ref(), name) {
            containers.push(container(name, &status, names));
        }
    }
    containers.shrink_to_fit();
    Some(Pod {
        uid,
        namespace: names.share(meta.namespace.as_deref().filter(|name| is_name(name, NAME))?),
        name: meta.name.filter(|name| is_name(name, NAME))?.into(),
        node: spec
            .node_name
            .as_deref()
            .filter(|node| is_name(node, NAME))
            .map(|node| names.share(node)),
        labels,
        phase: phase(&status),
        deleted: false,
        containers,
    })
}

/// The pod, if it is selected. Warns about a selected pod that cannot be converted.
pub(super) fn convert_selected(selection: &Selection, pod: ApiPod, names: &mut SharedNames) -> Option<Pod> {
    let meta = &pod.metadata;
    if !selection.wants(meta.labels.as_ref(), meta.annotations.as_ref()) {
        return None;
    }
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    let pod = convert(pod, names);
    if pod.is_none() {
        tracing::warn!(
            namespace = one_line(&namespace.unwrap_or_default()),
            pod = one_line(&name.unwrap_or_default()),
            "the API server shows a pod whose names or UID are impossible; it is ignored"
        );
    }
    pod
}

/// The pod in this JSON as discovery keeps it; `None` when it is not a pod, is not selected, or has impossible names.
/// Discovery reads each pod of a list or an event like this; tests use it to try any input.
#[must_use]
pub fn pod_from_json(json: &[u8], selection: &Selection) -> Option<Pod> {
    let pod: ApiPod = serde_json::from_slice(json).ok()?;
    convert_selected(selection, pod, &mut SharedNames::default())
}

/// The containers in the order in which they start.
fn named(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let init = spec.init_containers.iter().flatten().map(|c| c.name.as_str());
    let app = spec.containers.iter().map(|c| c.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    init.chain(app).chain(ephemeral.map(|c| c.name.as_str()))
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let all = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    all.into_iter().flatten().flatten()
}

/// `Failed` may be reported while containers are still ending (a lost node, older kubelets), so a pod has ended only
/// when no container runs either.
fn phase(status: &PodStatus) -> Phase {
    let runs = |c: &ContainerStatus| c.state.as_ref().is_some_and(|state| state.running.is_some());
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") if !statuses(status).any(runs) => Phase::Ended,
        None | Some("Pending") => Phase::Pending,
        _ => Phase::Running,
    }
}

fn container(name: &str, status: &PodStatus, names: &mut SharedNames) -> Container {
    let found = statuses(status).find(|c| c.name == name);
    let (state, previous) = found.map_or((ContainerState::Waiting, None), |c| (state(c), previous(c)));
    Container {
        name: names.share(name),
        state,
        previous,
    }
}

fn state(c: &ContainerStatus) -> ContainerState {
    let Some(now) = &c.state else {
        return ContainerState::Waiting;
    };
    let restart_count = c.restart_count.max(0) as u32;
    if let Some(running) = &now.running {
        let instance = instance(c.container_id.as_deref(), restart_count, running.started_at.as_ref());
        return instance.map_or(ContainerState::RunningWithoutId, ContainerState::Running);
    }
    // A container that was terminated before it started has no ID and no log.
    terminated(now, restart_count).map_or(ContainerState::Waiting, ContainerState::Terminated)
}

/// The previous instance. The kubelet's `restartCount` is the number of the latest instance that was created: 0 for the
/// first. While that instance runs or is terminated, the previous one has one less. Between two instances
/// (`CrashLoopBackOff`) the kubelet moves the terminated instance to `lastState` and keeps the count and the container ID
/// until the next instance is created. Then `lastState` has the count itself, which is also the number of its log file.
/// Observed on a 1.36 kubelet: terminated 1 (last 0), waiting 1 (last 1), running 2 (last 1).
fn previous(c: &ContainerStatus) -> Option<Instance> {
    let before = c.last_state.as_ref()?;
    let count = c.restart_count.max(0) as u32;
    let id = before.terminated.as_ref()?.container_id.as_ref();
    let waits = c
        .state
        .as_ref()
        .is_none_or(|now| now.running.is_none() && now.terminated.is_none());
    let latest = waits && id.is_some() && id == c.container_id.as_ref();
    terminated(before, if latest { count } else { count.saturating_sub(1) })
}

fn terminated(state: &ApiContainerState, restart_count: u32) -> Option<Instance> {
    let ended = state.terminated.as_ref()?;
    instance(ended.container_id.as_deref(), restart_count, ended.started_at.as_ref())
}

fn instance(id: Option<&str>, restart_count: u32, started: Option<&ApiTime>) -> Option<Instance> {
    let id = id?;
    let bare = id.split_once("://").map_or(id, |(_, bare)| bare);
    is_name(bare, CONTAINER).then(|| Instance {
        id: ContainerId::from(bare),
        restart_count,
        started: started
            .and_then(|time| i64::try_from(time.0.as_nanosecond()).ok())
            .map(Time),
    })
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
