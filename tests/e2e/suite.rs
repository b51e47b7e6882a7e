//! The main suite: three replicas and pods of all kinds; after half of the time, one replica is killed and another one
//! gets SIGTERM.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kube_sim::audit::Audit;
use tokio::time::{sleep, sleep_until};

use crate::audit::{InstanceKey, LogLine, Records, count};
use crate::fixture::{self, Fixture, print_line};
use crate::holders::{HolderHistory, POLL};
use crate::node_logs::NodeLogRecorder;
use crate::pods;
use crate::replica::Replica;

/// The longest that a crashed replica's pods may be without a holder: the ttl of 20 s and 2 s.
const AFTER_KILL: Duration = Duration::from_secs(22);
/// The same after SIGTERM.
const AFTER_TERM: Duration = Duration::from_secs(2);

/// When pods stop writing, in seconds after the start.
const WRITING: u64 = 190;
/// When one replica is asked to stop. Another is killed 5 s later.
const HALF: u64 = 85;
/// When both are started again.
const BACK: u64 = 125;

/// The state of the suite, which runs for a few minutes.
struct Suite {
    fixture: Fixture,
    began: Instant,
    end: u64,
    holders: HolderHistory,
    replicas: Vec<Replica>,
    cpu: f64,
    /// Pods of the killed and of the ended replica.
    killed: BTreeSet<String>,
    ended: BTreeSet<String>,
    deleted: BTreeSet<String>,
    takeover: [Duration; 2],
    late: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_stored_once_and_in_order_while_replicas_are_killed() {
    fixture::run(async |fixture| {
        let node_logs = NodeLogRecorder::watch(&fixture.namespace);
        let mut suite = Suite::begin(fixture).await;
        suite.create_pods().await;
        suite.jobs_and_deletions().await;
        suite.stop_and_kill().await;
        suite.start_again().await;
        suite.finish().await;
        suite.assert_result(node_logs).await;
    })
    .await;
}

impl Suite {
    async fn begin(fixture: Fixture) -> Self {
        let replicas = ["a", "b", "c"].map(|name| fixture.replica(name)).into();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            began: Instant::now(),
            end: now.as_secs() + WRITING,
            holders: HolderHistory::watch(fixture.sql().await),
            fixture,
            replicas,
            cpu: 0.0,
            killed: BTreeSet::new(),
            ended: BTreeSet::new(),
            deleted: BTreeSet::new(),
            takeover: [Duration::ZERO; 2],
            late: Vec::new(),
        }
    }

    async fn at(&self, second: u64) {
        sleep_until((self.began + Duration::from_secs(second)).into()).await;
    }

    fn report_progress(&self, what: &str) {
        let shares = self.holders.shares();
        print_line(&format!(
            "e2e: {:5.1} s {what}; {shares:?}",
            self.began.elapsed().as_secs_f64()
        ));
    }

    async fn create_pods(&self) {
        let pods = pods::all(self.end);
        for pod in &pods {
            self.fixture.create(pod).await;
        }
        self.fixture.all_started().await;
        self.report_progress(&format!("{} pods have started", pods.len()));
    }

    /// Creates jobs that end while the replicas run, deletes pods, and creates pods again under the same name.
    async fn jobs_and_deletions(&mut self) {
        for n in 0..6 {
            self.fixture.create(&pods::job(&format!("latejob-{n}"))).await;
        }
        for name in ["deleted-0", "deleted-1", "again-0"] {
            self.delete(name).await;
        }
        self.create_again("again-0").await;
        self.report_progress("jobs, deletions, one pod again");
    }

    async fn delete(&mut self, name: &str) {
        let pod = self.fixture.pods().get(name).await.unwrap();
        self.deleted.insert(pod.metadata.uid.unwrap());
        self.fixture.delete(name).await;
    }

