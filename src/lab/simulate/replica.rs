//! A replica of a simulation: the real collector, discovery and renewer, and a simulated sink, on their own runtime. It
//! only connects these parts, as `run` does. The fleet advances the runtime.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api_gate::ApiGate;
use super::lease::LEASE;
use super::rule::{Breaches, Rule};
use super::sink::{Ledger, LedgerSink};
use super::store::StoreControl;
use crate::clock::Clock;
use crate::cluster::{Cluster, Scope, StreamLimiter, StreamLimits, discover};
use crate::collector::{Collector, Deps};
use crate::domain::{PodSet, ReplicaId, Time};
use crate::follow::stall_detector::StallDetector;
use crate::follow::{Context, ReadSettings};
use crate::locks::LockStore;
use crate::metrics::{LockCall, Metrics};
use crate::renewer::renewer;
use crate::sinks::Sink;
use crate::sinks::group::{self, grouped};
use crate::sinks::retry::Retrying;
use crate::status::Status;
use crate::status::health::Health;
use crate::status::ready::{Readiness, not_stored};
use crate::unread::UnreadLogs;
use kube_sim::SimCluster;

/// One running collector.
#[derive(Debug)]
pub struct SimReplica {
    /// Its name.
    pub name: String,
    pub(super) runtime: Runtime,
    pub(super) tasks: JoinSet<()>,
    pub(super) stop: CancellationToken,
    /// Whether its clock stands still.
    pub frozen: bool,
    /// The faults between it and the table of claims.
    pub store: StoreControl,
    /// The gate between it and the API server.
    pub api: ApiGate,
    /// Its sink, with faults.
    pub sink: LedgerSink,
    /// Its counters.
    pub metrics: Metrics,
    /// Shows whether a loop is stuck.
    pub health: Health,
    readiness: Readiness,
}

/// The options of a replica.
pub(super) struct ReplicaOptions {
    /// The namespaces whose pods it collects; empty for all.
    pub(super) namespaces: Vec<String>,
    /// Label selector of the pods that it collects; `None` for all.
    pub(super) labels: Option<String>,
    /// How many pods it holds at most.
    pub(super) max_pods: usize,
    /// Whether its writers share requests to the sink, with a deadline for each.
    pub(super) grouped: bool,
}

#[expect(
    clippy::expect_used,
    reason = "a runtime without I/O needs nothing that could be refused"
)]
pub(super) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

/// Moves the runtime's clock to this time at once, by whole milliseconds. Timers of tokio have a resolution of a
/// millisecond from the start of the runtime, which is different in each run. With whole milliseconds all runs are the
/// same.
pub(super) fn catch_up(runtime: &Runtime, to: Instant) {
    runtime.block_on(async {
        let behind = to.saturating_duration_since(Instant::now());
        let ticks = behind.as_nanos().div_ceil(1_000_000);
        tokio::time::advance(Duration::from_millis(ticks as u64)).await;
    });
}

impl SimReplica {
    /// A replica that has not been started.
    pub(super) fn new(name: String, runtime: Runtime, store: StoreControl, ledger: &Ledger) -> Self {
        let (sink, tasks) = (ledger.sink(&name), JoinSet::new());
        Self {
            name,
            runtime,
            tasks,
            stop: CancellationToken::new(),
            frozen: false,
            store,
            api: ApiGate::default(),
            sink,
            metrics: Metrics::default(),
            health: Health::new(Clock::tokio()),
            readiness: Readiness::default(),
        }
    }

    /// Why it is not ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        // Inside, time is that of the replica.
        let _inside = self.runtime.enter();
        self.readiness.missing()
    }

    /// How many calls of this operation have succeeded.
    #[must_use]
    pub fn lock_calls(&self, operation: &'static str) -> u64 {
        let result = "ok";
        self.metrics
            .lock_calls
            .get_or_create(&LockCall { operation, result })
            .get()
    }

    /// Starts all parts, as `podlog run` does.
    pub(super) fn start(
        &mut self,
        options: &ReplicaOptions,
        store: Arc<dyn LockStore>,
        sim: &SimCluster,
        breaches: Breaches,
    ) {
        let _inside = self.runtime.enter();
        let (clock, metrics) = (Clock::tokio(), self.metrics.clone());
        let cluster = Cluster::over(self.api.wrap(sim.service()), metrics.clone());
        let (pods_in, pods) = watch::channel(Arc::new(PodSet::default()));
        let heartbeat = self.health.register("renewal", LEASE.ttl);
        let (renewer, driver) = renewer(LEASE, clock, metrics.clone(), heartbeat);
        let me = ReplicaId::from(self.name.as_str());
        let (sink, writing) = self.sink(options);
        let unstored = metrics.unstored.clone();
        self.readiness.ask("sink", move || not_stored(unstored.longest()));
        let collector = Collector::new(Deps {
            me: me.clone(),
            store: store.clone(),
            renewer,
            context: follow_context(cluster.clone(), sink, metrics),
            pods,
            lease: LEASE,
            max_pods: options.max_pods,
            grace: Duration::from_secs(25),
            status: watch::channel(Arc::new(Status::new(me, "test".into(), Time(0)))).0,
            heartbeat: self.health.register("collector", Duration::from_secs(30)),
            store_reached: self.readiness.condition("store"),
            listed: self.readiness.condition("list"),
        });
        let scope = Scope {
            namespaces: options.namespaces.clone(),
            labels: options.labels.clone(),
            ..Scope::default()
        };
        let (handle, stop) = (self.runtime.handle().clone(), self.stop.clone());
        self.tasks.spawn_on(driver.run(store), &handle);
        self.tasks.spawn_on(writing, &handle);
        self.tasks.spawn_on(collector.run(stop.clone()), &handle);
        let discovery = async move {
            if let Err(error) = discover(&cluster, &scope, pods_in, stop).await {
                breaches.record(Rule::Alive, error);
            }
        };
        self.tasks.spawn_on(discovery, &handle);
    }

    /// The sink, with retries and groups like a real one, and the future that writes to it.
    fn sink(&self, options: &ReplicaOptions) -> (Arc<dyn Sink>, BoxFuture<'static, ()>) {
        let (clock, sink) = (Clock::tokio(), self.sink.clone());
        let metrics = self.metrics.clone();
        if !options.grouped {
            return (Arc::new(Retrying::new(sink, clock, metrics)), Box::pin(async {}));
        }
        let (grouped, driver) = grouped(Arc::new(sink), group::GroupLimits::default(), clock);
        (Arc::new(Retrying::new(grouped, clock, metrics)), Box::pin(driver))
    }
}

fn follow_context(cluster: Cluster, sink: Arc<dyn Sink>, metrics: Metrics) -> Arc<Context> {
    Arc::new(Context {
        cluster,
        limiter: StreamLimiter::new(
            StreamLimits {
                opens_per_second: 1000.0,
                burst: 1000,
                per_node: 64,
                total: 10_000,
            },
            &metrics,
        ),
        sink,
        unread: UnreadLogs::new(Clock::tokio(), metrics.clone()),
        metrics,
        clock: Clock::tokio(),
        stall_detector: StallDetector::new(Clock::tokio()),
        settings: ReadSettings {
            max_line: 256 * 1024,
            chunk_bytes: 64 * 1024,
            chunk_age: Duration::from_millis(200),
            reopen: Duration::from_mins(30),
            probe: Duration::from_mins(1),
            poll: Duration::from_secs(5),
        },
    })
}
