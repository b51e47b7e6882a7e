//! The handles callers hold: [`SimCluster`] for the whole and [`SimPod`] for one pod. They translate calls into
//! changes of the world and wake whoever waits for one; they render nothing and answer no request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::api::SimService;
use super::clock::Clock;
use super::faults::{Cut, Effect, Faults, Flow, OpenStream, Target, Verb};
use super::files::{Log, Text, Truth};
use super::pod::{Container, Kind, Pod, PodSpec, State};
use super::world::{Key, World};

/// How a simulated cluster behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where UIDs and container IDs come from.
    pub seed: u64,
    /// What the clock shows at creation.
    pub now: Timestamp,
    /// Size at which a log file is rotated.
    pub rotate_bytes: u64,
    /// Bytes that fit between a log reader and a client that does not read: the socket buffers on the way.
    pub buffer_bytes: usize,
    /// After this long the kubelet ends a log stream.
    pub stream_life: Duration,
    /// Time between two bookmarks of a watch.
    pub bookmark_every: Duration,
    /// How long a watch lasts when the client gives no `timeoutSeconds`.
    pub watch_life: Duration,
    /// Events kept for watches; older ones are compacted.
    pub history: usize,
    /// Whether `sendInitialEvents` is understood, or refused as by an older server.
    pub watch_list: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            now: Timestamp::now(),
            rotate_bytes: 10 * 1024 * 1024,
            buffer_bytes: 256 * 1024,
            stream_life: Duration::from_secs(4 * 60 * 60),
            bookmark_every: Duration::from_mins(1),
            watch_life: Duration::from_mins(30),
            history: 2_000,
            watch_list: true,
        }
    }
}

/// Why a call could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// The pod is gone, or another one has its name.
    #[error("pod {0}/{1} does not exist")]
    NoPod(String, String),
    /// The pod has no container of that name.
    #[error("pod {pod} has no container {container}")]
    NoContainer {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The container would have to run for this.
    #[error("container {container} of pod {pod} does not run")]
    NotRunning {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The container runs already.
    #[error("container {container} of pod {pod} runs already")]
    Running {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// A pod of that name exists.
    #[error("pod {0}/{1} exists already")]
    Exists(String, String),
}

/// Requests that have arrived, by kind.
pub type Requests = BTreeMap<Verb, u64>;

/// A simulated cluster. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct SimCluster {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    /// The newest resource version, for watches to wait on.
    pub(super) version: watch::Sender<u64>,
    requests: Mutex<Requests>,
    world: Mutex<World>,
}

impl Shared {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, verb: Verb) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(verb).or_default() += 1;
    }

    /// Changes the world and wakes the watches.
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world();
        let done = change(&mut world);
        self.version.send_replace(world.version());
        done
    }
}

