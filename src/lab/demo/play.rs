//! The course of the demo: replicas start, containers write, one replica is killed half-way and
//! replaced (or whatever a soak does instead), all is stored, the replicas end, the lines are audited.
//!
//! One loop of short looks drives all of it; nothing here runs at the same time as something else,
//! except the simulated cluster and the replicas themselves.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::{Claims, Holdings, Takeover};
use super::progress::{Progress, STALL};
use super::replica::{self, Places, Replica};
use super::screen::Screen;
use super::soak::{self, Soak};
use super::stage::{Stage, Wish};
use super::stored::{self, Records};
use super::view::Scene;
use super::{NAMED, Outcome};
use crate::cli::lab::{Demo, Switch};
use crate::domain::StreamId;
use crate::exit::Failure;
use crate::sinks::{self, SinkUrl};
use kube_sim::SimPod;
use kube_sim::audit::{Audit, Discrepancy, compare, find_discrepancies};
use kube_sim::workload::Workload;

/// Lines per second of all pods together.
const RATE: u32 = 2_000;

/// Between two progress lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// How long replicas have to come to work.
const START: Duration = Duration::from_secs(15);

/// Between the kill and the replacement, so that one can see the gap.
const VACANCY: Duration = Duration::from_secs(2);

/// What a take-over may take: the ttl of 20 s, the grace of 1 s, and 1 s.
const TAKEOVER: Duration = Duration::from_secs(22);

/// How long reading up to the end may take after that. In all: 2 s to start, 15 s to the kill, 22 s, these
/// 12 s, and some 2 s to end and to audit are 53 s with the default of 30 s of writing.
const CATCH_UP: Duration = Duration::from_secs(12);

/// Everything on the stage. The replicas come first, so that they are gone before their directory is.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) replicas: Vec<Replica>,
    /// How many replicas have been started.
    started: usize,
    pub(super) records: Records,
    pub(super) claims: Option<Claims>,
    pub(super) stage: Stage,
    pub(super) scene: Scene,
    pub(super) screen: Screen,
    pub(super) stop: CancellationToken,
    pub(super) begun: Instant,
    duration: Duration,
    seed: u64,
    pub(super) holdings: Holdings,
    /// When replicas were killed, and what has become of their pods.
    pub(super) takeovers: Vec<(Instant, Takeover)>,
    pub(super) writing: bool,
    pub(super) counted: Option<Instant>,
    pub(super) progress: Progress,
    pub(super) ending: bool,
    pub(super) soak: Option<Soak>,
}

impl Play {
    /// Sets the stage; starts the replicas.
    pub(super) async fn set(demo: &Demo, seed: u64, stop: CancellationToken) -> Result<Self, Failure> {
        let begun = Instant::now();
        let stage = Stage::set(Wish {
            workload: workload(demo, seed),
            rotate: demo.rotate,
            keep: demo.keep.as_deref(),
        })
        .await?;
        let places = |number| places(&stage, demo.claims, number);
        let (claims, records) = match demo.claims {
            Switch::On => {
                let Places { lock, sink } = places(1);
                let claims = Claims::open(&lock).await?;
                sinks::migrate(&sink.parse::<SinkUrl>().map_err(Failure::usage)?).await?;
                let records = Records::tables(&stage.dir.path().join("podlog.db")).await?;
                (Some(claims), records)
            }
            Switch::Off => {
                let dirs = (1..=demo.replicas).map(|number| stage.dir.path().join(format!("records-{number}")));
                (None, Records::files(dirs))
            }
        };
        let start = |number| Replica::start(number, &stage.dir, &places(number));
        let replicas = (1..=demo.replicas as usize).map(start).collect::<Result<Vec<_>, _>>()?;
        let soak = demo
            .soak
            .map(|soak| Soak::new(soak, demo.pods, demo.chaos.then_some(seed), replicas.len()));
        let scene = Scene {
            title: format!(
                "podlog demo: {} pods, {} replicas, seed {seed}",
                demo.pods, demo.replicas
            ),
            most: Duration::from_secs(2)
                + demo
                    .soak
                    .map_or(limit(demo.duration, claims.is_some()), |soak| soak + soak::AFTER),
            ..Scene::default()
        };
        Ok(Self {
            started: replicas.len(),
            replicas,
            records,
            claims,
            stage,
            scene,
            screen: Screen::find(if soak.is_some() { soak::LINE_EVERY } else { LINE_EVERY }),
            stop,
            begun,
            duration: demo.duration,
            seed,
            holdings: Holdings::default(),
            takeovers: Vec::new(),
            writing: false,
            counted: None,
            progress: Progress::default(),
            ending: false,
            soak,
        })
    }

