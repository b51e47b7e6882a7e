//! The steps of a demo: replicas start, containers write, one replica is killed after half of the time and replaced (or
//! a soak runs instead), all lines are stored, the replicas stop, and the lines are audited.
//!
//! One task does all steps. The simulated cluster and the replicas run beside it.

use std::time::Duration;

use kube_sim::SimPod;
use kube_sim::audit::{Audit, Discrepancy, compare, find_discrepancies};
use kube_sim::workload::Workload;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::ClaimsObserver;
use super::environment::{Environment, EnvironmentSettings};
use super::observer::Observer;
use super::outcome::DemoOutcome;
use super::progress::STALL;
use super::replica::{StoreUrls, records_dir};
use super::replicas::Replicas;
use super::running_demo::{RunningDemo, stopped};
use super::screen::{self, Screen};
use super::soak::{self, Soak};
use super::stored::{self, Records};
use super::view::View;
use crate::cli::lab::{Demo, Switch};
use crate::domain::{Cause, StreamId};
use crate::exit::Failure;
use crate::sinks::{self, SinkUrl};

/// How many discrepancies are printed.
const SHOWN_DISCREPANCIES: usize = 5;

/// How many lines all pods together write per second.
const RATE: u32 = 2_000;

/// Time between two progress lines where there is no terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

/// How long replicas may take to start.
const START_TIME: Duration = Duration::from_secs(15);

/// Time between the kill and the replacement, so that the missing replica can be seen.
const REPLACE_AFTER: Duration = Duration::from_secs(2);

/// How long a takeover may take: the ttl of 20 s, the grace of 1 s, and 1 s.
const TAKEOVER: Duration = Duration::from_secs(22);

/// How long the replicas may take after that to store all lines. With the default of 30 s of writing a demo takes at
/// most 53 s: 2 s to start, 15 s until the kill, 22 s for the takeover, these 12 s, and 2 s to stop and to audit.
const CATCH_UP: Duration = Duration::from_secs(12);

/// A demo while it runs.
#[derive(Debug)]
pub(super) struct DemoRun {
    running: RunningDemo,
    soak: Option<Soak>,
    /// How long lines are written without a soak.
    duration: Duration,
    seed: u64,
}

impl DemoRun {
    /// Opens the simulated cluster and the store, and starts the replicas.
    pub(super) async fn start(demo: &Demo, seed: u64, stop: CancellationToken) -> Result<Self, Failure> {
        let environment = Environment::create(EnvironmentSettings {
            workload: workload(demo, seed),
            rotate: demo.rotate,
            keep: demo.keep.as_deref(),
        })
        .await?;
        let (claims, records) = open_store(&environment, demo).await?;
        let line_every = if demo.soak.is_some() {
            soak::PROGRESS_INTERVAL
        } else {
            PROGRESS_INTERVAL
        };
        let limit = demo
            .soak
            .map_or(limit(demo.duration, claims.is_some()), |soak| soak + soak::CATCH_UP);
        let view = View {
            title: format!(
                "podlog demo: {} pods, {} replicas, seed {seed}",
                demo.pods, demo.replicas
            ),
            most: Duration::from_secs(2) + limit,
            ..View::default()
        };
        let observer = Observer::new(claims, records, view, Screen::detect(line_every));
        let mut replicas = Replicas::new(demo.claims);
        for _ in 0..demo.replicas {
            replicas.add(&environment.dir)?;
        }
        let soak = demo
            .soak
            .map(|soak| Soak::new(soak, demo.pods, demo.chaos.then_some(seed), replicas.count()));
        let running = RunningDemo {
            replicas,
            observer,
            environment,
            store_lock: None,
            stop,
            writing: false,
        };
        Ok(Self {
            running,
            soak,
            duration: demo.duration,
            seed,
        })
    }

