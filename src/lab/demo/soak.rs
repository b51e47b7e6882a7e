//! A soak: for as long as one likes containers write at a moderate rate while pods come and go, what the replicas use is
//! noted, and with `--chaos` everything fails that can be made to.
//!
//! It drives the course and holds what is to happen; what happens to whom is `acts`', what is seen of it `samples`'.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::acts::{Held, Then};
use super::chaos::{self, Act};
use super::play::Play;
use super::replica::{Fate, Replica};
use super::samples::{Figures, Samples, Use};
use crate::exit::Failure;
use kube_sim::workload::Workload;

/// The shortest soak.
pub(super) const LEAST: Duration = Duration::from_secs(10);

/// Lines per second of all pods together: a seventh of what the demo writes otherwise. About 15 more come from jobs,
/// crash loops and quiet pods.
const RATE: f64 = 300.0;

/// The demo keeps what was written, at some 300 bytes a line: 48 for the line and 48 for its record in the file, in
/// vectors that are half empty at worst, and 100 of text with what the allocator adds. Half an hour is 540 000 lines,
/// 160 MB; a longer soak writes more slowly, so that it is some 180 MB, and 16 MB for each hour by the 15 lines a second.
const LINES: f64 = 600_000.0;

/// Pods that serve live for one to three times so long, the first ones from a quarter of it: 48 of 60 pods serve, three
/// of four go, so one goes every 3 s. It must be longer than the 22 s of a take-over and a hold-up of the store beside
/// it: of a pod that came and went while nobody could look, nothing could ever be told.
const LIFE: Duration = Duration::from_mins(1);

/// Pauses of a crash loop. The kubelet keeps the log of one instance before the present one; as with `LIFE`, each must
/// stay for longer than nobody can look.
const BACK_OFF: Duration = Duration::from_secs(45);
const BACK_OFF_MOST: Duration = Duration::from_secs(90);

/// Pause between two jobs of one of six series, and how long a finished one stays: some 30 finished jobs at a time.
const JOB_EVERY: Duration = Duration::from_secs(15);
const LINGER: Duration = Duration::from_secs(90);

/// How long it may take after the last line until all is stored: the 22 s of a take-over that begins at the end, a
/// minute for what has been backed off from, and some to spare.
pub(super) const AFTER: Duration = Duration::from_secs(90);

/// Between two progress lines where there is no terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(10);

/// What the pods of a soak do.
pub(super) fn workload(seed: u64, pods: usize, duration: Duration) -> Workload {
    Workload {
        seed,
        pods,
        duration,
        rate: RATE.min(LINES / duration.as_secs_f64().max(1.0)).ceil() as u32,
        lifetime: Some(LIFE),
        job_retention: Some(LINGER),
        job_interval: JOB_EVERY,
        first_backoff: BACK_OFF,
        max_backoff: BACK_OFF_MOST,
        ..Workload::default()
    }
}

/// What is to happen, and what was seen.
#[derive(Debug)]
pub(super) struct Soak {
    duration: Duration,
    chaos: bool,
    pub(super) acts: VecDeque<Act>,
    /// What has been done and must be undone, and when.
    pub(super) waiting: Vec<(Duration, Then)>,
    pub(super) held: Option<Held>,
    samples: Samples,
    /// How much has been done.
    pub(super) done: u32,
    /// Replicas that did not end as they should.
    pub(super) badly: Vec<String>,
}

impl Soak {
    /// With a seed, faults are made from it.
    pub(super) fn new(duration: Duration, pods: u32, chaos: Option<u64>, replicas: usize) -> Self {
        let acts = chaos.map(|seed| chaos::plan(seed, replicas, duration));
        Self {
            duration,
            chaos: chaos.is_some(),
            acts: acts.unwrap_or_default().into(),
            waiting: Vec::new(),
            held: None,
            samples: Samples::new(duration, pods),
            done: 0,
            badly: Vec::new(),
        }
    }

    /// What came of it. What is wrong is added to `badly`.
    pub(super) fn end(self, badly: &mut Vec<String>) -> Soaked {
        let figures = self.samples.figures();
        badly.extend(self.badly);
        badly.extend(figures.iter().flat_map(Figures::faults));
        let acts = self.chaos.then_some(self.done);
        Soaked { acts, figures }
    }
}

/// What came of a soak.
#[derive(Clone, Debug)]
pub(super) struct Soaked {
    /// How many faults there were, with `--chaos`.
    acts: Option<u32>,
    figures: Option<Figures>,
}

impl Soaked {
    /// Lines for stdout, each with its end.
    pub(super) fn lines(&self) -> String {
        let figures = self.figures.as_ref().map_or_else(
            || "soak: memory, open files, threads and tasks cannot be had here, or it was too short".to_owned(),
            Figures::lines,
        );
        let acts = self
            .acts
            .map(|acts| format!("chaos: acts={acts}\n"))
            .unwrap_or_default();
        format!("{acts}{figures}\n")
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Value {
        json!({"acts": self.acts, "figures": self.figures.as_ref().map(Figures::json)})
    }
}

impl Play {
    /// Lets it all happen. Answers until when all must be stored.
    pub(super) async fn endure(&mut self, began: Instant) -> Result<Instant, Failure> {
        while self.soak.as_ref().is_some_and(|soak| began.elapsed() < soak.duration) {
            self.tick().await?;
            self.sample(began.elapsed()).await;
            self.chaos(began.elapsed()).await?;
        }
        self.heal(began).await?;
        Ok(Instant::now() + AFTER)
    }

    /// Notes what the replicas use, when it is time.
    async fn sample(&mut self, now: Duration) {
        let Some(soak) = self.soak.as_mut().filter(|soak| soak.samples.are_due(now)) else {
            return;
        };
        let alive = |r: &&Replica| matches!(r.fate(), Fate::Running | Fate::Frozen);
        let looks = self.replicas.iter().filter(alive).map(async |replica| {
            let tasks = replica.tasks().await;
            Some((replica.name().to_owned(), Use::of(replica.process()?, tasks)?))
        });
        let replicas = join_all(looks).await.into_iter().flatten().collect();
        let own = Handle::current().metrics().num_alive_tasks() as f64;
        soak.samples.take(now, replicas, Use::of(std::process::id(), Some(own)));
    }

    /// Whether the store may be out of reach because of what the demo itself does.
    pub(super) fn is_disturbed(&self) -> bool {
        let frozen = self.replicas.iter().any(|replica| replica.fate() == Fate::Frozen);
        frozen || self.soak.as_ref().is_some_and(|soak| soak.held.is_some())
    }

    /// The file in which the claims and the records are.
    pub(super) fn store(&self) -> impl AsRef<Path> + use<> {
        self.stage.dir.path().join("podlog.db")
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
