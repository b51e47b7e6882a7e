//! A soak: for a chosen time containers write at a moderate rate while pods come and go. The resource use of the
//! replicas is sampled, and with `--chaos` faults are injected.
//!
//! It knows what happens and for how long. `injector` carries faults out, `resource_use` judges the samples.

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

/// Lines per second of all pods together: a seventh of what the demo writes otherwise. About 15 more come from jobs,
/// crash loops and quiet pods.
const RATE: f64 = 300.0;

/// The demo keeps what was written, at some 300 bytes a line: 48 for the line and 48 for its record in the file, in
/// vectors that are half empty at worst, and 100 of text with what the allocator adds. Half an hour is 540 000 lines,
/// 160 MB; a longer soak writes more slowly, so that it is some 180 MB, and 16 MB for each hour by the 15 lines a
/// second.
const MAX_LINES: f64 = 600_000.0;

/// Pods that serve live for one to three times this long, the first ones from a quarter of it on: 48 of 60 pods serve
/// and three of four are deleted, so one is deleted every 3 s. It must be longer than the 22 s of a takeover and a lock
/// on the store together: podlog cannot report a pod that came and went while no replica could look.
const POD_LIFETIME: Duration = Duration::from_mins(1);

/// Pauses of a crash loop. The kubelet keeps the log of one instance before the present one. As with `POD_LIFETIME`,
/// each log must stay longer than the time in which no replica can look.
const FIRST_BACKOFF: Duration = Duration::from_secs(45);
const MAX_BACKOFF: Duration = Duration::from_secs(90);

/// Pause between two jobs of one of six series, and how long a finished one stays: some 30 finished jobs at a time.
const JOB_INTERVAL: Duration = Duration::from_secs(15);
const JOB_RETENTION: Duration = Duration::from_secs(90);

/// How long it may take after the last line until all is stored: the 22 s of a takeover that begins at the end, a
/// minute for streams that wait to be retried, and 8 s to spare.
pub(super) const CATCH_UP: Duration = Duration::from_secs(90);

/// Between two progress lines where there is no terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(10);

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
    /// With a `fault_seed`, the faults are drawn from it.
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
        if !self.samples.are_due(now) {
            return;
        }
        let runs = |r: &&Replica| matches!(r.state(), ProcessState::Running | ProcessState::Frozen);
        let samples = running.replicas.all().iter().filter(runs).map(async |replica| {
            let tasks = replica.tasks().await;
            Some((replica.name().to_owned(), ResourceUse::of(replica.process()?, tasks)?))
        });
        let replicas = join_all(samples).await.into_iter().flatten().collect();
        let own = Handle::current().metrics().num_alive_tasks() as f64;
        self.samples
            .take(now, replicas, ResourceUse::of(std::process::id(), Some(own)));
    }

    /// The result, and the failures.
    pub(super) fn report(self) -> (SoakReport, Vec<String>) {
        let figures = self.samples.figures();
        let (faults, mut failures) = self.injector.map(Injector::outcome).unzip();
        let mut all = failures.take().unwrap_or_default();
        all.extend(figures.iter().flat_map(Figures::faults));
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
    fn a_long_soak_writes_more_slowly_so_that_all_of_it_can_be_kept() {
        let rate = |minutes| workload(1, 60, Duration::from_mins(minutes)).rate;
        assert_eq!((rate(1), rate(30)), (300, 300));
        assert!((165..170).contains(&rate(60)), "{}", rate(60));
        assert_eq!(rate(24 * 60), 7);
    }
}
