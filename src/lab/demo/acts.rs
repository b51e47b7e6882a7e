//! Carries out what `chaos` has planned: signals to replicas, a hand on the store's file, faults of the simulated API
//! server; and undoes what is to be undone. It tells each act, and judges none.
//!
//! The store is one file without a server, so it cannot be restarted. The nearest is to keep everybody from writing to
//! it: this process holds its lock for a while. A replica that is frozen in the middle of writing does the same for as
//! long as it is frozen.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use tokio::time::{Instant, timeout};

use super::chaos::What;
use super::play::Play;
use super::replica::Fate;
use crate::exit::Failure;
use kube_sim::{Cut, Fault, Target, Verb};

/// How long a replica may take to end: the grace of 20 s and some for a busy machine.
const ENDING: Duration = Duration::from_secs(25);

/// How long the store's lock is waited for, and how long SQLite itself waits.
const PATIENCE: Duration = Duration::from_secs(5);
const BUSY: Duration = Duration::from_secs(4);

/// What undoes an act.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    /// The frozen replica goes on.
    Thaw(usize),
    /// Another replica takes the place of the one that was killed or told to end at this time.
    Replace(usize, Duration),
    /// The store can be written to.
    Release,
    /// Mute streams flow.
    Unmute(Verb),
}

/// The lock on the store; dropping it lets go.
#[derive(Debug)]
pub(super) struct Held(SqliteConnection);

impl Held {
    /// Takes the lock that writers need.
    async fn take(path: &Path) -> Result<Self, String> {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY);
        let take = async {
            let mut conn = SqliteConnection::connect_with(&options).await?;
            sqlx::query("BEGIN EXCLUSIVE").execute(&mut conn).await?;
            Ok(Self(conn))
        };
        match timeout(PATIENCE, take).await {
            Ok(taken) => taken.map_err(|e: sqlx::Error| e.to_string()),
            Err(_) => Err(format!("not within {PATIENCE:?}")),
        }
    }

    async fn release(mut self) {
        let release = async {
            sqlx::query("ROLLBACK").execute(&mut self.0).await.ok();
            self.0.close().await.ok();
        };
        timeout(PATIENCE, release).await.ok();
    }
}

impl Play {
    /// Does and undoes what is due, `now` since the containers began to write.
    pub(super) async fn chaos(&mut self, now: Duration) -> Result<(), Failure> {
        self.mend(now).await?;
        while let Some(act) = self
            .soak
            .as_mut()
            .and_then(|soak| soak.acts.pop_front_if(|act| act.at <= now))
        {
            if let Some(soak) = &mut self.soak {
                soak.done += 1;
            }
            self.act(act.what, now).await?;
        }
        Ok(())
    }

    /// Undoes everything, and waits until all replicas run.
    pub(super) async fn heal(&mut self, began: Instant) -> Result<(), Failure> {
        self.stage.cluster.clear_faults();
        if let Some(soak) = &mut self.soak {
            soak.acts.clear();
            soak.waiting.iter_mut().for_each(|(at, _)| *at = Duration::ZERO);
        }
        self.mend(began.elapsed()).await?;
        while self.soak.as_ref().is_some_and(|soak| !soak.waiting.is_empty()) {
            self.tick().await?;
            self.mend(began.elapsed()).await?;
        }
        Ok(())
    }

    async fn act(&mut self, what: What, now: Duration) -> Result<(), Failure> {
        match what {
            What::Kill(slot, _) | What::Freeze(slot, _) | What::End(slot, _)
                if self.replicas[slot].fate() != Fate::Running =>
            {
                let name = self.replicas[slot].name();
                self.say(format!("{name} is left alone; it has not ended yet"));
            }
            What::Kill(slot, vacant) => {
                let struck = self.strike(slot).await;
                self.excuse(struck)?;
                self.later(now + vacant, Then::Replace(slot, now));
            }
            What::Freeze(slot, time) => {
                self.replicas[slot].freeze();
                let (name, seconds) = (self.replicas[slot].name(), time.as_secs_f64());
                self.say(format!("{name} is frozen with SIGSTOP for {seconds:.1} s"));
                self.later(now + time, Then::Thaw(slot));
            }
            What::End(slot, vacant) => {
                self.replicas[slot].terminate();
                self.say(format!("{} is told to end with SIGTERM", self.replicas[slot].name()));
                self.later(now + vacant, Then::Replace(slot, now));
            }
            What::Hold(time) => self.hold(time, now).await,
            What::Cut(..) | What::Mute(..) | What::Refuse(..) => self.fault(what, now),
        }
        Ok(())
    }

