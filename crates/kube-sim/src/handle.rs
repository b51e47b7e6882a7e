//! The handle through which tests control one pod: its containers, what they write, and its deletion. It changes the
//! state and wakes the watches. It answers no request.

use std::sync::Arc;
use std::time::Duration;

use super::error::SimError;
use super::files::{Log, Text};
use super::pod::{ContainerKind, LiveContainer, LivePod, RunState};
use super::shared::Shared;
use super::state::ObjectKey;

/// One pod with one UID. After the pod is removed, calls fail with [`SimError::NoPod`].
#[derive(Debug, Clone)]
pub struct SimPod {
    pub(super) shared: Arc<Shared>,
    pub(super) key: ObjectKey,
    pub(super) uid: String,
}

impl SimPod {
    /// The namespace of the pod.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.key.0
    }

    /// The name of the pod.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key.1
    }

    /// The UID of the pod.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Schedules the pod to this node, even if it was scheduled already.
    pub fn set_node(&self, node: impl Into<String>) -> Result<(), SimError> {
        self.edit(|pod| pod.spec.node = Some(node.into()))
    }

    /// Sets a label.
    pub fn set_label(&self, key: impl Into<String>, value: impl Into<String>) -> Result<(), SimError> {
        self.edit(|pod| pod.spec.labels.insert(key.into(), value.into()))
            .map(drop)
    }

    /// Sets the phase and its reason regardless of the containers, for example `Failed` and `Evicted`.
    pub fn set_phase(&self, phase: impl Into<String>, reason: impl Into<String>) -> Result<(), SimError> {
        self.edit(|pod| pod.phase = Some((phase.into(), reason.into())))
    }

    /// Adds an ephemeral container, starts it, and returns its container ID.
    pub fn add_ephemeral(&self, container: impl Into<String>) -> Result<String, SimError> {
        let name = container.into();
        let taken = self.edit(|pod| {
            let taken = pod.container(&name).is_some();
            if !taken {
                pod.containers
                    .push(LiveContainer::new(name.clone(), ContainerKind::Ephemeral));
            }
            taken
        })?;
        if taken {
            let pod = self.key.1.clone();
            return Err(SimError::Running { pod, container: name });
        }
        self.start(&name)
    }

    /// Starts a container, for the first time or again, and returns its container ID.
    pub fn start(&self, container: &str) -> Result<String, SimError> {
        let now = self.shared.clock.now();
        let rotate_bytes = self.shared.settings.rotate_bytes;
        self.shared.change(|state| {
            let found = state
                .pod(&self.key)
                .filter(|pod| pod.uid == self.uid)
                .ok_or_else(|| self.no_pod())?;
            let found = found.container(container).ok_or_else(|| self.no_container(container))?;
            if found.running().is_some() {
                let (pod, container) = (self.key.1.clone(), container.to_owned());
                return Err(SimError::Running { pod, container });
            }
            let log = state
                .new_log(&self.key, &self.uid, container, rotate_bytes)
                .ok_or_else(|| self.no_pod())?;
            let id = log.instance().container_id.clone();
            let start = |pod: &mut LivePod| pod.container_mut(container).map(|c| c.start(log, now));
            state.edit(&self.key, &self.uid, start);
            Ok(id)
        })
    }

    /// Ends a container with this exit code.
    pub fn exit(&self, container: &str, code: i32) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        let ended = self.edit(|pod| pod.container_mut(container).map(|c| c.exit(code, now)))?;
        match ended {
            None => Err(self.no_container(container)),
            Some(false) => Err(self.not_running(container)),
            Some(true) => Ok(()),
        }
    }

    /// Ends a container, starts it again, and returns the new container ID.
    pub fn restart(&self, container: &str, code: i32) -> Result<String, SimError> {
        self.exit(container, code)?;
        self.start(container)
    }

    /// Sets a container that does not run to waiting, with a reason such as `CrashLoopBackOff` or `ErrImagePull`.
    pub fn set_waiting(&self, container: &str, reason: &str) -> Result<(), SimError> {
        let waits = self.edit(|pod| {
            let container = pod.container_mut(container)?;
            let stopped = container.running().is_none();
            if stopped {
                container.wait(reason);
            }
            Some(stopped)
        })?;
        match waits {
            None => Err(self.no_container(container)),
            Some(true) => Ok(()),
            Some(false) => {
                let (pod, container) = (self.key.1.clone(), container.to_owned());
                Err(SimError::Running { pod, container })
            }
        }
    }

    /// Whether the container runs.
    #[must_use]
    pub fn is_running(&self, container: &str) -> bool {
        self.log(container).is_ok()
    }

    /// Lets a container write a line to standard output.
    pub fn line(&self, container: &str, line: impl Into<bytes::Bytes>) -> Result<(), SimError> {
        self.write(container, &Text::out(line))
    }

    /// Lets a container write this text.
    pub fn write(&self, container: &str, text: &Text) -> Result<(), SimError> {
        self.log(container)?.write(text, self.shared.clock.now());
        Ok(())
    }

    /// Rotates the log file of a running container, as the kubelet does.
    pub fn rotate(&self, container: &str) -> Result<(), SimError> {
        self.log(container)?.rotate();
        Ok(())
    }

    /// Marks the pod as being deleted. Its containers run until the test ends them.
    pub fn terminate(&self) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        self.edit(|pod| pod.deleted = Some(now))
    }

    /// Ends every running container with this exit code.
    pub fn exit_all(&self, code: i32) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        self.edit(|pod| {
            for container in &mut pod.containers {
                container.exit(code, now);
            }
        })
    }

    /// Removes the pod and its logs at once, as a forced deletion does.
    pub fn remove(&self) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        let removed = self.shared.change(|state| state.remove(&self.key, &self.uid, now));
        if removed { Ok(()) } else { Err(self.no_pod()) }
    }

    /// Deletes the pod as `kubectl delete` does: marks it, ends its containers, and removes it `after` this time.
    pub async fn delete(&self, after: Duration) -> Result<(), SimError> {
        self.terminate()?;
        self.exit_all(143)?;
        tokio::time::sleep(after).await;
        self.remove()
    }

    fn edit<T>(&self, change: impl FnOnce(&mut LivePod) -> T) -> Result<T, SimError> {
        let done = self.shared.change(|state| state.edit(&self.key, &self.uid, change));
        done.ok_or_else(|| self.no_pod())
    }

    /// The log of the running container instance.
    fn log(&self, container: &str) -> Result<Arc<Log>, SimError> {
        let state = self.shared.state();
        let pod = state
            .pod(&self.key)
            .filter(|pod| pod.uid == self.uid)
            .ok_or_else(|| self.no_pod())?;
        let found = pod.container(container).ok_or_else(|| self.no_container(container))?;
        match &found.state {
            RunState::Running { log, .. } => Ok(Arc::clone(log)),
            _ => Err(self.not_running(container)),
        }
    }

    fn no_pod(&self) -> SimError {
        SimError::NoPod(self.key.0.clone(), self.key.1.clone())
    }

    fn no_container(&self, container: &str) -> SimError {
        let (pod, container) = (self.key.1.clone(), container.to_owned());
        SimError::NoContainer { pod, container }
    }

    fn not_running(&self, container: &str) -> SimError {
        let (pod, container) = (self.key.1.clone(), container.to_owned());
        SimError::NotRunning { pod, container }
    }
}
