//! Whole collectors over one table, one simulated cluster and one sink, in virtual time.
//!
//! Each replica has a runtime of its own with a paused clock, driven in steps on one thread. So a
//! replica that is killed is a runtime that is dropped, and one that is frozen is a runtime that
//! nobody drives until its clock jumps. No two clocks are further apart than a step. A world needs a
//! thread on which no other was before: there clocks begin anew, and chance falls alike each time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breach::{Breach, Breaches, Rule};
use super::sink::{Ledger, Pen};
use super::store::{Fences, Flaky, Switch};
use crate::clock::Clock;
use crate::cluster::{Cluster, Gate, Limits, Scope};
use crate::collector::{Collector, Parts};
use crate::domain::claim::Lease;
use crate::domain::{PodSet, ReplicaId, Time};
use crate::follow::pulse::Pulse;
use crate::follow::{Settings, Site};
use crate::keeper::keeper;
use crate::locks::{Holder, LockStore, MemoryLocks, MemoryTable};
use crate::metrics::Metrics;
use crate::sim::{self, PodSpec, SimCluster, SimPod};
use crate::sinks::Sink;
use crate::sinks::group::{self, grouped};
use crate::sinks::retry::Retrying;
use crate::status::Status;
use crate::status::health::Health;
use crate::status::ready::Readiness;

/// The times of claims, as they are by default.
pub const LEASE: Lease = Lease {
    ttl: Duration::from_secs(20),
    renew: Duration::from_secs(5),
    margin: Duration::from_secs(5),
    takeover_grace: Duration::from_secs(1),
};

/// How far the clocks of two replicas are apart at most.
const STEP: Duration = Duration::from_millis(20);

/// One running collector.
#[derive(Debug)]
pub struct Replica {
    /// Its name.
    pub name: String,
    runtime: Runtime,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    /// Whether time stands still for it.
    pub frozen: bool,
    /// What goes wrong between it and the table.
    pub store: Switch,
    /// What goes wrong between it and the sink.
    pub sink: Pen,
    /// Its counters.
    pub metrics: Metrics,
    /// Whether its loops turn.
    pub health: Health,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    pub(super) main: Runtime,
    now: Instant,
    /// The cluster whose pods are collected.
    pub sim: SimCluster,
    /// The table of claims.
    pub table: MemoryTable,
    /// What is stored.
    pub ledger: Ledger,
    /// Those that run.
    pub replicas: Vec<Replica>,
    /// Which pods the next replicas collect; all without.
    pub labels: Option<String>,
    /// How many pods each of the next replicas holds at most.
    pub max_pods: usize,
    /// Whether writers of the next replicas share requests to the sink, with a deadline for each.
    pub grouped: bool,
    /// What was found that must not be.
    pub breaches: Breaches,
    fences: Fences,
    started: usize,
    lines: usize,
}

#[expect(
    clippy::expect_used,
    reason = "a runtime without I/O needs nothing that could be refused"
)]
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

/// Moves the runtime's clock at once to this time, by whole milliseconds: between the ticks of its own
/// timers, which began at some moment of the machine's, nothing would happen at the same time twice.
fn catch_up(runtime: &Runtime, to: Instant) {
    runtime.block_on(async {
        let behind = to.saturating_duration_since(Instant::now());
        let ticks = behind.as_nanos().div_ceil(1_000_000);
        tokio::time::advance(Duration::from_millis(ticks as u64)).await;
    });
}

impl World {
    /// A world without replicas and pods, around a sink that fences or one that does not. Its chances all come
    /// from this seed: those of the collectors, and when in a second it begins.
    #[must_use]
    pub fn seeded(fencing: bool, seed: u64) -> Self {
        fastrand::seed(seed);
        let nanos = fastrand::i32(0..1_000_000_000);
        let begins = jiff::Timestamp::from_nanosecond(1_800_000_000_000_000_000 + i128::from(nanos));
        let (main, breaches) = (runtime(), Breaches::default());
        // Ahead of real time for good, so that the clocks of later runtimes can be moved here.
        let now = main.block_on(async {
            tokio::time::advance(Duration::from_hours(1)).await;
            // The first reading is where the clock begins.
            let begin = Clock::tokio().now();
            debug_assert!(!begin.is_zero());
            Instant::now()
        });
        let guard = main.enter();
        let sim = SimCluster::new(sim::Settings {
            now: begins.unwrap_or_default(),
            ..sim::Settings::default()
        });
        let table = MemoryTable::new(Clock::tokio());
        drop(guard);
        Self {
            main,
            now,
            sim,
            table,
            ledger: Ledger::new(fencing, breaches.clone()),
            replicas: Vec::new(),
            labels: None,
            max_pods: 10_000,
            grouped: false,
            breaches,
            fences: Fences::default(),
            started: 0,
            lines: 0,
        }
    }