    async fn hold(&mut self, time: Duration, now: Duration) {
        match Held::take(self.store().as_ref()).await {
            Ok(held) => {
                if let Some(soak) = &mut self.soak {
                    soak.held = Some(held);
                }
                let seconds = time.as_secs_f64();
                self.say(format!("the store's file is locked for {seconds:.1} s"));
                self.later(now + time, Then::Release);
            }
            Err(why) => self.say(format!("the store's file could not be locked: {why}")),
        }
    }

    /// What the API server does.
    fn fault(&mut self, what: What, now: Duration) {
        let cluster = &self.stage.cluster;
        let said = match what {
            What::Cut(verb, how) => {
                let (count, streams) = (cluster.cut(&Target::verb(verb), how), plural(verb));
                let how = if how == Cut::Clean {
                    "end as if complete"
                } else {
                    "are cut by a reset"
                };
                format!("{count} open {streams} {how}")
            }
            What::Mute(verb, time) => {
                let (count, streams) = (cluster.freeze(&Target::verb(verb)), plural(verb));
                self.later(now + time, Then::Unmute(verb));
                format!("{count} open {streams} go mute for {:.1} s", time.as_secs_f64())
            }
            What::Refuse(verb, status, times) => {
                let retry_after = (status == 429).then_some(1);
                cluster.inject(Target::verb(verb), Fault::Refuse { status, retry_after }, times);
                format!(
                    "the next {times} requests for {} are refused with {status}",
                    plural(verb)
                )
            }
            What::Kill(..) | What::Freeze(..) | What::End(..) | What::Hold(_) => return,
        };
        self.say(said);
    }

    fn later(&mut self, at: Duration, then: Then) {
        if let Some(soak) = &mut self.soak {
            soak.waiting.push((at, then));
        }
    }

    /// Undoes what is due.
    async fn mend(&mut self, now: Duration) -> Result<(), Failure> {
        let Some(soak) = &mut self.soak else { return Ok(()) };
        let due: Vec<_> = soak.waiting.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, then) in due {
            match then {
                Then::Thaw(slot) => {
                    self.replicas[slot].thaw();
                    self.say(format!("{} goes on", self.replicas[slot].name()));
                }
                Then::Replace(slot, since) => self.replace(slot, since, now).await?,
                Then::Release => {
                    if let Some(held) = self.soak.as_mut().and_then(|soak| soak.held.take()) {
                        held.release().await;
                    }
                    self.say("the store's file is free again");
                }
                Then::Unmute(verb) => {
                    self.stage.cluster.thaw(&Target::verb(verb));
                    self.say(format!("mute {} flow again", plural(verb)));
                }
            }
        }
        Ok(())
    }

    /// Starts a replica in the place of one that was killed or told to end at `since`, if that has ended; looks again
    /// soon if not.
    async fn replace(&mut self, slot: usize, since: Duration, now: Duration) -> Result<(), Failure> {
        let replica = &mut self.replicas[slot];
        let name = replica.name().to_owned();
        let mut badly = None;
        if replica.fate() == Fate::Ending {
            match replica.has_ended()? {
                Some(ended) => badly = ended.err(),
                None if now < since + ENDING => {
                    self.later(now, Then::Replace(slot, since));
                    return Ok(());
                }
                None => {
                    replica.kill().await;
                    badly = Some(format!(
                        "{name} did not end within {ENDING:?} of SIGTERM and was killed"
                    ));
                }
            }
        }
        if let Some(what) = &badly {
            self.say(what);
        }
        self.replicas[slot] = self.recruit()?;
        self.say(format!("{} started in place of {name}", self.replicas[slot].name()));
        if let Some(soak) = &mut self.soak {
            soak.badly.extend(badly);
        }
        Ok(())
    }
}

/// What a kind of request is for.
fn plural(verb: Verb) -> &'static str {
    match verb {
        Verb::List => "lists of pods",
        Verb::Watch => "watches",
        Verb::Get => "pods",
        Verb::Log => "log streams",
        Verb::Other => "anything else",
    }
}
