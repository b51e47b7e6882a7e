//! The handle callers hold on the whole cluster, and how it is set up. It translates calls into changes of the world
//! and wakes whoever waits for one; it renders nothing and answers no request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::api::SimService;
use super::clock::Clock;
use super::faults::{Cut, Effect, Faults, Flow, OpenStream, Target, Verb};
use super::files::Truth;
use super::handle::SimPod;
use super::pod::PodSpec;
use super::rights::Rights;
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
            stream_life: Duration::from_hours(4),
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
    pub(super) rights: Rights,
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
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
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
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let world = World::new(settings.seed, settings.history);
        let shared = Shared {
            clock: Clock::starting_at(settings.now),
            faults: Faults::default(),
            rights: Rights::default(),
            version: watch::Sender::new(world.version()),
            requests: Mutex::default(),
            world: Mutex::new(world),
            settings,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Takes a right away, in a namespace or in all: a verb and a resource as RBAC names them, such as `get` and
    /// `pods/log`. Requests are refused and reviews say so, until the right is [given](Self::give).
    pub fn take(&self, verb: &str, resource: &str, namespace: Option<&str>) {
        let right = (verb.to_owned(), resource.to_owned(), namespace.map(str::to_owned));
        self.shared.rights.change(right, true);
    }

    /// Gives back a right that was taken away with the same words.
    pub fn give(&self, verb: &str, resource: &str, namespace: Option<&str>) {
        let right = (verb.to_owned(), resource.to_owned(), namespace.map(str::to_owned));
        self.shared.rights.change(right, false);
    }

    /// The API server as a service to put under `kube::Client::new`.
    #[must_use]
    pub fn service(&self) -> SimService {
        SimService::new(Arc::clone(&self.shared))
    }

    /// What the cluster's clock shows, nanoseconds since 1970.
    #[must_use]
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
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<SimPod> {
        let key = (namespace.to_owned(), name.to_owned());
        let uid = self.shared.world().pod(&key)?.uid.clone();
        Some(self.handle(key, uid))
    }

    /// All pods there are now.
    #[must_use]
    pub fn pods(&self) -> Vec<SimPod> {
        let world = self.shared.world();
        let pods = world.pods().map(|pod| {
            let key = (pod.spec.namespace.clone(), pod.spec.name.clone());
            self.handle(key, pod.uid.clone())
        });
        pods.collect()
    }

    /// Every line every container instance ever wrote, instances in the order of their starts.
    #[must_use]
    pub fn truth(&self) -> Vec<Truth> {
        let logs = self.shared.world().logs().to_vec();
        logs.iter().map(|log| log.truth()).collect()
    }

    /// Number of lines ever written.
    #[must_use]
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
    #[expect(clippy::must_use_candidate, reason = "the number is extra")]
    pub fn cut(&self, target: &Target, how: Cut) -> usize {
        self.shared.faults.turn(target, Flow::Cut(how))
    }

    /// Makes the open streams that `target` means mute without ending them; returns how many.
    #[expect(clippy::must_use_candidate, reason = "the number is extra")]
    pub fn freeze(&self, target: &Target) -> usize {
        self.shared.faults.turn(target, Flow::Frozen)
    }

    /// Lets frozen streams flow again; returns how many it reached.
    #[expect(clippy::must_use_candidate, reason = "the number is extra")]
    pub fn thaw(&self, target: &Target) -> usize {
        self.shared.faults.turn(target, Flow::Open)
    }

    /// Forgets the history, so that whoever resumes a watch or a paged list is told `410 Gone`.
    pub fn compact(&self) {
        self.shared.change(World::compact);
    }

    /// Lets the statuses of pods fall behind what their kubelets do, or catch up with it.
    pub fn lag(&self, lags: bool) {
        self.shared.change(|world| world.lag(lags));
    }

    /// The watches and log streams that are open now.
    #[must_use]
    pub fn streams(&self) -> Vec<OpenStream> {
        self.shared.faults.streams()
    }

    /// How many requests of each kind have arrived so far.
    pub fn requests(&self) -> Requests {
        self.shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn handle(&self, key: Key, uid: String) -> SimPod {
        SimPod {
            shared: Arc::clone(&self.shared),
            key,
            uid,
        }
    }
}