    /// Runs the demo to its end.
    pub(super) async fn run(&mut self) -> Result<DemoOutcome, Failure> {
        self.await_replicas().await?;
        self.running.environment.start_writing();
        self.running.observer.show_event("the containers begin to write");
        let deadline = match &mut self.soak {
            Some(soak) => soak.run(&mut self.running).await?,
            None => self.kill_one().await?,
        };
        self.await_all_stored(deadline).await?;
        let RunningDemo {
            replicas,
            observer,
            stop,
            ..
        } = &mut self.running;
        observer.show_event("the replicas are asked to stop");
        observer.show(replicas.all(), true);
        let failures = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stopped()),
            failures = replicas.stop_all() => failures,
        };
        self.outcome(failures).await
    }

    /// Kills all remaining replicas. Dropping `self` removes the directory.
    pub(super) async fn clean_up(mut self) {
        self.running.replicas.kill_all().await;
        let dir = &self.running.environment.dir;
        if dir.is_kept() {
            screen::print_below(format_args!("kept: {}", dir.path().display()));
        }
    }

    /// Waits until the table of claims shows all replicas as alive.
    async fn await_replicas(&mut self) -> Result<(), Failure> {
        let running = &mut self.running;
        let count = running.replicas.count();
        running.observer.show_event(format!("{count} replicas started"));
        while running.observer.has_claims() && running.observer.alive_replicas() < count {
            if running.observer.elapsed() > START_TIME {
                return Err(
                    Failure::failed(format!("not all replicas were alive within {START_TIME:?}"))
                        .with_remedy("the machine is too busy, or --keep a directory and read their logs"),
                );
            }
            running.tick().await?;
        }
        Ok(())
    }

    /// Kills a replica after half of the time and replaces it. Returns the time by which all lines must be stored.
    async fn kill_one(&mut self) -> Result<Instant, Failure> {
        let writing_since = Instant::now();
        while writing_since.elapsed() < self.duration / 2 {
            self.running.tick().await?;
        }
        let claims = self.running.observer.has_claims();
        if claims {
            let slot = self.choose_victim()?;
            self.running.kill(slot).await?;
            let killed_at = Instant::now();
            while killed_at.elapsed() < REPLACE_AFTER {
                self.running.tick().await?;
            }
            let RunningDemo {
                replicas,
                observer,
                environment,
                ..
            } = &mut self.running;
            let replica = replicas.add(&environment.dir)?;
            observer.show_event(format!("{} started in its place", replica.name()));
        }
        Ok(writing_since + limit(self.duration, claims))
    }

    /// Chooses a replica that holds pods, by the seed.
    fn choose_victim(&self) -> Result<usize, Failure> {
        let replicas = self.running.replicas.all().iter().enumerate();
        let holders: Vec<usize> = replicas
            .filter(|(_, replica)| self.running.observer.holds_pods(replica.name()))
            .map(|(slot, _)| slot)
            .collect();
        let choice = (self.seed as usize).checked_rem(holders.len());
        choice.map(|choice| holders[choice]).ok_or_else(|| {
            Failure::failed("no replica holds a pod after half of the time")
                .with_remedy("use a longer --duration, or --keep a directory and read their logs")
        })
    }

    /// Waits until all lines are stored, or until the deadline.
    async fn await_all_stored(&mut self, deadline: Instant) -> Result<(), Failure> {
        let (mut announced, mut audited_at) = (false, None);
        while Instant::now() < deadline {
            self.running.tick().await?;
            if self.running.writing {
                continue;
            }
            let observer = &mut self.running.observer;
            if !announced {
                announced = true;
                observer.show_event("the containers have written all they had to");
            }
            let taken_over = observer.takeover_times().all(|took| took.is_some());
            // The audit is expensive, so it runs only when the counts agree, or when no more lines are stored.
            let stalled = observer.is_stalled() && audited_at.is_none_or(|at: Instant| at.elapsed() > STALL);
            let claims = observer.has_claims();
            let all_counted = self.running.observer.all_counted(self.running.copies());
            if !taken_over || !(all_counted || stalled) {
                continue;
            }
            audited_at = Some(Instant::now());
            let complete = if claims {
                self.audit().await?.0.lost == 0
            } else {
                all_counted
            };
            if complete {
                self.running.observer.show_event("everything is stored");
                return Ok(());
            }
        }
        self.running.observer.show_event("time is up");
        Ok(())
    }

    /// Audits the lines, and collects all other failures.
    async fn outcome(&mut self, mut failures: Vec<String>) -> Result<DemoOutcome, Failure> {
        let (audit, discrepancies) = self.audit().await?;
        let soak = match self.soak.take() {
            Some(soak) => {
                let needless = self.needless_gaps().await?;
                if needless > 0 && !self.running.environment.rotates {
                    failures.push(format!(
                        "{needless} lines are reported as gaps although the API server still serves them"
                    ));
                }
                let (report, failed) = soak.report();
                failures.extend(failed);
                Some(report)
            }
            None => None,
        };
        let takeovers: Vec<_> = self.running.observer.takeover_times().collect();
        Ok(DemoOutcome {
            audit,
            discrepancies,
            takeover: takeovers.iter().flatten().max().copied(),
            unfinished_takeovers: takeovers.iter().filter(|took| took.is_none()).count(),
            failures,
            soak,
        })
    }

    async fn audit(&mut self) -> Result<(Audit, Vec<(StreamId, Discrepancy)>), Failure> {
        let RunningDemo {
            observer, environment, ..
        } = &mut self.running;
        let stored = observer.records.read().await?;
        let written = stored::written_by_stream(&environment.cluster.written(), observer.records.is_lossy());
        let (audit, discrepancies) = find_discrepancies(&written, &stored);
        let shown = discrepancies.into_iter().take(SHOWN_DISCREPANCIES);
        let shown = shown.map(|(stream, discrepancy)| (stream.clone(), discrepancy));
        Ok((audit, shown.collect()))
    }

    /// How many lines are covered by gaps although the API server still serves them. Only present instances of existing
    /// pods count. There are none, unless files were rotated.
    async fn needless_gaps(&mut self) -> Result<u64, Failure> {
        let RunningDemo {
            observer, environment, ..
        } = &mut self.running;
        let mut stored = observer.records.read().await?;
        let pods = environment.cluster.pods();
        let present = stored::present_instances(environment.cluster.written(), &pods.iter().map(SimPod::uid).collect());
        let written = stored::written_by_stream(&present, observer.records.is_lossy());
        stored.retain(|stream, _| written.contains_key(stream));
        Ok(compare(&written, &stored).gaps)
    }
}

