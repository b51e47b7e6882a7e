//! The steps of each pod of a workload. Each pod has its own random numbers, so it never depends on other pods.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use super::text;
use crate::{ContainerKind, PodSpec, RestartPolicy, SimCluster, SimError, SimPod};

/// Namespaces, and the services in them.
const NAMES: [(&str, &str); 6] = [
    ("shop", "cart"),
    ("shop", "checkout"),
    ("shop", "search"),
    ("bank", "ledger"),
    ("bank", "fraud"),
    ("media", "encoder"),
];

/// How a pod behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behavior {
    /// A service that writes in bursts, many lines per second.
    Chatty,
    /// A service that writes a line every few seconds.
    Quiet,
    /// A service with an init container, an app container and a sidecar.
    Several,
    /// A series of short jobs. Each job is a new pod.
    Jobs,
    /// A crash loop: it fails after a few lines each time.
    Crashing,
}

impl Behavior {
    /// The share of the total rate. A behavior with the weight 0 has a fixed rate.
    pub(super) fn weight(self) -> f64 {
        match self {
            Self::Chatty => 1.0,
            Self::Several => 0.8,
            Self::Quiet | Self::Jobs | Self::Crashing => 0.0,
        }
    }
}

#[derive(Debug)]
pub(super) struct WorkloadPod {
    pub(super) behavior: Behavior,
    pub(super) index: usize,
    pub(super) node: String,
    /// Lines per second.
    pub(super) rate: f64,
    pub(super) job_interval: Duration,
    pub(super) first_backoff: Duration,
    pub(super) max_backoff: Duration,
    /// The least time for which a pod of a service lives; `None` if none is deleted.
    pub(super) lifetime: Option<Duration>,
    /// How long a finished job is kept; `None` for ever.
    pub(super) job_retention: Option<Duration>,
    pub(super) rng: Rng,
    /// How many steps were done with the present pod, or with this series of jobs.
    pub(super) steps: u32,
    /// Time since the workload began.
    pub(super) age: Duration,
    /// The age at which the present pod is deleted, if it is.
    pub(super) delete_at: Option<Duration>,
    /// How many steps of the deletion are done.
    pub(super) deletion_step: u32,
    /// How many pods have been deleted.
    pub(super) deletions: u32,
    /// Finished jobs, each with the age at which it finished.
    pub(super) finished: VecDeque<(Duration, SimPod)>,
    /// How many lines have been written.
    pub(super) lines: u64,
    pub(super) last_timestamp: i64,
    /// The present pod; `None` before it is created.
    pub(super) pod: Option<SimPod>,
}

impl WorkloadPod {
    /// Does the next step, and returns the pause after it.
    pub(super) fn step(&mut self, cluster: &SimCluster) -> Result<Duration, SimError> {
        let step = self.steps;
        self.steps += 1;
        let pause = match self.behavior {
            Behavior::Chatty | Behavior::Quiet | Behavior::Several => match self.delete_if_due(step, cluster)? {
                Some(pause) => pause,
                None => self.serve(step, cluster)?,
            },
            Behavior::Jobs => self.job(step, cluster)?,
            Behavior::Crashing => self.crash(step, cluster)?,
        };
        self.age += pause;
        Ok(pause)
    }

    /// Deletes the pod when that is due, in three steps: it is marked as being deleted and writes some more lines, its
    /// containers exit, and it is removed. After that `serve` creates another pod of the same name.
    fn delete_if_due(&mut self, step: u32, cluster: &SimCluster) -> Result<Option<Duration>, SimError> {
        let due = self.delete_at.is_some_and(|at| self.age >= at) && step > 2;
        let Some(pod) = self.pod.clone().filter(|_| due) else {
            return Ok(None);
        };
        self.deletion_step += 1;
        let pause = match self.deletion_step {
            1 => {
                pod.terminate()?;
                let lines = self.rng.u64(0..=5);
                self.write(&pod, "app", lines, cluster)?;
                self.millis(50, 1_500)
            }
            2 => {
                pod.exit_all(143)?;
                self.millis(50, 1_500)
            }
            _ => {
                pod.remove()?;
                (self.pod, self.delete_at) = (None, None);
                (self.steps, self.deletion_step) = (0, 0);
                self.deletions += 1;
                self.millis(0, 3_000)
            }
        };
        Ok(Some(pause))
    }

    /// The age at which a pod that is created now is deleted. The first ones are deleted sooner, so that not all are
    /// deleted at the same time. Every fourth is never deleted.
    fn next_deletion(&mut self) -> Option<Duration> {
        let lifetime = self.lifetime.filter(|_| !self.index.is_multiple_of(4))?;
        let least = if self.deletions == 0 { lifetime / 4 } else { lifetime };
        Some(self.age + least + lifetime.mul_f64(2.0 * self.rng.f64()))
    }

