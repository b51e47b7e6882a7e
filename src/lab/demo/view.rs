//! The text that the demo shows. It only formats values; it uses no terminal and reads no clock.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// How many events are shown.
const EVENTS: usize = 7;

/// How many replicas are shown. With the events and the other lines the view fits into 24 lines.
const REPLICAS: usize = 7;

/// The width of the progress bar in characters.
const BAR: usize = 30;

/// The status of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplicaStatus {
    /// Started, but not yet alive in the table of claims.
    Starting,
    /// It collects pods.
    Collecting,
    /// Stopped with SIGSTOP.
    Frozen,
    /// Killed by the demo.
    Killed,
    /// Asked to stop.
    Ending,
}

impl fmt::Display for ReplicaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Collecting => "collecting",
            Self::Frozen => "frozen",
            Self::Killed => "killed",
            Self::Ending => "ending",
        })
    }
}

/// The row of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplicaRow {
    pub(super) name: String,
    pub(super) state: ReplicaStatus,
    /// The pods it holds; unknown without claims.
    pub(super) pods: Option<usize>,
}

/// Everything that the demo shows.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) title: String,
    /// The time since the demo began, and the longest time that it may take.
    pub(super) elapsed: Duration,
    pub(super) most: Duration,
    /// Lines that containers wrote.
    pub(super) written: u64,
    /// Stored lines, including duplicates.
    pub(super) stored: u64,
    /// Lines stored per second during the last seconds.
    pub(super) per_second: u64,
    pub(super) rows: Vec<ReplicaRow>,
    /// Pods that are not finished and that no replica holds.
    pub(super) unheld: usize,
    pub(super) events: VecDeque<String>,
}

impl View {
    /// Adds an event. Returns the line that shows it.
    pub(super) fn add_event(&mut self, what: impl fmt::Display) -> String {
        let line = format!("{} {what}", seconds(self.elapsed));
        self.events.push_back(line.clone());
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
        line
    }

    fn lag(&self) -> u64 {
        self.written.saturating_sub(self.stored)
    }

    /// The view for a terminal, as lines with their line ends.
    pub(super) fn draw(&self) -> String {
        let mut text = String::new();
        let part = self.elapsed.as_secs_f64() / self.most.as_secs_f64().max(1.0);
        let done = ((part * BAR as f64) as usize).min(BAR);
        let bar = "#".repeat(done) + &".".repeat(BAR - done);
        // Writing into a String cannot fail.
        let mut put = |line: fmt::Arguments<'_>| text.write_fmt(line).unwrap_or_default();
        put(format_args!("{}\n[{bar}] {}\n\n", self.title, seconds(self.elapsed)));
        put(format_args!("  {:<12} {:<12} {:>6}\n", "replica", "state", "pods"));
        for row in self.rows.iter().take(REPLICAS) {
            let pods = row.pods.map_or("-".to_owned(), |pods| pods.to_string());
            put(format_args!("  {:<12} {:<12} {pods:>6}\n", row.name, row.state));
        }
        if self.rows.len() > REPLICAS {
            put(format_args!("  and {} more\n", self.rows.len() - REPLICAS));
        }
        put(format_args!(
            "  {:<12} {:<12} {:>6}\n\n",
            "(no replica)", "", self.unheld
        ));
        put(format_args!(
            "  written {:>9}   stored {:>9}   lag {:>7} lines   {:>6} lines/s\n\n",
            self.written,
            self.stored,
            self.lag(),
            self.per_second
        ));
        for event in &self.events {
            put(format_args!("  {event}\n"));
        }
        text
    }

    /// A progress line with the same values, for output that is not a terminal.
    pub(super) fn line(&self) -> String {
        let rows = self.rows.iter().map(|row| match (row.state, row.pods) {
            (ReplicaStatus::Collecting, Some(pods)) => format!("{}={pods}", row.name),
            (state, _) => format!("{}={state}", row.name),
        });
        format!(
            "{} written={} stored={} lag={} lines/s={} unheld={} {}",
            seconds(self.elapsed),
            self.written,
            self.stored,
            self.lag(),
            self.per_second,
            self.unheld,
            rows.collect::<Vec<_>>().join(" ")
        )
    }
}

fn seconds(time: Duration) -> String {
    format!("{:5.1}s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(replicas: usize) -> View {
        let row = |i| ReplicaRow {
            name: format!("replica-{i}"),
            state: if i == 2 {
                ReplicaStatus::Killed
            } else {
                ReplicaStatus::Collecting
            },
            pods: Some(20 + i),
        };
        View {
            title: "podlog demo".to_owned(),
            elapsed: Duration::from_millis(12_340),
            most: Duration::from_mins(1),
            written: 1_000,
            stored: 990,
            per_second: 1_950,
            rows: (1..=replicas).map(row).collect(),
            unheld: 3,
            ..View::default()
        }
    }

    #[test]
    fn the_view_shows_replicas_counts_and_events() {
        let mut view = view(3);
        view.add_event("replica-2 was killed");
        let drawn = view.draw();
        for line in [
            "[######........................]  12.3s",
            "  replica-1    collecting       21",
            "  replica-2    killed           22",
            "  (no replica)                   3",
            "   12.3s replica-2 was killed",
        ] {
            assert!(drawn.lines().any(|l| l == line), "{line:?} not in\n{drawn}");
        }
        assert!(drawn.contains("written      1000   stored       990   lag      10 lines     1950 lines/s"));
    }

    #[test]
    fn the_view_always_fits_on_a_small_terminal() {
        let mut view = view(100);
        view.elapsed = Duration::from_secs(500);
        for i in 0..100 {
            view.add_event(format_args!("event {i}"));
        }
        let drawn = view.draw();
        assert!(drawn.lines().count() < 24, "{drawn}");
        assert!(drawn.lines().all(|line| line.chars().count() <= 80), "{drawn}");
        assert!(drawn.contains("event 99") && drawn.contains("and 93 more"));
    }

    #[test]
    fn a_progress_line_has_the_same_values() {
        let said = view(2).line();
        assert_eq!(
            said,
            " 12.3s written=1000 stored=990 lag=10 lines/s=1950 unheld=3 replica-1=21 replica-2=killed"
        );
    }
}