    async fn create_again(&self, name: &str) {
        fixture::until("the pod is deleted", fixture::PATIENCE, async || {
            let there = self.fixture.pods().get_opt(name).await.unwrap();
            there.is_none().then_some(()).ok_or("it exists".to_owned())
        })
        .await;
        self.fixture.create(&pods::chatty(name, self.end)).await;
    }

    /// Stops one replica with SIGTERM and kills another, and measures how long their pods have no holder.
    async fn stop_and_kill(&mut self) {
        self.at(HALF).await;
        self.ended = self.holders.held_by("b");
        self.cpu += self.replicas[1].cpu();
        let ended = Instant::now();
        self.replicas[1].terminate();
        self.replicas[1].ended().await;
        sleep(AFTER_TERM + POLL).await;
        self.report_progress("b has ended");
        self.at(HALF + 5).await;
        self.takeover[1] = self.check("b", &self.ended.clone(), ended, AFTER_TERM).await;
        self.killed = self.holders.held_by("a");
        self.cpu += self.replicas[0].cpu();
        let killed = Instant::now();
        self.replicas[0].kill();
        self.report_progress("a was killed");
        // Creates and deletes pods while the killed replica's pods have no holder.
        for name in ["deleted-2", "deleted-3", "again-1"] {
            self.delete(name).await;
        }
        for n in 6..9 {
            self.fixture.create(&pods::job(&format!("latejob-{n}"))).await;
        }
        self.create_again("again-1").await;
        sleep((killed + AFTER_KILL + 2 * POLL).saturating_duration_since(Instant::now())).await;
        self.takeover[0] = self.check("a", &self.killed.clone(), killed, AFTER_KILL).await;
        self.report_progress("others hold a's pods");
    }

    /// The longest takeover. Pods that are finished or deleted need no holder.
    async fn check(&mut self, from: &str, pods: &BTreeSet<String>, since: Instant, limit: Duration) -> Duration {
        assert!(!pods.is_empty(), "{from} held nothing");
        let mut sql = self.fixture.sql().await;
        let finished = "SELECT CONVERT(SUBSTRING(id, 5) USING utf8mb4) FROM distributed_lock WHERE state = 0";
        let open: Vec<String> = sqlx::query_scalar(finished).fetch_all(&mut sql).await.unwrap();
        let mut longest = Duration::ZERO;
        for (uid, time) in self.holders.takeovers(pods, from, since) {
            match time {
                Some(time) => longest = longest.max(time),
                None if open.contains(&uid) && !self.deleted.contains(&uid) => {
                    self.late.push(format!("nobody took {uid} from {from}"));
                }
                None => {}
            }
        }
        if longest > limit + 2 * POLL {
            self.late.push(format!(
                "{from}'s pods were taken over after {longest:?}, not {limit:?}"
            ));
        }
        longest
    }

    async fn start_again(&mut self) {
        self.at(BACK).await;
        self.replicas[0] = self.fixture.replica("a");
        self.replicas[1] = self.fixture.replica("b");
        self.at(WRITING).await;
        self.report_progress("writers end");
    }

    /// Waits until nothing more is stored, then ends the replicas.
    async fn finish(&mut self) {
        for n in 0..4 {
            self.delete(&format!("crash-{n}")).await;
        }
        let mut sql = self.fixture.sql().await;
        let (mut last, mut since) = (-1, Instant::now());
        // Longer than the interval between two retries after the first success.
        while since.elapsed() < Duration::from_secs(8) {
            let now = count(&mut sql).await;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            assert!(
                self.began.elapsed() < Duration::from_mins(5),
                "records are still being stored: {last}"
            );
            sleep(Duration::from_millis(500)).await;
        }
        self.report_progress("nothing more is stored");
        for replica in &mut self.replicas {
            assert!(replica.is_running(), "{} has ended by itself", replica.name);
            self.cpu += replica.cpu();
            replica.terminate();
        }
        let memory: Vec<u64> = self.replicas.iter().map(Replica::memory).collect();
        print_line(&format!("e2e: memory_mib={memory:?}"));
        for replica in &mut self.replicas {
            replica.ended().await;
        }
    }