    /// A service: its containers start within the first second, and write until the pod is deleted.
    fn serve(&mut self, step: u32, cluster: &SimCluster) -> Result<Duration, SimError> {
        let Some(pod) = self.pod.clone() else {
            let (_, service) = self.names();
            let spec = self
                .spec(format!("{service}-{}", self.index))
                .owner("ReplicaSet", service);
            let spec = match self.behavior {
                Behavior::Several => spec
                    .container(ContainerKind::Init, "init")
                    .container(ContainerKind::Sidecar, "proxy")
                    .app("app"),
                _ => spec.app("app"),
            };
            self.pod = Some(cluster.create(spec)?);
            self.delete_at = self.next_deletion();
            return Ok(self.millis(10, 800));
        };
        if step == 1 {
            if self.behavior == Behavior::Several {
                pod.start("init")?;
                self.write(&pod, "init", 3, cluster)?;
                pod.exit("init", 0)?;
                pod.start("proxy")?;
            }
            pod.start("app")?;
            return Ok(self.millis(1, 300));
        }
        if self.behavior == Behavior::Quiet {
            self.write(&pod, "app", 1, cluster)?;
            return Ok(self.millis(1_000, 6_000));
        }
        let pause = self.millis(50, 450);
        let lines = self.rate * pause.as_secs_f64() * (0.3 + 1.4 * self.rng.f64());
        let container = if self.behavior == Behavior::Several && self.rng.bool() {
            "proxy"
        } else {
            "app"
        };
        // The fraction is the probability of one more line.
        let lines = lines.trunc() + f64::from(u8::from(self.rng.f64() < lines.fract()));
        self.write(&pod, container, lines as u64, cluster)?;
        Ok(pause)
    }

    /// A series of jobs: each is created, starts, writes twice and exits within a second. Then the next one follows.
    fn job(&mut self, step: u32, cluster: &SimCluster) -> Result<Duration, SimError> {
        let (_, service) = self.names();
        let (number, stage) = (step / 5, step % 5);
        match (stage, self.pod.clone()) {
            (1, Some(pod)) => {
                pod.start("job")?;
                Ok(self.millis(0, 100))
            }
            (2 | 3, Some(pod)) => {
                let lines = self.rng.u64(2..=25);
                self.write(&pod, "job", lines, cluster)?;
                Ok(self.millis(5, 400))
            }
            (4, Some(pod)) => {
                self.maybe_partial_line(&pod, "job", 6)?;
                pod.exit("job", 0)?;
                self.pod = None;
                self.finished.push_back((self.age, pod));
                Ok(self.job_interval + self.millis(0, 1_000))
            }
            _ => {
                self.clear_finished()?;
                let job = format!("{service}-report-{}-{number}", self.index);
                let spec = self
                    .spec(job.clone())
                    .owner("Job", job)
                    .restart_policy(RestartPolicy::Never)
                    .app("job");
                self.pod = Some(cluster.create(spec)?);
                Ok(self.millis(20, 300))
            }
        }
    }

    /// Removes the jobs that finished long enough ago.
    fn clear_finished(&mut self) -> Result<(), SimError> {
        let Some(job_retention) = self.job_retention else {
            return Ok(());
        };
        while let Some((_, pod)) = self
            .finished
            .pop_front_if(|(since, _)| *since + job_retention <= self.age)
        {
            pod.remove()?;
        }
        Ok(())
    }

    /// A crash loop: the container starts, writes, fails and waits. Each wait is twice as long as the one before.
    fn crash(&mut self, step: u32, cluster: &SimCluster) -> Result<Duration, SimError> {
        let Some(pod) = self.pod.clone() else {
            let (_, service) = self.names();
            let spec = self
                .spec(format!("{service}-broken-{}", self.index))
                .owner("ReplicaSet", service)
                .app("app");
            self.pod = Some(cluster.create(spec)?);
            return Ok(self.millis(20, 300));
        };
        let (round, stage) = ((step - 1) / 3, (step - 1) % 3);
        match stage {
            0 => {
                pod.start("app")?;
                let lines = self.rng.u64(3..=30);
                self.write(&pod, "app", lines, cluster)?;
                Ok(self.millis(10, 900))
            }
            1 => {
                self.write(&pod, "app", 1, cluster)?;
                self.maybe_partial_line(&pod, "app", 2)?;
                pod.exit("app", 1)?;
                Ok(self.millis(20, 200))
            }
            _ => {
                pod.set_waiting("app", "CrashLoopBackOff")?;
                Ok((self.first_backoff * 2_u32.saturating_pow(round.min(5))).min(self.max_backoff))
            }
        }
    }

    /// Writes a last line without a newline, with a probability of 1 in `odds`.
    fn maybe_partial_line(&mut self, pod: &SimPod, container: &str, odds: u32) -> Result<(), SimError> {
        if self.rng.u32(..odds) == 0 {
            self.lines += 1;
            pod.write(container, &text::plain(&mut self.rng, self.lines).partial())?;
        }
        Ok(())
    }

    fn write(&mut self, pod: &SimPod, container: &str, lines: u64, cluster: &SimCluster) -> Result<(), SimError> {
        for _ in 0..lines {
            self.lines += 1;
            let text = text::any(&mut self.rng, self.lines);
            let text = match self.rng.u32(..100) {
                // The same timestamp again: some runtimes take the time once for everything that they have read.
                0..3 if self.last_timestamp > 0 => text.at(self.last_timestamp),
                // An earlier timestamp: two threads of the runtime take the times of the two outputs.
                3 => text.at(cluster.now() - self.rng.i64(1..200_000_000)),
                _ => text,
            };
            self.last_timestamp = text.time.unwrap_or_else(|| cluster.now());
            pod.write(container, &text)?;
        }
        Ok(())
    }

    fn names(&self) -> (&'static str, &'static str) {
        NAMES[self.index % NAMES.len()]
    }

    fn spec(&self, name: String) -> PodSpec {
        let (namespace, service) = self.names();
        PodSpec::new(namespace, name)
            .node(self.node.clone())
            .label("app", service)
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..=to))
    }
}
