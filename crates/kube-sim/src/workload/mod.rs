//! A busy cluster from a seed: busy and quiet services, short jobs, crash loops and pods of several containers, writing
//! everything that has ever confused a collector. It only drives a [`SimCluster`]; it measures and judges nothing.

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

/// What a busy cluster consists of.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Two workloads with the same seed do the same.
    pub seed: u64,
    /// Pods at the beginning. Jobs add theirs as time goes on.
    pub pods: usize,
    /// Nodes they are spread over.
    pub nodes: usize,
    /// How long lines are written.
    pub duration: Duration,
    /// Lines per second, all pods together, on average.
    pub rate: u32,
    /// Pause between two jobs of one series.
    pub job_interval: Duration,
    /// First pause of a crash loop; each is twice as long as the one before.
    pub first_backoff: Duration,
    /// The longest pause of a crash loop.
    pub max_backoff: Duration,
    /// With it three of four pods that serve are deleted and come again under the same name: the first ones after a
    /// quarter to nine quarters of this time, later ones after once to three times as long.
    pub lifetime: Option<Duration>,
    /// How long finished jobs stay before they are deleted; without it for ever.
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

/// How many of twenty pods have each behavior.
const BEHAVIORS: [(Behavior, usize); 5] = [
    (Behavior::Chatty, 10),
    (Behavior::Quiet, 4),
    (Behavior::Several, 2),
    (Behavior::Jobs, 2),
    (Behavior::Crashing, 2),
];

impl Workload {
    /// Drives the cluster until `duration` has passed or `stop` is cancelled. Running pods then stay, silent.
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
                // Another caller has removed the pod or ended its container; it is not driven any further.
                Err(error) => tracing::debug!(%error, "a pod of the workload was taken away"),
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
            // No two pods alike: each has between half and one and a half times its share.
            rate: unit * behavior.weight() * (0.5 + rng.f64()),
            job_interval: self.job_interval,
            first_backoff: self.first_backoff,
            max_backoff: self.max_backoff,
            lifetime: self.lifetime,
            job_retention: self.job_retention,
            rng: rng.fork(),
            steps: 0,
            age: Duration::ZERO,
            leaves: None,
            deletion_step: 0,
            lives: 0,
            finished: VecDeque::new(),
            lines: 0,
            stamp: 0,
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
    async fn one_seed_is_one_history() {
        let lines =
            |truth: &[WrittenLog]| -> Vec<_> { truth.iter().map(|t| (t.instance.clone(), t.lines.clone())).collect() };
        let (first, again, other) = (run(7).await, run(7).await, run(8).await);
        assert!(lines(&first) == lines(&again));
        assert!(lines(&first) != lines(&other));
    }

    #[tokio::test(start_paused = true)]
    async fn pods_come_and_go_for_as_long_as_lines_are_written() {
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
        // Of 60 pods, six are jobs that come every 5 to 8 s and stay for a minute.
        let there = cluster.pods().len();
        assert!((90..140).contains(&there), "{there} pods are there");
        let mut services = HashMap::<_, HashSet<_>>::new();
        let truth = cluster.written();
        for instance in truth.iter().map(|t| &t.instance) {
            services.entry(&instance.pod).or_default().insert(&instance.uid);
        }
        let again = services.values().filter(|uids| uids.len() >= 3).count();
        assert!(again >= 30, "{again} names were used again and again");
        assert!(truth.iter().any(|t| t.instance.restart_count >= 15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_holds_everything_that_confuses_collectors() {
        let truth = run(1).await;
        let pods: HashSet<_> = truth.iter().map(|t| &t.instance.uid).collect();
        assert!(pods.len() > 100, "jobs add pods: {}", pods.len());
        let lines: Vec<_> = truth.iter().flat_map(|t| &t.lines).collect();
        assert!(
            (120_000..240_000).contains(&lines.len()),
            "{} lines in a minute",
            lines.len()
        );
        assert!(truth.iter().any(|t| t.instance.restart_count >= 2));
        assert!(lines.iter().any(|line| line.message.is_empty()));
        assert!(lines.iter().any(|line| line.message.len() > 16 * 1024));
        assert!(lines.iter().any(|line| std::str::from_utf8(&line.message).is_err()));
        let pairs = truth.iter().flat_map(|t| t.lines.windows(2));
        let mut kinds = BTreeMap::<_, usize>::new();
        for pair in pairs {
            *kinds.entry(pair[0].time.cmp(&pair[1].time)).or_default() += 1;
        }
        assert_eq!(kinds.len(), 3, "stamps grow, repeat and go back: {kinds:?}");
    }
}
