//! The course of the demo: replicas start, containers write, one replica is killed half-way and
//! replaced, all is stored, the replicas end, the lines are reckoned up.
//!
//! One loop of short looks drives all of it; nothing here runs at the same time as something else,
//! except the simulated cluster and the replicas themselves.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::{Claims, Holdings, Takeover};
use super::progress::{News, Progress, STALL};
use super::replica::{self, Places, Replica};
use super::screen::Screen;
use super::stage::{Stage, Wish};
use super::stored::{self, Records};
use super::view::{Row, Scene, State};
use super::{NAMED, Outcome};
use crate::config::{Demo, Switch};
use crate::domain::StreamId;
use crate::exit::Failure;
use crate::reckoning::{Finding, Reckoning, explain};
use crate::sinks::{self, SinkUrl};

/// Between two looks; also how exactly a take-over is timed.
const TICK: Duration = Duration::from_millis(200);

/// Between two counts of what is stored.
const COUNT_EVERY: Duration = Duration::from_millis(600);

/// How long replicas have to come to work.
const START: Duration = Duration::from_secs(15);

/// Between the kill and the replacement, so that one can see the gap.
const VACANCY: Duration = Duration::from_secs(2);

/// What a take-over may take: the ttl of 20 s, the grace of 1 s, and 1 s.
const TAKEOVER: Duration = Duration::from_secs(22);

/// How long reading up to the end may take after that. In all: 2 s to start, 15 s to the kill, 22 s, these
/// 12 s, and some 2 s to end and to reckon are 53 s with the default of 30 s of writing.
const CATCH_UP: Duration = Duration::from_secs(12);

/// Everything on the stage. The replicas come first, so that they are gone before their directory is.
#[derive(Debug)]
pub(super) struct Play {
    replicas: Vec<Replica>,
    records: Records,
    claims: Option<Claims>,
    stage: Stage,
    scene: Scene,
    screen: Screen,
    stop: CancellationToken,
    begun: Instant,
    duration: Duration,
    seed: u64,
    holdings: Holdings,
    takeover: Option<(Instant, Takeover)>,
    writing: bool,
    counted: Option<Instant>,
    progress: Progress,
    ending: bool,
}

impl Play {
    /// Sets the stage; starts the replicas.
    pub(super) async fn set(demo: &Demo, seed: u64, stop: CancellationToken) -> Result<Self, Failure> {
        let begun = Instant::now();
        let stage = Stage::set(Wish {
            seed,
            pods: demo.pods,
            duration: demo.duration,
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
        let scene = Scene {
            title: format!(
                "podlog demo: {} pods, {} replicas, seed {seed}",
                demo.pods, demo.replicas
            ),
            most: Duration::from_secs(2) + limit(demo.duration, claims.is_some()),
            ..Scene::default()
        };
        Ok(Self {
            replicas,
            records,
            claims,
            stage,
            scene,
            screen: Screen::find(),
            stop,
            begun,
            duration: demo.duration,
            seed,
            holdings: Holdings::default(),
            takeover: None,
            writing: false,
            counted: None,
            progress: Progress::default(),
            ending: false,
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
        let (began, half) = (Instant::now(), self.duration / 2);
        while began.elapsed() < half {
            self.tick().await?;
        }
        if self.claims.is_some() {
            self.kill().await?;
            let vacant = Instant::now();
            while vacant.elapsed() < VACANCY {
                self.tick().await?;
            }
            self.replace()?;
        }
        self.finish(began + limit(self.duration, self.claims.is_some())).await?;
        self.ending = true;
        self.say("the replicas are told to end");
        self.refresh();
        let badly = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopped()),
            badly = replica::end(&mut self.replicas) => badly,
        };
        let (reckoning, findings) = self.reckon().await?;
        Ok(Outcome {
            reckoning,
            findings,
            takeover: self.takeover.as_ref().and_then(|(_, takeover)| takeover.took()),
            killed: self.takeover.is_some(),
            badly,
        })
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
        let holds = |r: &&mut Replica| self.holdings.pods.get(r.name()).is_some_and(|pods| *pods > 0);
        let mut busy: Vec<_> = self.replicas.iter_mut().filter(holds).collect();
        if busy.is_empty() {
            return Err(Failure::unclean(
                "no replica holds a pod after half of the time; use a longer --duration, or --keep a directory and read their logs",
            ));
        }
        let victim = busy.swap_remove((self.seed % busy.len() as u64) as usize);
        let name = victim.name().to_owned();
        let when = Instant::now();
        victim.kill().await;
        let table = self.look().await?;
        let takeover = Takeover::of(&name, &table);
        self.say(format!(
            "{name} was killed with SIGKILL; it held {} pods",
            takeover.pods()
        ));
        self.takeover = Some((when, takeover));
        Ok(())
    }

    /// Starts one more replica.
    fn replace(&mut self) -> Result<(), Failure> {
        let number = self.replicas.len() + 1;
        let places = places(&self.stage, Switch::On, number);
        self.replicas.push(Replica::start(number, &self.stage.dir, &places)?);
        self.say(format!("replica-{number} started in its place"));
        Ok(())
    }

    /// Waits until all is stored, or until the deadline.
    async fn finish(&mut self, deadline: Instant) -> Result<(), Failure> {
        let (mut told, mut reckoned) = (false, None);
        while Instant::now() < deadline {
            self.tick().await?;
            let taken = self
                .takeover
                .as_ref()
                .is_none_or(|(_, takeover)| takeover.took().is_some());
            if self.writing {
                continue;
            }
            if !told {
                told = true;
                self.say("the containers have written all they had to");
            }
            // Reckoning up is much work, so only when the counts agree, or when nothing moves any more.
            let still = self.progress.stands_still(self.begun.elapsed())
                && reckoned.is_none_or(|at: Instant| at.elapsed() > STALL);
            if !taken || (self.scene.stored < self.expected() && !still) {
                continue;
            }
            reckoned = Some(Instant::now());
            let complete = match self.claims {
                Some(_) => self.reckon().await?.0.lost == 0,
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
    fn expected(&self) -> u64 {
        let copies = if self.claims.is_some() { 1 } else { self.replicas.len() };
        self.scene.written * copies as u64
    }

    /// Waits a moment and looks at everything.
    async fn tick(&mut self) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopped()),
            () = tokio::time::sleep(TICK) => {}
        }
        if let Some(failure) = self.replicas.iter_mut().find_map(|r| r.check().err()) {
            // Ctrl-C reaches the replicas as well; then it is no failure of theirs.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(stopped()),
                () = tokio::time::sleep(TICK) => return Err(failure),
            }
        }
        self.writing = self.stage.is_writing()?;
        if self.claims.is_some() {
            self.watch().await?;
        }
        if self.counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            self.count().await?;
        }
        self.refresh();
        Ok(())
    }

