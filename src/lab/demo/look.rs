//! Looking: one short look after another at the replicas, the table of claims, what is written and what is stored.
//!
//! Whatever the course of the demo is, it waits by [`Play::tick`], so that what goes wrong is seen at once. Nothing here
//! does anything to a replica.

use std::time::Duration;

use tokio::time::Instant;

use super::claims::Holdings;
use super::play::{Play, stopped};
use super::progress::{News, STALL};
use super::replica::{Fate, Replica};
use super::view::{Row, State};
use crate::domain::LockTable;
use crate::exit::Failure;

/// Between two looks; also how exactly a take-over is timed.
const TICK: Duration = Duration::from_millis(200);

/// Between two counts of what is stored.
const COUNT_EVERY: Duration = Duration::from_millis(600);

impl Play {
    /// Waits a moment and looks at everything.
    pub(super) async fn tick(&mut self) -> Result<(), Failure> {
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
            let seen = self.watch().await;
            self.excuse(seen)?;
        }
        if self.counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            let counted = self.count().await;
            self.excuse(counted)?;
        }
        self.refresh();
        Ok(())
    }

    /// A store that is held cannot always be read, nor one whose writer is frozen in the middle of it.
    pub(super) fn excuse(&self, seen: Result<(), Failure>) -> Result<(), Failure> {
        match seen {
            Err(failure) if self.is_disturbed() => {
                tracing::debug!(%failure, "the demo could not look");
                Ok(())
            }
            seen => seen,
        }
    }

    pub(super) async fn look(&self) -> Result<LockTable, Failure> {
        match &self.claims {
            Some(claims) => claims.look().await,
            None => Ok(LockTable::default()),
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
        let mut told = Vec::new();
        for (when, takeover) in &mut self.takeovers {
            let since = when.elapsed();
            if takeover.observe(&table, since) {
                let (pods, of) = (takeover.pods(), takeover.replica());
                let took = since.as_secs_f64();
                told.push(format!(
                    "all {pods} pods of {of} have other holders, {took:.1} s after the kill"
                ));
            }
        }
        for what in told {
            self.say(what);
        }
        Ok(())
    }

    /// Counts what is written and stored.
    async fn count(&mut self) -> Result<(), Failure> {
        self.counted = Some(Instant::now());
        self.scene.stored = self.records.count().await?;
        self.scene.written = self.stage.cluster.lines_written() as u64;
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

    /// Shows how things are.
    pub(super) fn refresh(&mut self) {
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
        match replica.fate() {
            Fate::Gone => State::Killed,
            Fate::Frozen => State::Frozen,
            Fate::Ending => State::Ending,
            Fate::Running if self.ending => State::Ending,
            Fate::Running if self.claims.is_some() && !self.holdings.alive.contains(replica.name()) => State::Starting,
            Fate::Running => State::Collecting,
        }
    }

    pub(super) fn say(&mut self, what: impl std::fmt::Display) {
        self.scene.elapsed = self.begun.elapsed();
        self.screen.say(&mut self.scene, what);
    }
}
