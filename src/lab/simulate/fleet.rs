//! Several replicas with one table of claims, one simulated cluster and one sink, in virtual time.
//!
//! Each replica has its own runtime with a paused clock. One thread advances all runtimes in steps, so no two clocks
//! differ by more than a step. To kill a replica is to drop its runtime. A frozen replica is not advanced, and its
//! clock jumps when it continues. A fleet needs a new thread, because the clock and the random numbers of a thread
//! start only once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::lease::LEASE;
use super::ledger_audit::{self, LedgerAudit};
use super::replica::{ReplicaOptions, SimReplica, catch_up, runtime};
use super::rule::{Breach, Breaches, Rule};
use super::sink::Ledger;
use super::store::{FaultyLocks, Fences, StoreControl};
use crate::clock::Clock;
use crate::domain::{LockKey, LockTable};
use crate::lab::memory::{MemoryLocks, MemoryTable};
use crate::locks::{Holder, LockStore};
use kube_sim::{PodSpec, SimCluster, SimPod, Text};

/// The largest difference between the clocks of two replicas.
const STEP: Duration = Duration::from_millis(20);

/// The names of containers. The pods of most tests have only the first.
pub(super) const CONTAINERS: [&str; 2] = ["app", "proxy"];

/// By how much a long line is longer than others: it needs two records of the runtime, which have 16 KiB.
const LONG_LINE: usize = 20_000;

/// The replicas, and everything that they are connected to.
#[derive(Debug)]
pub struct Fleet {
    pub(super) main: Runtime,
    now: Instant,
    /// The cluster whose pods are collected.
    pub sim: SimCluster,
    /// The table of claims.
    pub table: MemoryTable,
    /// The sink of all replicas.
    pub ledger: Ledger,
    /// The replicas, including frozen ones.
    pub replicas: Vec<SimReplica>,
    /// The namespaces whose pods replicas collect that are added; empty for all.
    pub namespaces: Vec<String>,
    /// Label selector of replicas that are added; `None` for all pods.
    pub labels: Option<String>,
    /// The most pods that a replica holds, for replicas that are added.
    pub max_pods: usize,
    /// Whether the writers of a replica share requests to the sink, for replicas that are added.
    pub grouped: bool,
    /// The breaches found so far.
    pub breaches: Breaches,
    fences: Fences,
    calls: Arc<AtomicU64>,
    /// The running time of all replicas together.
    running_time: Duration,
    started: usize,
    lines: usize,
}

