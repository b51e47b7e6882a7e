//! The live state of pods and containers, and the rules by which the states of containers determine the phase of a pod.
//! [`published`](super::published) has what the API shows of it. Plain values, without locks, I/O or a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::files::Log;

/// The kinds of container that a pod can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerKind {
    /// An init container, which ends before the app containers start.
    Init,
    /// A sidecar: an init container with `restartPolicy: Always`, which keeps running.
    Sidecar,
    /// An ordinary container.
    App,
    /// Added to a running pod for debugging.
    Ephemeral,
}

/// When the kubelet restarts containers. The simulated cluster never restarts a container by itself. The policy only
/// decides the phase of a pod whose containers have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always: the policy of pods of a Deployment.
    Always,
    /// Only after a failure.
    OnFailure,
    /// Never: the policy of many Jobs.
    Never,
}

impl RestartPolicy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

/// A pod to create. Without a node it is not scheduled.
#[derive(Debug, Clone)]
pub struct PodSpec {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) owner: Option<(String, String)>,
    pub(super) restart_policy: RestartPolicy,
    pub(super) containers: Vec<(String, ContainerKind)>,
}

impl PodSpec {
    /// A pod without containers, node, labels or owner.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            node: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            owner: None,
            restart_policy: RestartPolicy::Always,
            containers: Vec::new(),
        }
    }

    /// Scheduled to this node.
    #[must_use]
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// With one more annotation.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// With a controller of this kind and name, for example a `ReplicaSet`.
    #[must_use]
    pub fn owner(mut self, kind: impl Into<String>, name: impl Into<String>) -> Self {
        self.owner = Some((kind.into(), name.into()));
        self
    }

    /// With this restart policy instead of `Always`.
    #[must_use]
    pub fn restart_policy(mut self, policy: RestartPolicy) -> Self {
        self.restart_policy = policy;
        self
    }

    /// With one more container, waiting to be started.
    #[must_use]
    pub fn container(mut self, kind: ContainerKind, name: impl Into<String>) -> Self {
        self.containers.push((name.into(), kind));
        self
    }

    /// With one more ordinary container.
    #[must_use]
    pub fn app(self, name: impl Into<String>) -> Self {
        self.container(ContainerKind::App, name)
    }
}

/// How a container instance ended.
#[derive(Debug, Clone)]
pub(super) struct Termination {
    pub(super) code: i32,
    pub(super) started: i64,
    pub(super) finished: i64,
    pub(super) log: Arc<Log>,
}

/// Whether a container waits, runs or has ended.
#[derive(Debug, Clone)]
pub(super) enum RunState {
    Waiting { reason: String },
    Running { since: i64, log: Arc<Log> },
    Terminated(Termination),
}

#[derive(Debug, Clone)]
pub(super) struct LiveContainer {
    pub(super) name: String,
    pub(super) kind: ContainerKind,
    pub(super) state: RunState,
    /// How the instance before the present state ended. The kubelet keeps the log of this one ended instance.
    pub(super) last: Option<Termination>,
    pub(super) restart_count: u32,
}

impl LiveContainer {
    pub(super) fn new(name: String, kind: ContainerKind) -> Self {
        let reason = if kind == ContainerKind::App {
            "ContainerCreating"
        } else {
            "PodInitializing"
        };
        Self {
            name,
            kind,
            state: RunState::Waiting {
                reason: reason.to_owned(),
            },
            last: None,
            restart_count: 0,
        }
    }

    pub(super) fn running(&self) -> Option<&Arc<Log>> {
        match &self.state {
            RunState::Running { log, .. } => Some(log),
            _ => None,
        }
    }

    /// The restart count of the next instance.
    pub(super) fn next_restart_count(&self) -> u32 {
        match (&self.state, &self.last) {
            (RunState::Terminated(_), _) | (_, Some(_)) => self.restart_count + 1,
            _ => 0,
        }
    }

    /// Starts a new instance. The log of the instance before the last one is removed.
    pub(super) fn start(&mut self, log: Arc<Log>, now: i64) {
        self.restart_count = self.next_restart_count();
        self.change_state(RunState::Running { since: now, log });
    }

