//! A soak: for a chosen time, containers write at a moderate rate while pods are created and deleted. The resource use
//! of the replicas is sampled, and with `--chaos` faults are injected.
//!
//! It decides what happens and for how long. `injector` carries out faults, and `resource_use` checks the samples.

use std::time::Duration;

use futures::future::join_all;
use kube_sim::workload::Workload;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::fault_plan;
use super::injector::Injector;
use super::replica::{ProcessState, Replica};
use super::resource_use::{Figures, ResourceUse, Samples};
use super::running_demo::RunningDemo;
use crate::exit::Failure;

/// The shortest soak.
pub(super) const SHORTEST: Duration = Duration::from_secs(10);

/// How many lines all pods together write per second: a seventh of the rate of a demo. Jobs, crash loops and quiet pods
/// write about 15 more.
const RATE: f64 = 300.0;

/// The most lines of a soak, because the demo keeps all of them in memory. A line takes some 300 bytes: 48 for the line
/// and 48 for its record in the file, in vectors that may be half empty, and 100 for the text and the allocator. Half
/// an hour is 540 000 lines, 160 MB. A longer soak writes more slowly. It needs some 180 MB, and 16 MB per hour for the
/// other 15 lines per second.
const MAX_LINES: f64 = 600_000.0;

/// Pods of services live for one to three times this long, the first ones from a quarter of it on. Of 60 pods 48 are
/// services, and three of four are deleted, so one is deleted every 3 s. The lifetime must be longer than a takeover
/// (22 s) and a lock on the store together, because podlog cannot report a pod that was created and deleted while no
/// replica could list pods.
const POD_LIFETIME: Duration = Duration::from_mins(1);

/// The back-offs of a crash loop. The kubelet keeps the log of one previous instance. As with `POD_LIFETIME`, each log
/// must exist for longer than the time in which no replica can read it.
const FIRST_BACKOFF: Duration = Duration::from_secs(45);
const MAX_BACKOFF: Duration = Duration::from_secs(90);

/// The time between two jobs of one of six series, and how long a finished job is kept: about 30 finished jobs at a
/// time.
const JOB_INTERVAL: Duration = Duration::from_secs(15);
const JOB_RETENTION: Duration = Duration::from_secs(90);

/// The longest time from the last line until all lines are stored: 22 s for a takeover that begins at the end, a minute
/// for streams that wait to be opened again, and 8 s more.
pub(super) const CATCH_UP: Duration = Duration::from_secs(90);

/// Time between two progress lines where there is no terminal.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// What the pods of a soak do.
pub(super) fn workload(seed: u64, pods: usize, duration: Duration) -> Workload {
    Workload {
        seed,
        pods,
        duration,
        rate: RATE.min(MAX_LINES / duration.as_secs_f64().max(1.0)).ceil() as u32,
        lifetime: Some(POD_LIFETIME),
        job_retention: Some(JOB_RETENTION),
        job_interval: JOB_INTERVAL,
        first_backoff: FIRST_BACKOFF,
        max_backoff: MAX_BACKOFF,
        ..Workload::default()
    }
}

/// A soak while it runs.
#[derive(Debug)]
pub(super) struct Soak {
    duration: Duration,
    /// Injects faults, with `--chaos`.
    injector: Option<Injector>,
    samples: Samples,
}

impl Soak {
    /// With a `fault_seed`, faults are injected, and the seed determines them.
    pub(super) fn new(duration: Duration, pods: u32, fault_seed: Option<u64>, replicas: usize) -> Self {
        let injector = |seed| Injector::new(fault_plan::plan(seed, replicas, duration));
        Self {
            duration,
            injector: fault_seed.map(injector),
            samples: Samples::new(duration, pods),
        }
    }

    /// Runs the soak. Returns the time by which every line must be stored.
    pub(super) async fn run(&mut self, running: &mut RunningDemo) -> Result<Instant, Failure> {
        let writing_since = Instant::now();
        while writing_since.elapsed() < self.duration {
            running.tick().await?;
            self.sample(running, writing_since.elapsed()).await;
            if let Some(injector) = &mut self.injector {
                injector.advance(running, writing_since.elapsed()).await?;
            }
        }
        if let Some(injector) = &mut self.injector {
            injector.repair_all(running, writing_since).await?;
        }
        Ok(Instant::now() + CATCH_UP)
    }

    /// Samples the resource use of the replicas when a sample is due.
    async fn sample(&mut self, running: &RunningDemo, now: Duration) {
        if !self.samples.is_due(now) {
            return;
        }
        let runs = |r: &&Replica| matches!(r.state(), ProcessState::Running | ProcessState::Frozen);
        let samples = running.replicas.all().iter().filter(runs).map(async |replica| {
            let tasks = replica.tasks().await;
            Some((
                replica.name().to_owned(),
                ResourceUse::measure(replica.process()?, tasks)?,
            ))
        });
        let replicas = join_all(samples).await.into_iter().flatten().collect();
        let own = Handle::current().metrics().num_alive_tasks() as f64;
        self.samples
            .add(now, replicas, ResourceUse::measure(std::process::id(), Some(own)));
    }

    /// The result, and the failures.
    pub(super) fn report(self) -> (SoakReport, Vec<String>) {
        let figures = self.samples.figures();
        let (faults, mut failures) = self.injector.map(Injector::outcome).unzip();
        let mut all = failures.take().unwrap_or_default();
        all.extend(figures.iter().flat_map(Figures::failures));
        (SoakReport { faults, figures }, all)
    }
}

/// The result of a soak.
#[derive(Clone, Debug)]
pub(super) struct SoakReport {
    /// How many faults were injected, with `--chaos`.
    faults: Option<u32>,
    figures: Option<Figures>,
}

impl SoakReport {
    /// Lines for stdout, each with its line end.
    pub(super) fn lines(&self) -> String {
        let figures = self.figures.as_ref().map_or_else(
            || "soak: memory, open files, threads and tasks cannot be read here, or it was too short".to_owned(),
            Figures::lines,
        );
        let faults = self
            .faults
            .map(|faults| format!("faults: injected={faults}\n"))
            .unwrap_or_default();
        format!("{faults}{figures}\n")
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Value {
        json!({"faults": self.faults, "figures": self.figures.as_ref().map(Figures::json)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_soak_writes_more_slowly_so_that_its_lines_fit_in_memory() {
        let rate = |minutes| workload(1, 60, Duration::from_mins(minutes)).rate;
        assert_eq!((rate(1), rate(30)), (300, 300));
        assert!((165..170).contains(&rate(60)), "{}", rate(60));
        assert_eq!(rate(24 * 60), 7);
    }
}
