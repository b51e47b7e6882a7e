//! Observes a demo: reads the table of claims, counts the written and the stored lines, and shows them.
//!
//! It only reads. It never changes a replica or the simulated cluster.

use std::time::Duration;

use kube_sim::SimCluster;
use tokio::time::Instant;

use super::claims::{ClaimsObserver, Holdings, Takeover};
use super::progress::{Progress, ProgressChange, STALL};
use super::replica::{ProcessState, Replica};
use super::screen::Screen;
use super::stored::Records;
use super::view::{ReplicaRow, ReplicaStatus, View};
use crate::domain::LockTable;
use crate::exit::Failure;

/// Time between two counts of the stored lines.
const COUNT_INTERVAL: Duration = Duration::from_millis(600);

/// The observed values, and the screen that shows them.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) records: Records,
    /// The table of claims; `None` when replicas do not share one.
    claims: Option<ClaimsObserver>,
    holdings: Holdings,
    /// The takeovers, each with the time of the kill.
    takeovers: Vec<(Instant, Takeover)>,
    progress: Progress,
    counted_at: Option<Instant>,
    view: View,
    screen: Screen,
    started_at: Instant,
}

impl Observer {
    /// Observes `records` and, if there is one, the table of claims.
    pub(super) fn new(claims: Option<ClaimsObserver>, records: Records, view: View, screen: Screen) -> Self {
        Self {
            records,
            claims,
            holdings: Holdings::default(),
            takeovers: Vec::new(),
            progress: Progress::default(),
            counted_at: None,
            view,
            screen,
            started_at: Instant::now(),
        }
    }

    /// Time since the demo began.
    pub(super) fn elapsed(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Whether replicas share a table of claims.
    pub(super) fn has_claims(&self) -> bool {
        self.claims.is_some()
    }

    /// How many replicas are alive according to the table of claims.
    pub(super) fn alive_replicas(&self) -> usize {
        self.holdings.alive.len()
    }

    /// Whether the replica of this name holds a pod.
    pub(super) fn holds_pods(&self, name: &str) -> bool {
        self.holdings.pods.get(name).is_some_and(|pods| *pods > 0)
    }

    /// How long each takeover took; `None` for those that are not complete.
    pub(super) fn takeover_times(&self) -> impl Iterator<Item = Option<Duration>> {
        self.takeovers.iter().map(|(_, takeover)| takeover.took)
    }

    /// Begins to measure the takeover of the pods of a replica that was killed at `killed_at`.
    pub(super) async fn expect_takeover(&mut self, name: &str, killed_at: Instant) -> Result<(), Failure> {
        let takeover = Takeover::begin(name, &self.table().await?);
        self.show_event(format!("{name} held {} pods", takeover.pods));
        self.takeovers.push((killed_at, takeover));
        Ok(())
    }

    async fn table(&self) -> Result<LockTable, Failure> {
        match &self.claims {
            Some(claims) => claims.read_table().await,
            None => Ok(LockTable::default()),
        }
    }

    /// Reads the table of claims.
    pub(super) async fn read_claims(&mut self) -> Result<(), Failure> {
        if self.claims.is_none() {
            return Ok(());
        }
        let table = self.table().await?;
        let before = std::mem::replace(&mut self.holdings, Holdings::from_table(&table));
        let (held, held_before): (usize, usize) = (self.holdings.pods.values().sum(), before.pods.values().sum());
        let mut events = Vec::new();
        if held_before == 0 && held > 0 {
            events.push("the first pods are claimed".to_owned());
        }
        let new = self.holdings.alive.difference(&before.alive);
        events.extend(new.map(|name| format!("{name} is alive")));
        for (killed_at, takeover) in &mut self.takeovers {
            let since = killed_at.elapsed();
            if takeover.observe(&table, since) {
                let (pods, name) = (takeover.pods, &takeover.replica);
                let seconds = since.as_secs_f64();
                events.push(format!(
                    "all {pods} pods of {name} have other holders, {seconds:.1} s after the kill"
                ));
            }
        }
        for event in events {
            self.show_event(event);
        }
        Ok(())
    }

    /// Counts the written and the stored lines, if the interval has passed. `copies` is how many copies of each line
    /// should be stored.
    pub(super) async fn count(&mut self, cluster: &SimCluster, copies: usize) -> Result<(), Failure> {
        if self.counted_at.is_some_and(|at| at.elapsed() < COUNT_INTERVAL) {
            return Ok(());
        }
        self.counted_at = Some(Instant::now());
        self.view.stored = self.records.count().await?;
        self.view.written = cluster.lines_written() as u64;
        let expected = self.view.written * copies as u64;
        match self.progress.record(self.elapsed(), self.view.stored, expected) {
            Some(ProgressChange::Stalled(lines)) => {
                self.show_event(format!("nothing was stored for {STALL:?}; {lines} lines are missing"));
            }
            Some(ProgressChange::Resumed) => self.show_event("lines are stored again"),
            None => {}
        }
        self.view.per_second = self.progress.per_second();
        Ok(())
    }

    /// Whether the last count found as many stored lines as there should be.
    pub(super) fn all_counted(&self, copies: usize) -> bool {
        self.view.stored >= self.view.written * copies as u64
    }

    /// Whether no line was stored for [`STALL`].
    pub(super) fn is_stalled(&self) -> bool {
        self.progress.is_stalled(self.elapsed())
    }

    /// Shows the replicas and the counts.
    pub(super) fn show(&mut self, replicas: &[Replica], ending: bool) {
        self.view.elapsed = self.elapsed();
        self.view.unheld = self.holdings.unheld;
        let row = |replica: &Replica| ReplicaRow {
            name: replica.name().to_owned(),
            state: self.status(replica, ending),
            pods: self
                .claims
                .as_ref()
                .map(|_| self.holdings.pods.get(replica.name()).copied().unwrap_or(0)),
        };
        self.view.rows = replicas.iter().map(row).collect();
        self.screen.show(&self.view);
    }

    fn status(&self, replica: &Replica, ending: bool) -> ReplicaStatus {
        match replica.state() {
            ProcessState::Gone => ReplicaStatus::Killed,
            ProcessState::Frozen => ReplicaStatus::Frozen,
            ProcessState::Ending => ReplicaStatus::Ending,
            ProcessState::Running if ending => ReplicaStatus::Ending,
            ProcessState::Running if self.claims.is_some() && !self.holdings.alive.contains(replica.name()) => {
                ReplicaStatus::Starting
            }
            ProcessState::Running => ReplicaStatus::Collecting,
        }
    }

    /// Shows an event.
    pub(super) fn show_event(&mut self, event: impl std::fmt::Display) {
        self.view.elapsed = self.elapsed();
        self.screen.show_event(&mut self.view, event);
    }
}
