//! The handle through which tests control the whole cluster. It changes the state and wakes the watches. It answers no
//! request.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::api::SimService;
use super::error::SimError;
use super::faults::{Cut, Fault, Flow, RequestSubject, Target};
use super::files::WrittenLog;
use super::handle::SimPod;
use super::pod::PodSpec;
use super::serve;
use super::settings::SimSettings;
use super::shared::{Requests, Shared};
use super::state::{ClusterState, ObjectKey};

/// A simulated cluster. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct SimCluster {
    pub(super) shared: Arc<Shared>,
}

impl Default for SimCluster {
    fn default() -> Self {
        Self::new(SimSettings::default())
    }
}

impl SimCluster {
    /// An empty cluster.
    #[must_use]
    pub fn new(settings: SimSettings) -> Self {
        Self {
            shared: Arc::new(Shared::new(settings)),
        }
    }

    /// Takes a permission away, in one namespace or in all. The verb and the resource are those of RBAC, such as `get`
    /// and `pods/log`. Until [`grant`](Self::grant) is called, requests that need the permission are refused, and
    /// access reviews answer that it is missing.
    pub fn revoke(&self, verb: &str, resource: &str, namespace: Option<&str>) {
        let right = (verb.to_owned(), resource.to_owned(), namespace.map(str::to_owned));
        self.shared.rights.change(right, true);
    }

    /// Gives back a permission that [`revoke`](Self::revoke) took away with the same arguments.
    pub fn grant(&self, verb: &str, resource: &str, namespace: Option<&str>) {
        let right = (verb.to_owned(), resource.to_owned(), namespace.map(str::to_owned));
        self.shared.rights.change(right, false);
    }

    /// The API server as a service for `kube::Client::new`.
    #[must_use]
    pub fn service(&self) -> SimService {
        SimService::new(Arc::clone(&self.shared))
    }

    /// Answers requests on `listener` until `stop` is cancelled. Then it ends open streams and closes connections. When
    /// it returns, all its tasks have ended.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        serve::serve(&self.service(), listener, stop).await;
    }

    /// The time on the cluster's clock, in nanoseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.shared.clock.now()
    }

    /// Creates a pod. Its containers wait until the test starts them.
    pub fn create(&self, spec: PodSpec) -> Result<SimPod, SimError> {
        let key = (spec.namespace.clone(), spec.name.clone());
        let now = self.now();
        let uid = self.shared.change(|state| state.create(spec, now));
        let uid = uid.ok_or_else(|| SimError::Exists(key.0.clone(), key.1.clone()))?;
        Ok(self.handle(key, uid))
    }

    /// The pod that has this name now.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<SimPod> {
        let key = (namespace.to_owned(), name.to_owned());
        let uid = self.shared.state().pod(&key)?.uid.clone();
        Some(self.handle(key, uid))
    }

    /// All pods that exist now.
    #[must_use]
    pub fn pods(&self) -> Vec<SimPod> {
        let state = self.shared.state();
        let pods = state.pods().map(|pod| {
            let key = (pod.spec.namespace.clone(), pod.spec.name.clone());
            self.handle(key, pod.uid.clone())
        });
        pods.collect()
    }

    /// Every line that a container has ever written. Container instances are in the order of their starts.
    #[must_use]
    pub fn written(&self) -> Vec<WrittenLog> {
        let logs = self.shared.state().logs().to_vec();
        logs.iter().map(|log| log.written()).collect()
    }

    /// The number of lines that containers have ever written.
    #[must_use]
    pub fn lines_written(&self) -> usize {
        let logs = self.shared.state().logs().to_vec();
        logs.iter().map(|log| log.count()).sum()
    }

    /// Refuses requests without this token from now on.
    pub fn require_token(&self, token: &str) {
        self.shared.rights.require_token(token);
    }

    /// Applies `fault` to the next `times` requests that `target` matches. `u32::MAX` means all of them.
    pub fn inject(&self, target: Target, fault: Fault, times: u32) {
        self.shared.faults.add(target, fault, times);
    }

    /// Removes all injected faults that have not been applied yet.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Cuts the open streams that `target` matches, and returns their number.
    #[expect(clippy::must_use_candidate, reason = "most callers do not need the number")]
    pub fn cut(&self, target: &Target, how: Cut) -> usize {
        self.shared.faults.set_flow(target, Flow::Cut(how))
    }

    /// Mutes the open streams that `target` matches: they stay open and send nothing. Returns their number.
    #[expect(clippy::must_use_candidate, reason = "most callers do not need the number")]
    pub fn mute(&self, target: &Target) -> usize {
        self.shared.faults.set_flow(target, Flow::Muted)
    }

    /// Lets muted streams send again. Returns the number of streams that `target` matches.
    #[expect(clippy::must_use_candidate, reason = "most callers do not need the number")]
    pub fn unmute(&self, target: &Target) -> usize {
        self.shared.faults.set_flow(target, Flow::Open)
    }

    /// Compacts the history. A resumed watch or a continued list then gets `410 Gone`.
    pub fn compact(&self) {
        self.shared.change(ClusterState::compact);
    }

    /// While delayed, the API shows no change of a pod. When the delay ends, it shows all changes at once.
    pub fn delay_status(&self, delayed: bool) {
        self.shared.change(|state| state.delay_status(delayed));
    }

    /// The watches and log streams that are open now.
    #[must_use]
    pub fn streams(&self) -> Vec<RequestSubject> {
        self.shared.faults.streams()
    }

    /// How many requests of each verb have arrived.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.shared.requests()
    }

    fn handle(&self, key: ObjectKey, uid: String) -> SimPod {
        SimPod {
            shared: Arc::clone(&self.shared),
            key,
            uid,
        }
    }
}
