//! A workload that a seed determines: busy and quiet services, short jobs, crash loops, and pods with several
//! containers. Their lines include everything that is known to confuse log collectors. It drives a [`SimCluster`] and
//! checks nothing.

mod pod;
mod text;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::pod::{Behavior, WorkloadPod};
use crate::{SimCluster, SimError};

/// The settings of a workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Two workloads with the same settings and the same seed do the same.
    pub seed: u64,
    /// How many pods there are at first. Jobs create further pods.
    pub pods: usize,
    /// How many nodes the pods run on.
    pub nodes: usize,
    /// How long the pods write lines.
    pub duration: Duration,
    /// How many lines all pods together write per second, on average.
    pub rate: u32,
    /// The time between two jobs of a series.
    pub job_interval: Duration,
    /// The first back-off of a crash loop. Each further one is twice as long.
    pub first_backoff: Duration,
    /// The longest back-off of a crash loop.
    pub max_backoff: Duration,
    /// If set, three of four pods of services are deleted and created again with the same name. The first pods live for
    /// a quarter to nine quarters of this time, later ones for one to three times this time.
    pub lifetime: Option<Duration>,
    /// How long finished jobs are kept; `None` for ever.
    pub job_retention: Option<Duration>,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            seed: 1,
            pods: 60,
            nodes: 4,
            duration: Duration::from_mins(1),
            rate: 3_000,
            job_interval: Duration::from_secs(5),
            first_backoff: Duration::from_secs(10),
            max_backoff: Duration::from_secs(320),
            lifetime: None,
            job_retention: None,
        }
    }
}

/// How many of every twenty pods have each behavior.
const BEHAVIORS: [(Behavior, usize); 5] = [
    (Behavior::Chatty, 10),
    (Behavior::Quiet, 4),
    (Behavior::Several, 2),
    (Behavior::Jobs, 2),
    (Behavior::Crashing, 2),
];

impl Workload {
    /// Drives the cluster until `duration` has passed or `stop` is cancelled. Pods that run then keep running but write
    /// nothing.
    pub async fn run(&self, cluster: &SimCluster, stop: &CancellationToken) -> Result<(), SimError> {
        let mut pods = self.pods();
        let mut due: BinaryHeap<_> = (0..pods.len()).map(|index| Reverse((Duration::ZERO, index))).collect();
        let started = Instant::now();
        while let Some(Reverse((at, index))) = due.pop() {
            if at >= self.duration {
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(started + at) => {}
            }
            match pods[index].step(cluster) {
                Ok(pause) => due.push(Reverse((at + pause, index))),
                Err(error @ SimError::Exists(..)) => return Err(error),
                // The test has removed the pod or ended its container, so the workload leaves it alone from now on.
                Err(error) => tracing::debug!(%error, "a pod of the workload was removed or stopped"),
            }
        }
        Ok(())
    }

    fn pods(&self) -> Vec<WorkloadPod> {
        let mut rng = Rng::with_seed(self.seed);
        let mut remaining = BEHAVIORS
            .iter()
            .flat_map(|(behavior, count)| std::iter::repeat_n(*behavior, *count))
            .cycle();
        let behaviors: Vec<Behavior> = remaining.by_ref().take(self.pods).collect();
        let weight: f64 = behaviors.iter().map(|behavior| behavior.weight()).sum();
        let unit = f64::from(self.rate) / weight.max(1.0);
        let pods = behaviors.iter().enumerate().map(|(index, behavior)| WorkloadPod {
            behavior: *behavior,
            index,
            node: format!("node-{}", index % self.nodes.max(1) + 1),
            // The rates of pods differ: each is between half and one and a half times the average.
            rate: unit * behavior.weight() * (0.5 + rng.f64()),
            job_interval: self.job_interval,
            first_backoff: self.first_backoff,
            max_backoff: self.max_backoff,
            lifetime: self.lifetime,
            job_retention: self.job_retention,
            rng: rng.fork(),
            steps: 0,
            age: Duration::ZERO,
            delete_at: None,
            deletion_step: 0,
            deletions: 0,
            finished: VecDeque::new(),
            lines: 0,
            last_timestamp: 0,
            pod: None,
        });
        pods.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use super::super::{SimSettings, WrittenLog};
    use super::*;

    async fn run(seed: u64) -> Vec<WrittenLog> {
        let cluster = SimCluster::new(SimSettings {
            now: jiff::Timestamp::UNIX_EPOCH,
            ..SimSettings::default()
        });
        let workload = Workload {
            seed,
            ..Workload::default()
        };
        workload.run(&cluster, &CancellationToken::new()).await.unwrap();
        cluster.written()
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_lines() {
        let lines =
            |logs: &[WrittenLog]| -> Vec<_> { logs.iter().map(|t| (t.instance.clone(), t.lines.clone())).collect() };
        let (first, again, other) = (run(7).await, run(7).await, run(8).await);
        assert!(lines(&first) == lines(&again));
        assert!(lines(&first) != lines(&other));
    }

    #[tokio::test(start_paused = true)]
    async fn pods_are_deleted_and_created_again_for_as_long_as_the_workload_runs() {
        let cluster = SimCluster::new(SimSettings::default());
        let workload = Workload {
            duration: Duration::from_mins(10),
            rate: 100,
            lifetime: Some(Duration::from_mins(1)),
            job_retention: Some(Duration::from_mins(1)),
            max_backoff: Duration::from_secs(30),
            ..Workload::default()
        };
        workload.run(&cluster, &CancellationToken::new()).await.unwrap();
        // Six of the 60 pods are series of jobs. Each creates a job every 5 to 8 s, which is kept for a minute.
        let count = cluster.pods().len();
        assert!((90..140).contains(&count), "there are {count} pods");
        let mut services = HashMap::<_, HashSet<_>>::new();
        let logs = cluster.written();
        for instance in logs.iter().map(|t| &t.instance) {
            services.entry(&instance.pod).or_default().insert(&instance.uid);
        }
        let again = services.values().filter(|uids| uids.len() >= 3).count();
        assert!(again >= 30, "{again} names were used three times or more");
        assert!(logs.iter().any(|t| t.instance.restart_count >= 15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_contains_every_kind_of_line_that_confuses_collectors() {
        let logs = run(1).await;
        let pods: HashSet<_> = logs.iter().map(|t| &t.instance.uid).collect();
        assert!(pods.len() > 100, "jobs add pods: {}", pods.len());
        let lines: Vec<_> = logs.iter().flat_map(|t| &t.lines).collect();
        assert!(
            (120_000..240_000).contains(&lines.len()),
            "{} lines in a minute",
            lines.len()
        );
        assert!(logs.iter().any(|t| t.instance.restart_count >= 2));
        assert!(lines.iter().any(|line| line.message.is_empty()));
        assert!(lines.iter().any(|line| line.message.len() > 16 * 1024));
        assert!(lines.iter().any(|line| std::str::from_utf8(&line.message).is_err()));
        let pairs = logs.iter().flat_map(|t| t.lines.windows(2));
        let mut kinds = BTreeMap::<_, usize>::new();
        for pair in pairs {
            *kinds.entry(pair[0].time.cmp(&pair[1].time)).or_default() += 1;
        }
        assert_eq!(kinds.len(), 3, "timestamps increase, repeat and decrease: {kinds:?}");
    }
}
