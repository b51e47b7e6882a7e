//! Whole collectors over one table, one simulated cluster and one sink, in virtual time.
//!
//! Each replica has a runtime of its own with a paused clock, driven in steps on one thread. So a
//! replica that is killed is a runtime that is dropped, and one that is frozen is a runtime that
//! nobody drives until its clock jumps. No two clocks are further apart than a step.

use std::sync::Arc;
use std::time::Duration;

use podlog::clock::Clock;
use podlog::cluster::{Cluster, Gate, Limits, Scope};
use podlog::collector::{Collector, Parts};
use podlog::domain::claim::Lease;
use podlog::domain::{PodSet, ReplicaId, Time};
use podlog::follow::pulse::Pulse;
use podlog::follow::{Settings, Site};
use podlog::keeper::keeper;
use podlog::locks::{Holder, LockStore, MemoryLocks, MemoryTable};
use podlog::metrics::Metrics;
use podlog::sim::{self, PodSpec, SimCluster, SimPod};
use podlog::status::Status;
use podlog::status::health::Health;
use podlog::status::ready::Readiness;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::flaky::{Fences, Flaky, Switch, Wrongs};
use crate::ledger::{Ledger, Pen};

pub(crate) const LEASE: Lease = Lease {
    ttl: Duration::from_secs(20),
    renew: Duration::from_secs(5),
    margin: Duration::from_secs(5),
    grace: Duration::from_secs(1),
};

/// How far the clocks of two replicas are apart at most.
const STEP: Duration = Duration::from_millis(20);

/// One running collector.
pub(crate) struct Replica {
    pub(crate) name: String,
    runtime: Runtime,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    pub(crate) frozen: bool,
    pub(crate) store: Switch,
    pub(crate) sink: Pen,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) main: Runtime,
    now: Instant,
    pub(crate) sim: SimCluster,
    pub(crate) table: MemoryTable,
    pub(crate) ledger: Ledger,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) labels: Option<String>,
    pub(crate) max_pods: usize,
    wrongs: Wrongs,
    fences: Fences,
    started: usize,
    lines: usize,
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// Moves the runtime's clock at once to this time, by whole milliseconds: between the ticks of its own
/// timers, which began at some moment of the machine's, nothing would happen at the same time twice.
fn catch_up(runtime: &Runtime, to: Instant) {
    runtime.block_on(async {
        let behind = to.saturating_duration_since(Instant::now());
        let ticks = behind.as_nanos().div_ceil(1_000_000);
        tokio::time::advance(Duration::from_millis(u64::try_from(ticks).unwrap())).await;
    });
}

impl World {
    /// A world without replicas and pods, around a sink that fences or one that does not. Its dice fall
    /// alike each time; `PODLOG_TEST_SEED` makes them fall otherwise.
    pub(crate) fn new(fencing: bool) -> Self {
        let seed = std::env::var("PODLOG_TEST_SEED").map_or(0, |seed| seed.parse().unwrap());
        // Seen when the test fails.
        println!("PODLOG_TEST_SEED={seed}");
        Self::seeded(fencing, seed)
    }

    /// A world whose chances all come from this seed: those of the collectors, and when in a second it begins.
    pub(crate) fn seeded(fencing: bool, seed: u64) -> Self {
        fastrand::seed(seed);
        let begins = jiff::Timestamp::new(1_800_000_000, fastrand::i32(0..1_000_000_000)).unwrap();
        let (main, wrongs) = (runtime(), Wrongs::default());
        // Ahead of real time for good, so that the clocks of later runtimes can be moved here.
        let now = main.block_on(async {
            tokio::time::advance(Duration::from_hours(1)).await;
            // The first reading is where the clock begins.
            assert!(!Clock::tokio().now().is_zero());
            Instant::now()
        });
        let guard = main.enter();
        let sim = SimCluster::new(sim::Settings {
            now: begins,
            ..sim::Settings::default()
        });
        let table = MemoryTable::new(Clock::tokio());
        drop(guard);
        Self {
            main,
            now,
            sim,
            table,
            ledger: Ledger::new(fencing, wrongs.clone()),
            replicas: Vec::new(),
            labels: None,
            max_pods: 10_000,
            wrongs,
            fences: Fences::default(),
            started: 0,
            lines: 0,
        }
    }

    /// A world in which so many replicas share so many pods and have come to rest.
    pub(crate) fn shared(fencing: bool, replicas: usize, pods: usize) -> Self {
        let mut world = Self::new(fencing);
        for _ in 0..replicas {
            world.add();
        }
        world.pass(2);
        (0..pods).for_each(|_| drop(world.pod()));
        world.pass(30);
        world
    }

    pub(crate) fn holder(&self, name: &str) -> MemoryLocks {
        self.table.holder(Holder {
            replica: name.into(),
            cluster: "test".into(),
            ttl: LEASE.ttl,
            grace: LEASE.grace,
        })
    }