    /// Sets the container to waiting, for example until its back-off ends.
    pub(super) fn wait(&mut self, reason: &str) {
        self.change_state(RunState::Waiting {
            reason: reason.to_owned(),
        });
    }

    fn change_state(&mut self, next: RunState) {
        if let RunState::Terminated(termination) = std::mem::replace(&mut self.state, next)
            && let Some(older) = self.last.replace(termination)
        {
            older.log.remove_files();
        }
    }

    /// Ends the running instance. Returns false if none runs.
    pub(super) fn exit(&mut self, code: i32, now: i64) -> bool {
        let RunState::Running { since, log } = &self.state else {
            return false;
        };
        log.close();
        self.state = RunState::Terminated(Termination {
            code,
            started: *since,
            finished: now,
            log: Arc::clone(log),
        });
        true
    }

    pub(super) fn logs(&self) -> impl Iterator<Item = &Arc<Log>> {
        let now = match &self.state {
            RunState::Waiting { .. } => None,
            RunState::Running { log, .. } | RunState::Terminated(Termination { log, .. }) => Some(log),
        };
        now.into_iter()
            .chain(self.last.as_ref().map(|termination| &termination.log))
    }
}

#[derive(Debug, Clone)]
pub(super) struct LivePod {
    pub(super) spec: PodSpec,
    pub(super) uid: String,
    pub(super) created: i64,
    /// Time of the request to delete it.
    pub(super) deleted: Option<i64>,
    /// A phase that the test has set, with its reason, for example `Failed` and `Evicted`.
    pub(super) phase: Option<(String, String)>,
    pub(super) containers: Vec<LiveContainer>,
}

impl LivePod {
    pub(super) fn new(spec: PodSpec, uid: String, created: i64) -> Self {
        let containers = spec.containers.iter().cloned();
        Self {
            containers: containers.map(|(name, kind)| LiveContainer::new(name, kind)).collect(),
            spec,
            uid,
            created,
            deleted: None,
            phase: None,
        }
    }

    pub(super) fn container(&self, name: &str) -> Option<&LiveContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub(super) fn container_mut(&mut self, name: &str) -> Option<&mut LiveContainer> {
        self.containers.iter_mut().find(|c| c.name == name)
    }

    pub(super) fn containers_of(&self, kinds: &[ContainerKind]) -> impl Iterator<Item = &LiveContainer> {
        self.containers.iter().filter(move |c| kinds.contains(&c.kind))
    }

    /// Whether all init containers have succeeded and all sidecars have started.
    pub(super) fn initialized(&self) -> bool {
        self.containers_of(&[ContainerKind::Init, ContainerKind::Sidecar])
            .all(|c| match &c.state {
                RunState::Waiting { .. } => false,
                RunState::Running { .. } => c.kind == ContainerKind::Sidecar,
                RunState::Terminated(termination) => termination.code == 0 || c.kind == ContainerKind::Sidecar,
            })
    }

    /// The phase that the test has set, or that follows from the containers.
    pub(super) fn phase(&self) -> &str {
        if let Some((phase, _)) = &self.phase {
            return phase;
        }
        let mut codes = Vec::new();
        let mut all_ended = true;
        let mut begun = false;
        for app in self.containers_of(&[ContainerKind::App]) {
            match &app.state {
                RunState::Terminated(termination) => codes.push(termination.code),
                RunState::Running { .. } => begun = true,
                RunState::Waiting { .. } => begun |= app.last.is_some(),
            }
            all_ended &= matches!(app.state, RunState::Terminated(_));
        }
        let failed_init = self
            .containers_of(&[ContainerKind::Init])
            .any(|c| matches!(&c.state, RunState::Terminated(d) if d.code != 0));
        let failed = failed_init || codes.iter().any(|code| *code != 0);
        let stays = match self.spec.restart_policy {
            RestartPolicy::Always => self.deleted.is_none(),
            RestartPolicy::OnFailure => failed && self.deleted.is_none(),
            RestartPolicy::Never => false,
        };
        if !stays && failed_init {
            "Failed"
        } else if all_ended && !codes.is_empty() && !stays {
            if failed { "Failed" } else { "Succeeded" }
        } else if begun || !codes.is_empty() {
            "Running"
        } else {
            "Pending"
        }
    }
}
