//! What each pod of a workload does, one step at a time. Each has random numbers of its own, so what it does never
//! depends on the others.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use super::text;
use crate::{ContainerKind, PodSpec, RestartPolicy, SimCluster, SimError, SimPod};

/// Namespaces and the services in them.
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
    /// Writes in bursts, many lines a second.
    Chatty,
    /// Writes a line every few seconds.
    Quiet,
    /// An init container, an app and a native sidecar.
    Several,
    /// One short job after another, each a pod of its own.
    Jobs,
    /// Fails after a few lines, again and again.
    Crashing,
}

impl Behavior {
    /// Share of the total rate. Behaviors without one have a rate of their own.
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
    /// How long a pod that serves lives at least; without it none is deleted.
    pub(super) lifetime: Option<Duration>,
    /// How long a finished job stays; without it for ever.
    pub(super) job_retention: Option<Duration>,
    pub(super) rng: Rng,
    pub(super) steps: u32,
    /// Time since the beginning.
    pub(super) age: Duration,
    /// When the present pod is deleted, if ever.
    pub(super) leaves: Option<Duration>,
    /// Number of steps of its deletion that are done.
    pub(super) deletion_step: u32,
    /// Pods deleted so far.
    pub(super) lives: u32,
    /// Jobs that have finished, and when.
    pub(super) finished: VecDeque<(Duration, SimPod)>,
    pub(super) lines: u64,
    pub(super) stamp: i64,
    pub(super) pod: Option<SimPod>,
}

impl WorkloadPod {
    /// Does the next thing and says how long to pause before the one after.
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

    /// Deletes the pod when that is due: it is told to end, writes something more, exits and is removed; then another
    /// of the same name is created.
    fn delete_if_due(&mut self, step: u32, cluster: &SimCluster) -> Result<Option<Duration>, SimError> {
        let due = self.leaves.is_some_and(|leaves| self.age >= leaves) && step > 2;
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
                (self.pod, self.leaves) = (None, None);
                (self.steps, self.deletion_step) = (0, 0);
                self.lives += 1;
                self.millis(0, 3_000)
            }
        };
        Ok(Some(pause))
    }

    /// When a pod that is created now is deleted. The first ones go sooner, so that not all go at the same time;
    /// every fourth stays.
    fn next_deletion(&mut self) -> Option<Duration> {
        let lifetime = self.lifetime.filter(|_| !self.index.is_multiple_of(4))?;
        let least = if self.lives == 0 { lifetime / 4 } else { lifetime };
        Some(self.age + least + lifetime.mul_f64(2.0 * self.rng.f64()))
    }

    /// Starts within the first second and then writes until it is deleted.
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
            self.leaves = self.next_deletion();
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
        // A fraction of a line is a chance of a line.
        let lines = lines.trunc() + f64::from(u8::from(self.rng.f64() < lines.fract()));
        self.write(&pod, container, lines as u64, cluster)?;
        Ok(pause)
    }

    /// Created, started, a few bursts, done within a second; then the next one. Finished pods stay for `job_retention`.
    fn job(&mut self, step: u32, cluster: &SimCluster) -> Result<Duration, SimError> {
        let (_, service) = self.names();
        let (number, act) = (step / 5, step % 5);
        match (act, self.pod.clone()) {
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

    /// Starts, writes, fails, waits; the waits double.
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
        let (round, act) = ((step - 1) / 3, (step - 1) % 3);
        match act {
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

    /// Now and then, one time in `odds`, the last line lacks its newline.
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
                // A runtime that stamps a whole read buffer at once.
                0..3 if self.stamp > 0 => text.at(self.stamp),
                // Two outputs, stamped by two threads.
                3 => text.at(cluster.now() - self.rng.i64(1..200_000_000)),
                _ => text,
            };
            self.stamp = text.time.unwrap_or_else(|| cluster.now());
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