    async fn look(&self) -> Result<crate::domain::LockTable, Failure> {
        match &self.claims {
            Some(claims) => claims.look().await,
            None => Ok(crate::domain::LockTable::default()),
        }
    }

    /// Looks at the table of claims.
    async fn watch(&mut self) -> Result<(), Failure> {
        let table = self.look().await?;
        let before = std::mem::replace(&mut self.holdings, Holdings::of(&table));
        let (held, held_before): (usize, usize) = (self.holdings.pods.values().sum(), before.pods.values().sum());
        if held_before == 0 && held > 0 {
            self.say("the first pods are claimed");
        }
        for name in self
            .holdings
            .alive
            .difference(&before.alive)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.say(format!("{name} is at work"));
        }
        if let Some((when, takeover)) = &mut self.takeover {
            let since = when.elapsed();
            if takeover.observe(&table, since) {
                let pods = takeover.pods();
                self.say(format!(
                    "all {pods} pods have other holders, {:.1} s after the kill",
                    since.as_secs_f64()
                ));
            }
        }
        Ok(())
    }

    /// Counts what is written and stored.
    async fn count(&mut self) -> Result<(), Failure> {
        self.counted = Some(Instant::now());
        self.scene.stored = self.records.count().await?;
        self.scene.written = self.stage.cluster.lines() as u64;
        let at = self.begun.elapsed();
        match self.progress.note(at, self.scene.stored, self.expected()) {
            Some(News::Stalled(lines)) => {
                self.say(format!("nothing was stored for {STALL:?}; {lines} lines are missing"));
            }
            Some(News::GoesOn) => self.say("lines are stored again"),
            None => {}
        }
        self.scene.per_second = self.progress.per_second();
        Ok(())
    }

    async fn reckon(&mut self) -> Result<(Reckoning, Vec<(StreamId, Finding)>), Failure> {
        let stored = self.records.read().await?;
        let written = stored::written(&self.stage.cluster.truth(), self.records.is_lossy());
        let (reckoning, findings) = explain(&written, &stored);
        let named = findings.into_iter().take(NAMED);
        Ok((
            reckoning,
            named.map(|(stream, finding)| (stream.clone(), finding)).collect(),
        ))
    }

    /// Shows how things are.
    fn refresh(&mut self) {
        self.scene.elapsed = self.begun.elapsed();
        self.scene.unheld = self.holdings.unheld;
        let row = |r: &Replica| Row {
            name: r.name().to_owned(),
            state: self.state(r),
            pods: self
                .claims
                .as_ref()
                .map(|_| self.holdings.pods.get(r.name()).copied().unwrap_or(0)),
        };
        self.scene.rows = self.replicas.iter().map(row).collect();
        self.screen.show(&self.scene);
    }

    fn state(&self, replica: &Replica) -> State {
        if replica.is_killed() {
            State::Killed
        } else if self.ending {
            State::Ending
        } else if self.claims.is_some() && !self.holdings.alive.contains(replica.name()) {
            State::Starting
        } else {
            State::Collecting
        }
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        self.scene.elapsed = self.begun.elapsed();
        self.screen.say(&mut self.scene, what);
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
            lock: "memory://".to_owned(),
            sink: format!("file://{}", stage.dir.file(&format!("records-{number}"))),
        },
    }
}

/// How long it may take from the first line until the replicas are told to end.
fn limit(writing: Duration, kill: bool) -> Duration {
    let takeover = if kill { writing / 2 + TAKEOVER } else { Duration::ZERO };
    writing.max(takeover) + CATCH_UP
}

fn stopped() -> Failure {
    Failure::unclean("stopped before the reckoning")
}