    /// The whole course.
    pub(super) async fn run(&mut self) -> Result<Outcome, Failure> {
        self.say(format!("{} replicas started", self.replicas.len()));
        while self.claims.is_some() && self.holdings.alive.len() < self.replicas.len() {
            if self.begun.elapsed() > START {
                return Err(Failure::unclean(format!(
                    "not all replicas were at work within {START:?}; the machine is too busy, or --keep a directory and read their logs"
                )));
            }
            self.tick().await?;
        }
        self.stage.begin();
        self.say("the containers begin to write");
        let deadline = if self.soak.is_some() {
            self.endure(Instant::now()).await?
        } else {
            self.perform(Instant::now()).await?
        };
        self.finish(deadline).await?;
        self.ending = true;
        self.say("the replicas are told to end");
        self.refresh();
        let mut badly = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopped()),
            badly = replica::end(&mut self.replicas) => badly,
        };
        let (audit, findings) = self.audit().await?;
        let needless = if self.soak.is_some() { self.needless().await? } else { 0 };
        let took = |takeover: &(Instant, Takeover)| takeover.1.took();
        if needless > 0 && !self.stage.rotates {
            badly.push(format!(
                "{needless} lines are reported as gaps although the API server serves them still"
            ));
        }
        let soak = self.soak.take().map(|soak| soak.end(&mut badly));
        Ok(Outcome {
            audit,
            findings,
            takeover: self.takeovers.iter().filter_map(took).max(),
            untaken: self
                .takeovers
                .iter()
                .filter(|takeover| took(takeover).is_none())
                .count(),
            badly,
            soak,
        })
    }

    /// One replica is killed half-way and replaced. Answers until when all must be stored.
    async fn perform(&mut self, began: Instant) -> Result<Instant, Failure> {
        while began.elapsed() < self.duration / 2 {
            self.tick().await?;
        }
        if self.claims.is_some() {
            self.kill().await?;
            let vacant = Instant::now();
            while vacant.elapsed() < VACANCY {
                self.tick().await?;
            }
            let replica = self.recruit()?;
            self.say(format!("{} started in its place", replica.name()));
            self.replicas.push(replica);
        }
        Ok(began + limit(self.duration, self.claims.is_some()))
    }

    /// Leaves no process behind; the directory goes when this is dropped.
    pub(super) async fn clear(mut self) {
        replica::kill(&mut self.replicas).await;
        if self.stage.dir.stays() {
            super::screen::remark(format_args!("kept: {}", self.stage.dir.path().display()));
        }
    }

    /// Kills a replica that holds pods.
    async fn kill(&mut self) -> Result<(), Failure> {
        let holds = |r: &&Replica| self.holdings.pods.get(r.name()).is_some_and(|pods| *pods > 0);
        let busy: Vec<_> = (0..self.replicas.len())
            .filter(|slot| holds(&&self.replicas[*slot]))
            .collect();
        let Some(choice) = (self.seed as usize).checked_rem(busy.len()) else {
            return Err(Failure::unclean(
                "no replica holds a pod after half of the time; use a longer --duration, or --keep a directory and read their logs",
            ));
        };
        self.strike(busy[choice]).await
    }

    /// SIGKILL. What the replica holds is waited for.
    pub(super) async fn strike(&mut self, slot: usize) -> Result<(), Failure> {
        let name = self.replicas[slot].name().to_owned();
        let when = Instant::now();
        self.replicas[slot].kill().await;
        self.say(format!("{name} was killed with SIGKILL"));
        let table = self.look().await?;
        let takeover = Takeover::of(&name, &table);
        self.say(format!("{name} held {} pods", takeover.pods()));
        self.takeovers.push((when, takeover));
        Ok(())
    }

    /// Starts one more replica.
    pub(super) fn recruit(&mut self) -> Result<Replica, Failure> {
        self.started += 1;
        let places = places(&self.stage, Switch::On, self.started);
        Replica::start(self.started, &self.stage.dir, &places)
    }

    /// Waits until all is stored, or until the deadline.
    async fn finish(&mut self, deadline: Instant) -> Result<(), Failure> {
        let (mut told, mut audited_at) = (false, None);
        while Instant::now() < deadline {
            self.tick().await?;
            let taken = self.takeovers.iter().all(|(_, takeover)| takeover.took().is_some());
            if self.writing {
                continue;
            }
            if !told {
                told = true;
                self.say("the containers have written all they had to");
            }
            // The audit is much work, so only when the counts agree, or when nothing moves any more.
            let still = self.progress.stands_still(self.begun.elapsed())
                && audited_at.is_none_or(|at: Instant| at.elapsed() > STALL);
            if !taken || (self.scene.stored < self.expected() && !still) {
                continue;
            }
            audited_at = Some(Instant::now());
            let complete = match self.claims {
                Some(_) => self.audit().await?.0.lost == 0,
                None => self.scene.stored >= self.expected(),
            };
            if complete {
                self.say("everything is stored");
                return Ok(());
            }
        }
        self.say("time is up");
        Ok(())
    }

    /// How many lines are stored when all are.
    pub(super) fn expected(&self) -> u64 {
        let copies = if self.claims.is_some() { 1 } else { self.replicas.len() };
        self.scene.written * copies as u64
    }

    async fn audit(&mut self) -> Result<(Audit, Vec<(StreamId, Discrepancy)>), Failure> {
        let stored = self.records.read().await?;
        let written = stored::written(&self.stage.cluster.written(), self.records.is_lossy());
        let (audit, findings) = find_discrepancies(&written, &stored);
        let named = findings.into_iter().take(NAMED);
        Ok((
            audit,
            named.map(|(stream, finding)| (stream.clone(), finding)).collect(),
        ))
    }

    /// How many lines are covered by gaps although the API server serves them still: of the present instances of pods
    /// that are there. None may be, unless files were rotated.
    async fn needless(&mut self) -> Result<u64, Failure> {
        let mut stored = self.records.read().await?;
        let pods = self.stage.cluster.pods();
        let there = stored::present(self.stage.cluster.written(), &pods.iter().map(SimPod::uid).collect());
        let written = stored::written(&there, self.records.is_lossy());
        stored.retain(|stream, _| written.contains_key(stream));
        Ok(compare(&written, &stored).gaps)
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

/// Where replica `number` keeps what: all in one file, or each in a place of its own.
fn places(stage: &Stage, claims: Switch, number: usize) -> Places {
    match claims {
        Switch::On => {
            let url = format!("sqlite://{}", stage.dir.file("podlog.db"));
            Places {
                lock: url.clone(),
                sink: url,
            }
        }
        Switch::Off => Places {
            lock: format!("sqlite://{}", stage.dir.file(&format!("claims-{number}.db"))),
            sink: format!("file://{}", stage.dir.file(&format!("records-{number}"))),
        },
    }
}

/// How long it may take from the first line until the replicas are told to end.
fn limit(writing: Duration, kill: bool) -> Duration {
    let takeover = if kill { writing / 2 + TAKEOVER } else { Duration::ZERO };
    writing.max(takeover) + CATCH_UP
}

pub(super) fn stopped() -> Failure {
    Failure::unclean("stopped before the audit")
}