impl Default for SimCluster {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl SimCluster {
    /// An empty cluster.
    pub fn new(settings: Settings) -> Self {
        let world = World::new(settings.seed, settings.history);
        let shared = Shared {
            clock: Clock::starting_at(settings.now),
            faults: Faults::default(),
            version: watch::Sender::new(world.version()),
            requests: Mutex::default(),
            world: Mutex::new(world),
            settings,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The API server as a service to put under `kube::Client::new`.
    pub fn service(&self) -> SimService {
        SimService::new(Arc::clone(&self.shared))
    }

    /// What the cluster's clock shows, nanoseconds since 1970.
    pub fn now(&self) -> i64 {
        self.shared.clock.now()
    }

    /// Creates a pod whose containers wait to be started.
    pub fn create(&self, spec: PodSpec) -> Result<SimPod, SimError> {
        let key = (spec.namespace.clone(), spec.name.clone());
        let now = self.now();
        let uid = self.shared.change(|world| world.create(spec, now));
        let uid = uid.ok_or_else(|| SimError::Exists(key.0.clone(), key.1.clone()))?;
        Ok(self.handle(key, uid))
    }

    /// The pod that has this name now.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<SimPod> {
        let key = (namespace.to_owned(), name.to_owned());
        let uid = self.shared.world().pod(&key)?.uid.clone();
        Some(self.handle(key, uid))
    }

    /// All pods there are now.
    pub fn pods(&self) -> Vec<SimPod> {
        let world = self.shared.world();
        let pods = world.pods().map(|pod| {
            let key = (pod.spec.namespace.clone(), pod.spec.name.clone());
            self.handle(key, pod.uid.clone())
        });
        pods.collect()
    }

    /// Every line every container instance ever wrote, instances in the order of their starts.
    pub fn truth(&self) -> Vec<Truth> {
        let logs = self.shared.world().logs().to_vec();
        logs.iter().map(|log| log.truth()).collect()
    }

    /// Number of lines ever written.
    pub fn lines(&self) -> usize {
        let logs = self.shared.world().logs().to_vec();
        logs.iter().map(|log| log.count()).sum()
    }

    /// Lets `effect` befall the next `times` requests that `target` means (`u32::MAX`: practically all).
    pub fn inject(&self, target: Target, effect: Effect, times: u32) {
        self.shared.faults.add(target, effect, times);
    }

    /// Takes back all injected faults that have not struck yet.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Cuts the open streams that `target` means; returns how many.
    pub fn cut(&self, target: &Target, how: Cut) -> usize {
        self.shared.faults.turn(target, Flow::Cut(how))
    }

    /// Makes the open streams that `target` means mute without ending them; returns how many.
    pub fn freeze(&self, target: &Target) -> usize {
        self.shared.faults.turn(target, Flow::Frozen)
    }

    /// Lets frozen streams flow again; returns how many it reached.
    pub fn thaw(&self, target: &Target) -> usize {
        self.shared.faults.turn(target, Flow::Open)
    }

    /// Forgets the history, so that whoever resumes a watch or a paged list is told `410 Gone`.
    pub fn compact(&self) {
        self.shared.change(World::compact);
    }

    /// The watches and log streams that are open now.
    pub fn streams(&self) -> Vec<OpenStream> {
        self.shared.faults.streams()
    }

    /// How many requests of each kind have arrived so far.
    pub fn requests(&self) -> Requests {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn handle(&self, key: Key, uid: String) -> SimPod {
        SimPod {
            shared: Arc::clone(&self.shared),
            key,
            uid,
        }
    }
}

/// One incarnation of a pod. The handle stays valid when the pod is gone; its calls then fail.
#[derive(Debug, Clone)]
pub struct SimPod {
    shared: Arc<Shared>,
    key: Key,
    uid: String,
}

impl SimPod {
    /// Namespace of the pod.
    pub fn namespace(&self) -> &str {
        &self.key.0
    }

    /// Name of the pod.
    pub fn name(&self) -> &str {
        &self.key.1
    }

    /// UID of this incarnation.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Schedules the pod, or pretends it had been scheduled elsewhere.
    pub fn set_node(&self, node: impl Into<String>) -> Result<(), SimError> {
        self.edit(|pod| pod.spec.node = Some(node.into()))
    }

    /// Sets a label.
    pub fn set_label(&self, key: impl Into<String>, value: impl Into<String>) -> Result<(), SimError> {
        self.edit(|pod| pod.spec.labels.insert(key.into(), value.into())).map(drop)
    }

    /// Sets the phase regardless of the containers, for example `Failed` because `Evicted`.
    pub fn set_phase(&self, phase: impl Into<String>, reason: impl Into<String>) -> Result<(), SimError> {
        self.edit(|pod| pod.phase = Some((phase.into(), reason.into())))
    }

    /// Adds an ephemeral container and starts it; returns its container ID.
    pub fn attach(&self, container: impl Into<String>) -> Result<String, SimError> {
        let name = container.into();
        let taken = self.edit(|pod| {
            let taken = pod.container(&name).is_some();
            if !taken {
                pod.containers.push(Container::new(name.clone(), Kind::Ephemeral));
            }
            taken
        })?;
        if taken {
            let pod = self.key.1.clone();
            return Err(SimError::Running { pod, container: name });
        }
        self.start(&name)
    }

    /// Starts a container, for the first time or again; returns its container ID.
    pub fn start(&self, container: &str) -> Result<String, SimError> {
        let now = self.shared.clock.now();
        let rotate_bytes = self.shared.settings.rotate_bytes;
        self.shared.change(|world| {
            let found = world.pod(&self.key).filter(|pod| pod.uid == self.uid).ok_or_else(|| self.gone())?;
            let found = found.container(container).ok_or_else(|| self.no_container(container))?;
            if found.running().is_some() {
                let (pod, container) = (self.key.1.clone(), container.to_owned());
                return Err(SimError::Running { pod, container });
            }
            let log = world.new_log(&self.key, &self.uid, container, rotate_bytes).ok_or_else(|| self.gone())?;
            let id = log.instance().container_id.clone();
            let start = |pod: &mut Pod| pod.container_mut(container).map(|c| c.start(log, now));
            world.edit(&self.key, &self.uid, start);
            Ok(id)
        })
    }

    /// Ends a container.
    pub fn exit(&self, container: &str, code: i32) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        let ended = self.edit(|pod| pod.container_mut(container).map(|c| c.exit(code, now)))?;
        match ended {
            None => Err(self.no_container(container)),
            Some(false) => Err(self.not_running(container)),
            Some(true) => Ok(()),
        }
    }

    /// Ends a container and starts it again; returns the new container ID.
    pub fn restart(&self, container: &str, code: i32) -> Result<String, SimError> {
        self.exit(container, code)?;
        self.start(container)
    }

    /// Lets a container that does not run wait for this reason, for example `CrashLoopBackOff` or `ErrImagePull`.
    pub fn wait(&self, container: &str, reason: &str) -> Result<(), SimError> {
        let waits = self.edit(|pod| {
            let container = pod.container_mut(container)?;
            let stands = container.running().is_none();
            if stands {
                container.wait(reason);
            }
            Some(stands)
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

    /// A container writes a line to standard output.
    pub fn line(&self, container: &str, line: impl Into<bytes::Bytes>) -> Result<(), SimError> {
        self.write(container, &Text::out(line))
    }

    /// A container writes.
    pub fn write(&self, container: &str, text: &Text) -> Result<(), SimError> {
        self.log(container)?.write(text, self.shared.clock.now());
        Ok(())
    }

    /// The kubelet rotates the log file of a running container.
    pub fn rotate(&self, container: &str) -> Result<(), SimError> {
        self.log(container)?.rotate();
        Ok(())
    }

    /// Marks the pod as being deleted. Its containers go on until they are told to exit.
    pub fn terminate(&self) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        self.edit(|pod| pod.deleted = Some(now))
    }

    /// Ends every container that runs.
    pub fn exit_all(&self, code: i32) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        self.edit(|pod| {
            for container in &mut pod.containers {
                container.exit(code, now);
            }
        })
    }

    /// Removes the pod from the API at once, as a forced deletion does. Its logs go with it.
    pub fn remove(&self) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        let removed = self.shared.change(|world| world.remove(&self.key, &self.uid, now));
        if removed { Ok(()) } else { Err(self.gone()) }
    }

    /// Deletes the pod with grace: marked, its containers ended, and gone `after` that.
    pub async fn delete(&self, after: Duration) -> Result<(), SimError> {
        self.terminate()?;
        self.exit_all(143)?;
        tokio::time::sleep(after).await;
        self.remove()
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Pod) -> T) -> Result<T, SimError> {
        let done = self.shared.change(|world| world.edit(&self.key, &self.uid, change));
        done.ok_or_else(|| self.gone())
    }

    /// The log of the running instance.
    fn log(&self, container: &str) -> Result<Arc<Log>, SimError> {
        let world = self.shared.world();
        let pod = world.pod(&self.key).filter(|pod| pod.uid == self.uid).ok_or_else(|| self.gone())?;
        let found = pod.container(container).ok_or_else(|| self.no_container(container))?;
        match &found.state {
            State::Running { log, .. } => Ok(Arc::clone(log)),
            _ => Err(self.not_running(container)),
        }
    }

    fn gone(&self) -> SimError {
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