/// Creates the tables of the replicas if they share a store, and opens the stored records.
async fn open_store(environment: &Environment, demo: &Demo) -> Result<(Option<ClaimsObserver>, Records), Failure> {
    match demo.claims {
        Switch::On => {
            let StoreUrls { lock, sink } = StoreUrls::new(&environment.dir, Switch::On, 1);
            let claims = ClaimsObserver::open(&lock).await?;
            sinks::migrate(
                &sink
                    .parse::<SinkUrl>()
                    .map_err(|message| Failure::with_cause(Cause::Setting, message))?,
            )
            .await?;
            Ok((Some(claims), Records::tables(&environment.store_file()).await?))
        }
        Switch::Off => {
            let dirs = (1..=demo.replicas as usize).map(|number| environment.dir.path().join(records_dir(number)));
            Ok((None, Records::files(dirs)))
        }
    }
}

/// What the pods do.
fn workload(demo: &Demo, seed: u64) -> Workload {
    let pods = demo.pods as usize;
    match demo.soak {
        Some(duration) => soak::workload(seed, pods, duration),
        None => Workload {
            seed,
            pods,
            duration: demo.duration,
            rate: RATE,
            ..Workload::default()
        },
    }
}

/// The longest time from the first line until the replicas are asked to stop.
fn limit(writing: Duration, kill: bool) -> Duration {
    let takeover = if kill { writing / 2 + TAKEOVER } else { Duration::ZERO };
    writing.max(takeover) + CATCH_UP
}