impl Fleet {
    /// A fleet without replicas and pods. The sink behaves like a database if it is `fencing`, otherwise like a file.
    /// All random numbers come from the seed.
    #[must_use]
    pub fn new(fencing: bool, seed: u64) -> Self {
        fastrand::seed(seed);
        let nanos = fastrand::i32(0..1_000_000_000);
        let begins = jiff::Timestamp::from_nanosecond(1_800_000_000_000_000_000 + i128::from(nanos));
        let (main, breaches) = (runtime(), Breaches::default());
        // An hour ahead of real time, so that the clocks of later runtimes can be moved to it.
        let now = main.block_on(async {
            tokio::time::advance(Duration::from_hours(1)).await;
            // The clock starts with the first reading.
            let begin = Clock::tokio().now();
            debug_assert!(!begin.is_zero());
            Instant::now()
        });
        let guard = main.enter();
        let sim = SimCluster::new(kube_sim::SimSettings {
            now: begins.unwrap_or_default(),
            ..kube_sim::SimSettings::default()
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
            namespaces: Vec::new(),
            labels: None,
            max_pods: 10_000,
            grouped: false,
            breaches,
            fences: Fences::default(),
            calls: Arc::default(),
            running_time: Duration::ZERO,
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

    /// Starts a replica, and returns its index.
    pub fn add_replica(&mut self) -> usize {
        self.started += 1;
        let name = format!("r{}", self.started);
        let (runtime, control) = (runtime(), StoreControl::default());
        catch_up(&runtime, self.now);
        let store = Arc::new(FaultyLocks {
            inner: self.holder(&name),
            control: control.clone(),
            fences: self.fences.clone(),
            calls: self.calls.clone(),
            repeats: self.ledger.repeats.clone(),
            breaches: self.breaches.clone(),
        });
        let options = ReplicaOptions {
            namespaces: self.namespaces.clone(),
            labels: self.labels.clone(),
            max_pods: self.max_pods,
            grouped: self.grouped,
        };
        let mut replica = SimReplica::new(name, runtime, control, &self.ledger);
        replica.start(&options, store, &self.sim, self.breaches.clone());
        self.replicas.push(replica);
        self.replicas.len() - 1
    }

    /// Lets time pass in steps, and checks rules after each step. Stops at the first breach.
    pub fn pass_for(&mut self, time: Duration) -> Result<(), Breach> {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            self.main.block_on(async { tokio::time::sleep_until(now).await });
            for replica in self.replicas.iter().filter(|replica| !replica.frozen) {
                replica.runtime.block_on(async { tokio::time::sleep_until(now).await });
                self.running_time += STEP;
            }
            self.ledger.check(self.time());
            if let Some(breach) = self.breaches.first() {
                return Err(breach);
            }
        }
        Ok(())
    }

    /// The number of calls to the lock store, and the running time of all replicas together.
    #[must_use]
    pub fn lock_calls(&self) -> (u64, Duration) {
        (self.calls.load(Ordering::Relaxed), self.running_time)
    }

    /// The virtual time, as an instant of tokio.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Kills a replica, as SIGKILL does. The indexes of later replicas decrease by one.
    pub fn kill(&mut self, at: usize) -> String {
        let replica = self.replicas.remove(at);
        replica.name
    }

    /// Asks a replica to stop.
    pub fn ask_to_stop(&mut self, at: usize) {
        self.replicas[at].stop.cancel();
    }

    /// Whether all parts of a replica have ended.
    pub fn has_ended(&mut self, at: usize) -> bool {
        let replica = &mut self.replicas[at];
        while let Some(ended) = replica.tasks.try_join_next() {
            if let Err(error) = ended {
                self.breaches.record(Rule::Alive, error);
            } else if !replica.stop.is_cancelled() {
                self.breaches
                    .record(Rule::Alive, format!("a part of {} has ended", replica.name));
            }
        }
        replica.tasks.is_empty()
    }

    /// Removes replicas that have stopped.
    pub fn remove_ended(&mut self) {
        for at in (0..self.replicas.len()).rev() {
            if self.has_ended(at) {
                self.kill(at);
            }
        }
    }

    /// Freezes a replica, as SIGSTOP does.
    pub fn freeze(&mut self, at: usize) {
        self.replicas[at].frozen = true;
    }

    /// Continues a frozen replica. Its clock jumps to the present time.
    pub fn thaw(&mut self, at: usize) {
        let now = self.now;
        let replica = &mut self.replicas[at];
        replica.frozen = false;
        catch_up(&replica.runtime, now);
    }

    /// Creates the pod `shop/p<n>` with a running container `app`.
    pub fn create_pod(&mut self) -> SimPod {
        self.lines += 1;
        let name = format!("p{}", self.lines);
        let node = format!("n{}", self.lines % 12);
        let spec = PodSpec::new("shop", name).node(node).label("app", "shop").app("app");
        self.create(spec)
    }

    /// Creates a pod and starts its containers.
    ///
    /// # Panics
    /// If a pod of that name exists, or the pod has no such container.
    #[expect(clippy::expect_used, reason = "only a mistake of the caller makes it fail")]
    pub fn create(&mut self, spec: PodSpec) -> SimPod {
        let _inside = self.main.enter();
        let pod = self.sim.create(spec).expect("a new name");
        pod.start(CONTAINERS[0]).expect("a container app");
        // Most pods have no second container.
        pod.start(CONTAINERS[1]).ok();
        pod
    }

    /// Changes the cluster at the present virtual time.
    pub fn change_cluster<T>(&self, act: impl FnOnce(&SimCluster) -> T) -> T {
        let _inside = self.main.enter();
        act(&self.sim)
    }

    /// Lets every running pod write a line.
    pub fn write_all(&mut self) {
        for pod in self.sim.pods() {
            self.write(&pod);
        }
    }

    /// Lets each running container of a pod write a line.
    pub fn write(&mut self, pod: &SimPod) {
        let _inside = self.main.enter();
        for container in CONTAINERS.iter().filter(|container| pod.is_running(container)) {
            self.lines += 1;
            pod.line(container, format!("line {}", self.lines)).ok();
        }
    }

    /// Lets a container write this many lines, if it runs. Every third is on stderr, every 50th is longer than a record of
    /// the runtime. An even number of lines has one timestamp.
    pub(super) fn write_burst(&mut self, pod: &SimPod, container: &str, lines: u32) {
        let last = |sim: &SimCluster| {
            let mut logs = sim.written();
            logs.retain(|log| log.instance.uid == pod.uid() && log.instance.container == container);
            logs.pop().and_then(|mut log| log.lines.pop())
        };
        // A line on stderr would be served in the middle of an unfinished one.
        let half = last(&self.sim).is_some_and(|line| line.message.ends_with(b" "));
        let _inside = self.main.enter();
        let mut stamp = None;
        for number in 0..lines {
            self.lines += 1;
            let more = if self.lines.is_multiple_of(50) { LONG_LINE } else { 0 };
            let message = format!("line {}{}", self.lines, ".".repeat(more));
            let text = if number > 0 && self.lines.is_multiple_of(3) && !half {
                Text::err(message)
            } else {
                Text::out(message)
            };
            pod.write(container, &stamp.map_or(text.clone(), |stamp| text.at(stamp)))
                .ok();
            if number == 0 && lines.is_multiple_of(2) {
                stamp = last(&self.sim).map(|line| line.time);
            }
        }
    }

    /// Lets a container write an incomplete line, if it runs. The line ends with a space. Every fourth is longer than a
    /// record of the runtime.
    pub(super) fn write_half_line(&mut self, pod: &SimPod, container: &str) {
        let _inside = self.main.enter();
        self.lines += 1;
        let more = if self.lines.is_multiple_of(4) { LONG_LINE } else { 0 };
        let half = Text::out(format!("half {}{} ", self.lines, ".".repeat(more))).partial();
        pod.write(container, &half).ok();
    }

    /// Calls a lock store on the table, without faults.
    pub fn query_locks<T, F: Future<Output = T>>(&self, query: impl FnOnce(MemoryLocks) -> F) -> T {
        self.main.block_on(query(self.holder("observer")))
    }

    /// All rows of the table.
    #[must_use]
    pub fn lock_table(&self) -> LockTable {
        // A table in memory never fails.
        self.query_locks(|locks| async move { locks.table().await.unwrap_or_default() })
    }

    /// How many pods each replica holds.
    #[must_use]
    pub fn pods_by_replica(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for name in self.holders().into_values() {
            *shares.entry(name).or_default() += 1;
        }
        shares
    }

    /// The holder of each pod whose claim has not expired.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<String, String> {
        let rows = self.lock_table().rows.into_iter();
        let held = rows.filter_map(|(key, row)| {
            let owner = row.owner.filter(|_| row.expires_in > 0)?;
            Some((key.pod()?.to_string(), owner.to_string()))
        });
        held.collect()
    }

    /// Compares the stored lines with the written ones. Every line must be stored by now.
    #[must_use]
    pub fn audit(&self) -> LedgerAudit {
        ledger_audit::audit(&self.ledger, &self.sim.written(), true)
    }

    /// The virtual time, as the replicas' clocks show it.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.main.block_on(async { crate::clock::Clock::tokio().now() })
    }
}

/// The key of a pod's row.
#[must_use]
pub fn pod_key(pod: &SimPod) -> LockKey {
    LockKey::Pod(pod.uid().into())
}