    pub(super) fn holder(&self, name: &str) -> MemoryLocks {
        self.table.holder(Holder {
            replica: name.into(),
            cluster: "test".into(),
            ttl: LEASE.ttl,
            takeover_grace: LEASE.takeover_grace,
        })
    }

    /// Starts one more replica; answers with its place.
    pub fn add(&mut self) -> usize {
        self.started += 1;
        let name = format!("r{}", self.started);
        let (runtime, stop, store) = (runtime(), CancellationToken::new(), Switch::default());
        catch_up(&runtime, self.now);
        let flaky = Arc::new(Flaky {
            inner: self.holder(&name),
            switch: store.clone(),
            fences: self.fences.clone(),
            breaches: self.breaches.clone(),
        });
        let (metrics, sink) = (Metrics::default(), self.ledger.pen(&name));
        let health = Health::new(Clock::tokio());
        let mut replica = Replica {
            name,
            runtime,
            tasks: JoinSet::new(),
            stop,
            frozen: false,
            store,
            sink,
            metrics,
            health,
        };
        self.start(&mut replica, flaky);
        self.replicas.push(replica);
        self.replicas.len() - 1
    }

    fn start(&self, replica: &mut Replica, store: Arc<dyn LockStore>) {
        let _inside = replica.runtime.enter();
        let (clock, metrics) = (Clock::tokio(), replica.metrics.clone());
        let cluster = Cluster::over(self.sim.service(), metrics.clone());
        let (pods_in, pods) = watch::channel(Arc::new(PodSet::default()));
        let beat = replica.health.heart("renewal", LEASE.ttl);
        let (keeper, driver) = keeper(LEASE, clock, metrics.clone(), beat);
        let me = ReplicaId::from(replica.name.as_str());
        let readiness = Readiness::default();
        let (sink, writing) = self.sink(replica);
        let collector = Collector::new(Parts {
            me: me.clone(),
            store: store.clone(),
            keeper,
            site: site(cluster.clone(), sink, metrics),
            pods,
            lease: LEASE,
            max_pods: self.max_pods,
            grace: Duration::from_secs(25),
            status: watch::channel(Arc::new(Status::new(me, "test".into(), Time(0)))).0,
            beat: replica.health.heart("collector", Duration::from_secs(30)),
            store_reached: readiness.condition("store"),
            listed: readiness.condition("list"),
        });
        let scope = Scope {
            labels: self.labels.clone(),
            ..Scope::default()
        };
        let (handle, stop) = (replica.runtime.handle().clone(), replica.stop.clone());
        replica.tasks.spawn_on(driver.run(store), &handle);
        replica.tasks.spawn_on(writing, &handle);
        replica.tasks.spawn_on(collector.run(stop.clone()), &handle);
        let breaches = self.breaches.clone();
        let discovery = async move {
            if let Err(error) = cluster.discover(&scope, pods_in, stop).await {
                breaches.note(Rule::Alive, error);
            }
        };
        replica.tasks.spawn_on(discovery, &handle);
    }

    /// The sink as a replica has it, put together as the real ones are, and what does its writing.
    fn sink(&self, replica: &Replica) -> (Arc<dyn Sink>, BoxFuture<'static, ()>) {
        let (clock, pen) = (Clock::tokio(), replica.sink.clone());
        let metrics = replica.metrics.clone();
        if !self.grouped {
            return (Arc::new(Retrying::new(pen, clock, metrics)), Box::pin(async {}));
        }
        let (grouped, driver) = grouped(Arc::new(pen), group::Limits::default(), clock);
        (Arc::new(Retrying::new(grouped, clock, metrics)), Box::pin(driver))
    }

