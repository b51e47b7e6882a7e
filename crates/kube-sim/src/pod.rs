//! What a pod of the simulated cluster is: containers of four kinds, their states, and the rules by which states add
//! up to a phase. Plain data; it renders nothing and notifies nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::files::Log;

/// The four kinds of container a pod can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerKind {
    /// Runs to its end before the app containers start.
    Init,
    /// An init container that stays: `restartPolicy: Always`.
    Sidecar,
    /// An ordinary container.
    App,
    /// Added to a running pod for debugging.
    Ephemeral,
}

/// When the kubelet restarts containers. The simulated cluster restarts none by itself: the policy only decides
/// the phase of a pod whose containers have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always, as Deployments need it.
    Always,
    /// After a failure only.
    OnFailure,
    /// Never, as many Jobs need it.
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

/// A pod to create. Without a node it is unscheduled.
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

    /// Controlled by an object of this kind and name, for example `ReplicaSet`.
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

/// A termination.
#[derive(Debug, Clone)]
pub(super) struct Termination {
    pub(super) code: i32,
    pub(super) started: i64,
    pub(super) finished: i64,
    pub(super) log: Arc<Log>,
}

/// What a container is doing.
#[derive(Debug, Clone)]
pub(super) enum ContainerState {
    Waiting { reason: String },
    Running { since: i64, log: Arc<Log> },
    Terminated(Termination),
}

#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) kind: ContainerKind,
    pub(super) state: ContainerState,
    /// The termination before the present state; its files are the one dead instance the kubelet keeps.
    pub(super) last: Option<Termination>,
    pub(super) restart_count: u32,
}

impl Container {
    pub(super) fn new(name: String, kind: ContainerKind) -> Self {
        let reason = if kind == ContainerKind::App {
            "ContainerCreating"
        } else {
            "PodInitializing"
        };
        Self {
            name,
            kind,
            state: ContainerState::Waiting {
                reason: reason.to_owned(),
            },
            last: None,
            restart_count: 0,
        }
    }

    pub(super) fn running(&self) -> Option<&Arc<Log>> {
        match &self.state {
            ContainerState::Running { log, .. } => Some(log),
            _ => None,
        }
    }

    /// Restart count of the next instance.
    pub(super) fn next_restart_count(&self) -> u32 {
        match (&self.state, &self.last) {
            (ContainerState::Terminated(_), _) | (_, Some(_)) => self.restart_count + 1,
            _ => 0,
        }
    }

    /// Becomes a new instance. The instance before the last one loses its files.
    pub(super) fn start(&mut self, log: Arc<Log>, now: i64) {
        self.restart_count = self.next_restart_count();
        self.retire(ContainerState::Running { since: now, log });
    }

    /// Waits, for example for the end of a back-off.
    pub(super) fn wait(&mut self, reason: &str) {
        self.retire(ContainerState::Waiting {
            reason: reason.to_owned(),
        });
    }

    fn retire(&mut self, next: ContainerState) {
        if let ContainerState::Terminated(termination) = std::mem::replace(&mut self.state, next)
            && let Some(older) = self.last.replace(termination)
        {
            older.log.remove_files();
        }
    }

    /// The running instance ends. False if none runs.
    pub(super) fn exit(&mut self, code: i32, now: i64) -> bool {
        let ContainerState::Running { since, log } = &self.state else {
            return false;
        };
        log.close();
        self.state = ContainerState::Terminated(Termination {
            code,
            started: *since,
            finished: now,
            log: Arc::clone(log),
        });
        true
    }

    pub(super) fn logs(&self) -> impl Iterator<Item = &Arc<Log>> {
        let now = match &self.state {
            ContainerState::Waiting { .. } => None,
            ContainerState::Running { log, .. } | ContainerState::Terminated(Termination { log, .. }) => Some(log),
        };
        now.into_iter()
            .chain(self.last.as_ref().map(|termination| &termination.log))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) spec: PodSpec,
    pub(super) uid: String,
    pub(super) created: i64,
    /// When the API was asked to delete it.
    pub(super) deleted: Option<i64>,
    /// A phase set from outside, with its reason, for example `Failed` and `Evicted`.
    pub(super) phase: Option<(String, String)>,
    pub(super) containers: Vec<Container>,
}

impl Pod {
    pub(super) fn new(spec: PodSpec, uid: String, created: i64) -> Self {
        let containers = spec.containers.iter().cloned();
        Self {
            containers: containers.map(|(name, kind)| Container::new(name, kind)).collect(),
            spec,
            uid,
            created,
            deleted: None,
            phase: None,
        }
    }

    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub(super) fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.name == name)
    }

    pub(super) fn of(&self, kinds: &[ContainerKind]) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |c| kinds.contains(&c.kind))
    }

    /// All init containers have ended well, or are sidecars that have started.
    pub(super) fn initialized(&self) -> bool {
        self.of(&[ContainerKind::Init, ContainerKind::Sidecar])
            .all(|c| match &c.state {
                ContainerState::Waiting { .. } => false,
                ContainerState::Running { .. } => c.kind == ContainerKind::Sidecar,
                ContainerState::Terminated(termination) => termination.code == 0 || c.kind == ContainerKind::Sidecar,
            })
    }

    /// The phase its containers add up to.
    pub(super) fn phase(&self) -> &str {
        if let Some((phase, _)) = &self.phase {
            return phase;
        }
        let mut codes = Vec::new();
        let mut all_ended = true;
        let mut begun = false;
        for app in self.of(&[ContainerKind::App]) {
            match &app.state {
                ContainerState::Terminated(termination) => codes.push(termination.code),
                ContainerState::Running { .. } => begun = true,
                ContainerState::Waiting { .. } => begun |= app.last.is_some(),
            }
            all_ended &= matches!(app.state, ContainerState::Terminated(_));
        }
        let failed_init = self
            .of(&[ContainerKind::Init])
            .any(|c| matches!(&c.state, ContainerState::Terminated(d) if d.code != 0));
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