    /// Starts one more replica; answers with its place.
    pub(crate) fn add(&mut self) -> usize {
        self.started += 1;
        let name = format!("r{}", self.started);
        let (runtime, stop, store) = (runtime(), CancellationToken::new(), Switch::default());
        catch_up(&runtime, self.now);
        let flaky = Arc::new(Flaky {
            inner: self.holder(&name),
            switch: store.clone(),
            fences: self.fences.clone(),
            wrongs: self.wrongs.clone(),
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
        let (keeper, driver) = keeper(
            LEASE,
            clock,
            metrics.clone(),
            replica.health.heart("renewal", LEASE.ttl),
        );
        let me = ReplicaId::from(replica.name.as_str());
        let readiness = Readiness::default();
        let collector = Collector::new(Parts {
            me: me.clone(),
            store: store.clone(),
            keeper,
            site: site(cluster.clone(), replica.sink.clone(), metrics),
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
        replica.tasks.spawn_on(collector.run(stop.clone()), &handle);
        let discovery = async move { cluster.discover(&scope, pods_in, stop).await.unwrap() };
        replica.tasks.spawn_on(discovery, &handle);
    }

    /// Lets seconds pass.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.pass_for(Duration::from_secs(seconds));
    }

    /// Lets time pass in steps, and looks for what must not be.
    pub(crate) fn pass_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            self.main.block_on(async { tokio::time::sleep_until(now).await });
            for replica in self.replicas.iter().filter(|replica| !replica.frozen) {
                replica.runtime.block_on(async { tokio::time::sleep_until(now).await });
            }
            self.ledger.check(self.main.block_on(async { Clock::tokio().now() }));
            let wrongs = self.wrongs.lock().unwrap();
            assert!(wrongs.is_empty(), "{wrongs:#?}");
        }
    }

    /// Lets time pass until this holds; answers how long it took.
    pub(crate) fn until(&mut self, limit: u64, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !holds(self) {
            assert!(
                self.now < begun + Duration::from_secs(limit),
                "not within {limit} s: {what}; {:?}",
                self.shares()
            );
            self.pass_for(STEP * 5);
        }
        self.now - begun
    }

    /// Kills a replica as SIGKILL does. Later ones move up.
    pub(crate) fn kill(&mut self, at: usize) -> String {
        let replica = self.replicas.remove(at);
        replica.name
    }

    /// Asks a replica to stop and waits until it has, then removes it. Answers how long it took.
    pub(crate) fn stop(&mut self, at: usize) -> Duration {
        self.replicas[at].stop.cancel();
        let begun = self.now;
        while !self.ended(at) {
            assert!(self.now < begun + Duration::from_mins(1), "the replica does not stop");
            self.pass_for(STEP);
        }
        self.kill(at);
        self.now - begun
    }

    pub(crate) fn ask_to_stop(&mut self, at: usize) {
        self.replicas[at].stop.cancel();
    }

    /// Whether all of a replica's parts have ended.
    pub(crate) fn ended(&mut self, at: usize) -> bool {
        let tasks = &mut self.replicas[at].tasks;
        while tasks.try_join_next().map(Result::unwrap).is_some() {}
        tasks.is_empty()
    }

    pub(crate) fn freeze(&mut self, at: usize) {
        self.replicas[at].frozen = true;
    }

    /// Lets a frozen replica go on; for it no time has passed, and then all of it at once.
    pub(crate) fn thaw(&mut self, at: usize) {
        let now = self.now;
        let replica = &mut self.replicas[at];
        replica.frozen = false;
        catch_up(&replica.runtime, now);
    }

    /// Creates the pod `shop/p<n>` with a running container `app`.
    pub(crate) fn pod(&mut self) -> SimPod {
        self.lines += 1;
        let name = format!("p{}", self.lines);
        let node = format!("n{}", self.lines % 12);
        let spec = PodSpec::new("shop", name).node(node).label("app", "shop").app("app");
        self.create(spec)
    }

    pub(crate) fn create(&mut self, spec: PodSpec) -> SimPod {
        let _inside = self.main.enter();
        let pod = self.sim.create(spec).unwrap();
        pod.start("app").unwrap();
        pod
    }

    /// Does something to the cluster at the present virtual time.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&SimCluster) -> T) -> T {
        let _inside = self.main.enter();
        act(&self.sim)
    }

    /// Lets every running pod write a line.
    pub(crate) fn write_all(&mut self) {
        for pod in self.sim.pods() {
            self.write(&pod);
        }
    }

    /// Lets a pod write a line, if it runs.
    pub(crate) fn write(&mut self, pod: &SimPod) {
        let _inside = self.main.enter();
        self.lines += 1;
        pod.line("app", format!("line {}", self.lines)).ok();
    }

    /// Lets time pass in which every pod writes once a second.
    pub(crate) fn busy(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.write_all();
            self.pass(1);
        }
    }
}

fn site(cluster: Cluster, sink: Pen, metrics: Metrics) -> Arc<Site> {
    Arc::new(Site {
        cluster,
        gate: Gate::new(
            Limits {
                opens_per_second: 1000.0,
                burst: 1000,
                ..Limits::default()
            },
            &metrics,
        ),
        sink: Arc::new(sink),
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
