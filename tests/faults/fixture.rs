//! The fixture of a scenario: a simulated cluster behind a port, pods that write until the end, replicas as processes,
//! and the audit at the end. It injects no fault by itself.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube_sim::audit::Audit;
use kube_sim::{PodSpec, SimCluster, SimSettings};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::audit::{audit, stored, written};
use crate::database::{Claim, Database, until};
use crate::proxy::Proxy;
use crate::replica::{Replica, ReplicaSettings, TIMES};

/// The longest that anything awaited here takes on a busy machine: four of the 30 s that a writer may wait before it
/// tries the sink again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often each pod writes a line, if a scenario says nothing else.
const EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Fixture<'a> {
    /// Where claims are.
    pub(crate) database: &'a Database,
    /// Where records are: in the same database, if a scenario says nothing else.
    pub(crate) records: &'a Database,
    pub(crate) sim: SimCluster,
    /// Between replicas and the API server.
    pub(crate) api: Proxy,
    pub(crate) dir: tempfile::TempDir,
    /// How often each pod writes a line.
    pub(crate) every: Duration,
    kubeconfig: PathBuf,
    pods: usize,
    writing: JoinSet<()>,
    _server: JoinSet<()>,
}

impl<'a> Fixture<'a> {
    /// A cluster that will have this many pods once the first replicas are alive.
    pub(crate) async fn new(database: &'a Database, pods: usize) -> Self {
        let sim = SimCluster::new(SimSettings::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mut server, answering) = (JoinSet::new(), sim.clone());
        server.spawn(async move { answering.serve(listener, CancellationToken::new()).await });
        let api = Proxy::to(&address).await;
        // With KEEP=1 the logs and files of the replicas are kept for inspection.
        let keep = std::env::var("KEEP").as_deref() == Ok("1");
        let dir = tempfile::Builder::new().disable_cleanup(keep).tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters:\n- name: t\n  cluster:\n    \
             server: http://127.0.0.1:{}\nusers:\n- name: t\n  user: {{}}\ncontexts:\n- name: t\n  context:\n    \
             cluster: t\n    user: t\n",
            api.port
        );
        std::fs::write(&kubeconfig, text).unwrap();
        Self {
            database,
            records: database,
            sim,
            api,
            dir,
            every: EVERY,
            kubeconfig,
            pods,
            writing: JoinSet::new(),
            _server: server,
        }
    }

    /// Creates this many more pods, which write like all others; returns their UIDs.
    pub(crate) fn more_pods(&self, count: usize) -> Vec<String> {
        let first = self.sim.pods().len();
        let one = |n: usize| {
            let spec = PodSpec::new("shop", format!("p{n}"))
                .node(format!("n{}", n % 3))
                .app("app");
            let pod = self.sim.create(spec).unwrap();
            pod.start("app").unwrap();
            pod.uid().to_owned()
        };
        (first..first + count).map(one).collect()
    }

    /// Creates the pods and lets them write until [`Self::finish`].
    pub(crate) fn write(&mut self) {
        self.more_pods(self.pods);
        let (sim, every) = (self.sim.clone(), self.every);
        self.writing.spawn(async move {
            for n in 0_u64.. {
                for pod in sim.pods() {
                    pod.line("app", format!("line {n}")).ok();
                }
                tokio::time::sleep(every).await;
            }
        });
    }

    /// The command line of a replica.
    pub(crate) fn args(&self, name: &str, lock: &str, sink: &str) -> Vec<String> {
        let kubeconfig = self.kubeconfig.display().to_string();
        let own = [
            "--replica-id",
            name,
            "--lock",
            lock,
            "--sink",
            sink,
            "--kubeconfig",
            &kubeconfig,
        ];
        let all = ["podlog", "run"].into_iter().chain(TIMES).chain(own);
        all.map(str::to_owned).collect()
    }

    fn settings(&self, lock: &Proxy, sink: &Proxy) -> ReplicaSettings {
        ReplicaSettings {
            lock: self.database.through(lock.port),
            sink: self.records.through(sink.port),
            kubeconfig: self.kubeconfig.clone(),
            times: &TIMES,
            env: Vec::new(),
        }
    }

    /// A replica that keeps claims and records in the database.
    pub(crate) async fn replica(&self, name: &str) -> Replica {
        self.replica_with(name, |_| ()).await
    }

    /// A replica with some settings changed.
    pub(crate) async fn replica_with(&self, name: &str, change: impl FnOnce(&mut ReplicaSettings)) -> Replica {
        let lock = Proxy::to(&self.database.address()).await;
        let sink = Proxy::to(&self.records.address()).await;
        let mut settings = self.settings(&lock, &sink);
        change(&mut settings);
        Replica::start(name, self.dir.path(), &settings, lock, sink)
    }

    /// Replicas of these names that have come to share all pods between them.
    pub(crate) async fn replicas<const N: usize>(&mut self, names: [&str; N]) -> [Replica; N] {
        let replicas = futures::future::join_all(names.map(|name| self.replica(name))).await;
        self.begin(N).await;
        self.all_held_by(&names).await;
        replicas.try_into().ok().unwrap()
    }

    /// Waits until this many replicas are at work. The pods come only then, if there are none yet: each replica has
    /// its share at once, and nothing needs to be moved.
    pub(crate) async fn begin(&mut self, replicas: usize) {
        if !self.sim.pods().is_empty() {
            return;
        }
        until(&format!("{replicas} replicas work"), PATIENCE, async || {
            let alive = self.database.replicas().await;
            (alive == replicas).then_some(()).ok_or_else(|| format!("{alive} are"))
        })
        .await;
        self.write();
    }

    /// Waits until every pod is held, all of these replicas hold some, and no other replica does. Returns how long it
    /// took.
    pub(crate) async fn all_held_by(&self, names: &[&str]) -> Duration {
        let begun = Instant::now();
        let pods = self.sim.pods().len();
        until(&format!("{names:?} hold all {pods} pods"), PATIENCE, async || {
            let shares = self.database.shares().await;
            let all = shares.values().sum::<usize>() == pods && shares.keys().eq(names.iter().copied());
            all.then_some(()).ok_or_else(|| format!("they hold {shares:?}"))
        })
        .await;
        begun.elapsed()
    }

    /// Waits until these hold equally many pods each and none has been on its way from one to another for a while;
    /// returns the claims.
    pub(crate) async fn even(&self, names: &[&str]) -> BTreeMap<String, Claim> {
        let share = self.sim.pods().len() / names.len();
        until(&format!("{names:?} hold {share} pods each"), PATIENCE, async || {
            let shares = self.database.shares().await;
            let even = shares.len() == names.len() && shares.values().all(|held| *held == share);
            let before = self.database.claims().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            // A pod that was handed over has its new holder's name in its row before that one takes it.
            let now = self.database.claims().await;
            (even && now == before)
                .then_some(now)
                .ok_or_else(|| format!("they hold {shares:?}"))
        })
        .await
    }

    /// The number of records stored so far.
    pub(crate) async fn stored(&self) -> i64 {
        self.records.stored().await.into_values().sum()
    }

    /// Waits until this many more records are stored of every stream.
    pub(crate) async fn progress(&self, records: i64) {
        let before = self.records.stored().await;
        let keys: Vec<_> = written(&self.sim).into_keys().map(|(uid, _, id)| (uid, id)).collect();
        until("every stream continues", PATIENCE, async || {
            let now = self.records.stored().await;
            let goal = |key| before.get(key).unwrap_or(&0) + records;
            let still: Vec<_> = keys
                .iter()
                .filter(|key| now.get(key).unwrap_or(&0) < &goal(key))
                .collect();
            still
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("these do not: {still:?}"))
        })
        .await;
    }

    /// Stops the pods' writing.
    pub(crate) async fn quiet(&mut self) {
        self.writing.shutdown().await;
    }

    /// Stops the pods' writing and waits until everything they wrote is stored or covered by a gap.
    pub(crate) async fn finish(&mut self) -> Audit {
        self.quiet().await;
        let wrote = written(&self.sim);
        let end = Instant::now() + PATIENCE;
        loop {
            let kept = stored(&mut self.records.sql().await).await;
            let (sum, findings) = audit(&wrote, &kept);
            if sum.lost == 0 || Instant::now() > end {
                assert!(sum.is_clean(), "{sum}: {findings:#?}");
                return sum;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The same, and there must be no gap.
    pub(crate) async fn finish_exactly(&mut self, what: &str) {
        let sum = self.finish().await;
        println!("{what}, {}: {sum}", self.database.address());
        assert_eq!(sum.gaps, 0, "{sum}");
        assert!(sum.written > 100, "{sum}");
    }
}

impl Drop for Fixture<'_> {
    /// Shows what the replicas said last when the test has failed.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.dir.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "log") {
                let words = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = words.lines().collect();
                let last = lines[lines.len().saturating_sub(25)..].join("\n");
                writeln!(std::io::stderr(), "---- {}\n{last}", entry.path().display()).ok();
            }
        }
    }
}