    async fn assert_result(&self, node_logs: Option<NodeLogRecorder>) {
        let records = Records::load(&mut self.fixture.sql().await).await;
        let by_number = records.faults_by_number();
        let written = node_logs.map_or_else(|| records.streams.clone(), NodeLogRecorder::lines);
        let sum = records.audit(&written);
        let unexplained_gaps = self.unexplained_gaps(&records);
        self.report(&records, &sum, records.needless_gaps(&written));
        let fine = sum.is_clean() && by_number.is_empty() && unexplained_gaps.is_empty() && self.late.is_empty();
        if !fine || records.needless_gaps(&written) > 0 {
            records.explain(&written);
            print_line(&format!("held by the killed replica: {:?}", self.killed));
        }
        assert!(sum.is_clean(), "{sum}");
        assert!(by_number.is_empty(), "by number: {by_number:#?}");
        assert!(
            unexplained_gaps.is_empty(),
            "gap records without a cause: {unexplained_gaps:#?}"
        );
        assert!(self.late.is_empty(), "{:#?}", self.late);
        Self::check_exact(&records, &written);
    }

    /// Gap records without a cause: of streams whose pod had the same holder all the time and was not deleted.
    fn unexplained_gaps(&self, records: &Records) -> Vec<String> {
        let moved = self.holders.moved();
        let explained = |uid: &String| self.killed.contains(uid) || self.deleted.contains(uid) || moved.contains(uid);
        let odd = records.gaps.iter().filter(|gap| !explained(&gap.key.uid));
        odd.map(|gap| format!("{} {}", gap.key.uid, gap.show())).collect()
    }

    fn report(&self, records: &Records, sum: &Audit, needless: usize) {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for gap in &records.gaps {
            let whose = if self.killed.contains(&gap.key.uid) {
                "killed"
            } else if self.deleted.contains(&gap.key.uid) {
                "deleted"
            } else {
                "other"
            };
            *reasons.entry(whose).or_default() += 1;
        }
        print_line(&format!(
            "e2e: pods={} streams={} {sum} gap_records={reasons:?} needless_gaps={needless} takeover_kill_s={:.1} takeover_term_s={:.1} \
             cpu_s={:.1} total_s={:.0}",
            records.names.len(),
            records.streams.len(),
            self.takeover[0].as_secs_f64(),
            self.takeover[1].as_secs_f64(),
            self.cpu,
            self.began.elapsed().as_secs_f64(),
        ));
    }

    /// The exact lines of some pods, known without the node's log files.
    fn check_exact(records: &Records, written: &BTreeMap<InstanceKey, Vec<LogLine>>) {
        for n in 0..9 {
            let name = format!("latejob-{n}");
            let streams = records.of_pod(&name);
            let lines: Vec<usize> = streams.iter().map(|(_, lines)| lines.len()).collect();
            assert_eq!(lines, [31], "{name}");
        }
        let streams = records.of_pod("odd-0");
        let messages: Vec<&[u8]> = streams[0].1.iter().map(|line| line.message.as_slice()).collect();
        assert!(messages.contains(&b"\xff\xfe\0\x80 bytes".as_slice()));
        assert_eq!(messages.last(), Some(&b"no line end".as_slice()));
        assert_eq!(messages.iter().filter(|m| **m == b"same").count(), 12);
        for name in ["long-0", "long-1"] {
            let cut = records.of_pod(name)[0].1.iter().filter(|line| line.cut > 0).count();
            assert_eq!(cut, 6, "{name}");
        }
        let instances = records.of_pod("again-0").len();
        assert_eq!(instances, 2, "both incarnations of again-0");
        assert!(written.len() >= 90, "{} streams", written.len());
    }
}