    /// Lets time pass in steps, and looks for what must not be; stops where something is.
    pub fn pass_for(&mut self, time: Duration) -> Result<(), Breach> {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            self.main.block_on(async { tokio::time::sleep_until(now).await });
            for replica in self.replicas.iter().filter(|replica| !replica.frozen) {
                replica.runtime.block_on(async { tokio::time::sleep_until(now).await });
            }
            self.ledger.check(self.time());
            if let Some(breach) = self.breaches.first() {
                return Err(breach);
            }
        }
        Ok(())
    }

    /// What the clock of the world shows.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Kills a replica as SIGKILL does. Later ones move up.
    pub fn kill(&mut self, at: usize) -> String {
        let replica = self.replicas.remove(at);
        replica.name
    }

    /// Asks a replica to stop.
    pub fn ask_to_stop(&mut self, at: usize) {
        self.replicas[at].stop.cancel();
    }

    /// Whether a replica was asked to stop.
    #[must_use]
    pub fn is_stopping(&self, at: usize) -> bool {
        self.replicas[at].stop.is_cancelled()
    }

    /// Whether all of a replica's parts have ended.
    pub fn ended(&mut self, at: usize) -> bool {
        let tasks = &mut self.replicas[at].tasks;
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                self.breaches.note(Rule::Alive, error);
            }
        }
        tasks.is_empty()
    }

    /// Lets time stand still for a replica.
    pub fn freeze(&mut self, at: usize) {
        self.replicas[at].frozen = true;
    }

    /// Lets a frozen replica go on; for it no time has passed, and then all of it at once.
    pub fn thaw(&mut self, at: usize) {
        let now = self.now;
        let replica = &mut self.replicas[at];
        replica.frozen = false;
        catch_up(&replica.runtime, now);
    }

    /// Creates the pod `shop/p<n>` with a running container `app`.
    pub fn pod(&mut self) -> SimPod {
        self.lines += 1;
        let name = format!("p{}", self.lines);
        let node = format!("n{}", self.lines % 12);
        let spec = PodSpec::new("shop", name).node(node).label("app", "shop").app("app");
        self.create(spec)
    }

    /// Creates a pod and starts its container `app`.
    ///
    /// # Panics
    /// When there is a pod of that name, or it has no such container.
    #[expect(clippy::expect_used, reason = "a mistake of the caller's")]
    pub fn create(&mut self, spec: PodSpec) -> SimPod {
        let _inside = self.main.enter();
        let pod = self.sim.create(spec).expect("a new name");
        pod.start("app").expect("a container app");
        pod
    }

    /// Does something to the cluster at the present virtual time.
    pub fn act<T>(&self, act: impl FnOnce(&SimCluster) -> T) -> T {
        let _inside = self.main.enter();
        act(&self.sim)
    }

    /// Lets every running pod write a line.
    pub fn write_all(&mut self) {
        for pod in self.sim.pods() {
            self.write(&pod);
        }
    }

    /// Lets a pod write a line, if it runs.
    pub fn write(&mut self, pod: &SimPod) {
        let _inside = self.main.enter();
        self.lines += 1;
        pod.line("app", format!("line {}", self.lines)).ok();
    }
}

fn site(cluster: Cluster, sink: Arc<dyn Sink>, metrics: Metrics) -> Arc<Site> {
    Arc::new(Site {
        cluster,
        gate: Gate::new(
            Limits {
                opens_per_second: 1000.0,
                burst: 1000,
                per_node: 64,
                total: 10_000,
            },
            &metrics,
        ),
        sink,
        metrics,
        clock: Clock::tokio(),
        pulse: Pulse::new(Clock::tokio()),
        settings: Settings {
            max_line: 256 * 1024,
            chunk_bytes: 64 * 1024,
            chunk_age: Duration::from_millis(200),
            reopen: Duration::from_mins(30),
            probe: Duration::from_mins(1),
            poll: Duration::from_secs(5),
        },
    })
}
