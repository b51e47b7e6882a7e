//! Compares the stored lines with the lines that containers wrote, at the end of a history or during it. It only
//! compares values.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::rule::{Breach, Rule};
use super::sink::{Ledger, LedgerEntry, is_end_of, is_stream_of};
use crate::domain::{Gap, GapReason, Time};
use kube_sim::WrittenLog;

/// The number of discrepancies of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerAudit {
    /// Lines that are neither stored nor covered by a gap.
    pub lost: usize,
    /// Stored copies of lines, except the first copy of each.
    pub duplicated: usize,
    /// Lines that are stored after a later line.
    pub out_of_order: usize,
    /// All gaps.
    pub gaps: usize,
    /// Gaps at places where no line is missing.
    pub gaps_without_loss: usize,
    /// Gaps in logs whose lines the API still serves completely.
    pub gaps_without_cause: usize,
    /// Stored lines, including duplicates.
    pub stored: usize,
    /// Stored ends of lines whose beginnings were rotated away.
    pub ends: usize,
    /// Lines that are stored in a stream whose container did not write them.
    pub foreign: usize,
}

impl LedgerAudit {
    /// The rule that is broken, if one is. Duplicates break a rule only if the sink stores lines `exactly_once`.
    #[must_use]
    pub fn breach(&self, exactly_once: bool) -> Option<Breach> {
        let rules = [
            (self.foreign, Rule::Foreign),
            (self.lost, Rule::Complete),
            (self.out_of_order, Rule::Order),
            (if exactly_once { self.duplicated } else { 0 }, Rule::Once),
            (self.gaps_without_cause, Rule::GapHasCause),
        ];
        let broken = rules.into_iter().find(|(count, _)| *count > 0);
        broken.map(|(_, rule)| Breach::new(rule, format!("{self:?}")))
    }
}

/// Compares the ledger with the logs. All messages of a log must be different, and their timestamps must not decrease.
/// Lines after the last stored one are missing only if the history is `over`.
#[must_use]
pub(super) fn audit(ledger: &Ledger, logs: &[WrittenLog], over: bool) -> LedgerAudit {
    let mut all = LedgerAudit::default();
    ledger.read(|streams| {
        for log in logs {
            let stream = streams.iter().find(|(id, _)| is_stream_of(id, log));
            let entries = stream.map_or(&[][..], |(_, stream)| &stream.entries);
            audit_stream(log, entries, over, &mut all);
        }
        let unknown = streams
            .iter()
            .filter(|(id, _)| !logs.iter().any(|log| is_stream_of(id, log)));
        let lines = unknown.flat_map(|(_, stream)| &stream.entries);
        all.foreign += lines.filter(|entry| !matches!(entry, LedgerEntry::Gap(_))).count();
    });
    all
}

/// How many of these lines no gap covers. A gap covers lines that were written between its ends, if the API does not
/// serve them any more. A line with the timestamp of the line at an end is between the ends too.
fn missed(log: &WrittenLog, lines: Range<usize>, gaps: &[&Gap]) -> usize {
    let time_at = |at: Option<usize>| at.and_then(|at| log.lines.get(at)).map(|line| Time(line.time));
    let (before, after) = (time_at(lines.start.checked_sub(1)), time_at(Some(lines.end)));
    let covered = |at: usize| {
        let time = Time(log.lines[at].time);
        let begins = |from: Time| from < time || from == time && before == Some(time);
        let ends = |to: Time| time < to || to == time && after == Some(time);
        let covers = |gap: &&Gap| gap.from.is_none_or(begins) && gap.to.is_none_or(ends);
        at < log.first_served && gaps.iter().any(covers)
    };
    lines.filter(|at| !covered(*at)).count()
}

/// The index of the line that this message is the end of. The line began in a file that was rotated away.
fn find_end(log: &WrittenLog, message: &[u8]) -> Option<usize> {
    let rotated = log.lines.iter().take(log.first_served);
    rotated
        .enumerate()
        .find(|(_, line)| is_end_of(message, line))
        .map(|(at, _)| at)
}

fn audit_stream(log: &WrittenLog, entries: &[LedgerEntry], over: bool, all: &mut LedgerAudit) {
    let lines = log.lines.iter().enumerate();
    let places: BTreeMap<&[u8], usize> = lines.map(|(at, line)| (&line.message[..], at)).collect();
    let mut seen = vec![false; log.lines.len()];
    let mut rejected = seen.clone();
    let (mut next, mut gaps, mut ends) = (0, Vec::new(), BTreeSet::new());
    for entry in entries {
        let message = match entry {
            LedgerEntry::Gap(gap) => {
                gaps.push(gap);
                all.gaps += 1;
                // A gap for instances that were never seen is stored in the stream of the next instance.
                let own = gap.reason != GapReason::Restarted;
                all.gaps_without_cause += usize::from(own && log.first_served == 0 && !log.lines.is_empty());
                continue;
            }
            LedgerEntry::Line(message) | LedgerEntry::Rejected(message) => message,
        };
        let stored = matches!(entry, LedgerEntry::Line(_));
        let Some(&at) = places.get(message.as_bytes()) else {
            match find_end(log, message.as_bytes()) {
                Some(at) => {
                    all.ends += 1;
                    // A gap must cover the beginning, unless the line was stored as a whole before it was rotated away.
                    if !seen[at] && !rejected[at] {
                        all.lost += missed(log, next..at + 1, &gaps);
                    }
                    all.duplicated += usize::from(stored && !ends.insert(message));
                    next = next.max(at + 1);
                    gaps.clear();
                }
                None => all.foreign += 1,
            }
            continue;
        };
        all.stored += usize::from(stored);
        if seen[at] {
            all.duplicated += usize::from(stored);
        } else if at < next {
            // A rejected line may be sent again.
            all.out_of_order += usize::from(stored && !rejected[at]);
        } else {
            all.lost += missed(log, next..at, &gaps);
        }
        all.gaps_without_loss += usize::from(!gaps.is_empty() && at <= next);
        seen[at] |= stored;
        rejected[at] |= !stored;
        next = next.max(at + 1);
        gaps.clear();
    }
    if over {
        all.lost += missed(log, next..log.lines.len(), &gaps);
        all.gaps_without_loss += usize::from(!gaps.is_empty() && next >= log.lines.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_sim::{ContainerInstance, Output, WrittenLine};

    /// A log of five lines, `a` to `e`, at the times 1 to 5. The API serves the lines from the index `first_served`.
    fn log(first_served: usize) -> WrittenLog {
        let line = |(at, text): (usize, &str)| WrittenLine {
            time: at as i64 + 1,
            output: Output::Stdout,
            message: text.to_owned().into(),
        };
        let instance = ContainerInstance {
            uid: "u".into(),
            namespace: "n".into(),
            pod: "p".into(),
            container: "c".into(),
            container_id: "containerd://x".into(),
            restart_count: 0,
        };
        let lines = ["a", "b", "c", "d", "e"].into_iter().enumerate().map(line).collect();
        WrittenLog {
            instance,
            lines,
            first_served,
        }
    }

    fn gap(from: Option<i64>, to: Option<i64>) -> LedgerEntry {
        LedgerEntry::Gap(Gap {
            from: from.map(Time),
            to: to.map(Time),
            reason: GapReason::Rotated,
        })
    }

    fn line(text: &str) -> LedgerEntry {
        LedgerEntry::Line(text.into())
    }

    /// The numbers of lost lines and of gaps without cause.
    fn counts(first_served: usize, entries: &[LedgerEntry]) -> (usize, usize) {
        let mut all = LedgerAudit::default();
        audit_stream(&log(first_served), entries, true, &mut all);
        (all.lost, all.gaps_without_cause)
    }

    #[test]
    fn a_gap_covers_the_lines_that_were_written_between_its_ends() {
        let entries = [line("a"), gap(Some(1), Some(4)), line("d"), line("e")];
        assert_eq!(counts(3, &entries), (0, 0));
        let entries = [line("a"), gap(Some(2), Some(4)), line("d"), line("e")];
        assert_eq!(counts(3, &entries), (1, 0));
        let entries = [line("a"), gap(Some(1), None)];
        assert_eq!(counts(5, &entries), (0, 0));
        assert_eq!(counts(5, &[line("a")]), (4, 0));
    }

    #[test]
    fn a_gap_covers_lines_with_the_timestamp_of_the_stored_line_at_its_end() {
        let lost = |times: [i64; 5], from: i64, to: i64| {
            let mut log = log(3);
            log.lines
                .iter_mut()
                .zip(times)
                .for_each(|(line, time)| line.time = time);
            let entries = [line("a"), gap(Some(from), Some(to)), line("d"), line("e")];
            let mut all = LedgerAudit::default();
            audit_stream(&log, &entries, true, &mut all);
            all.lost
        };
        assert_eq!(lost([1, 1, 1, 4, 5], 1, 4), 0);
        assert_eq!(lost([1, 1, 4, 4, 5], 1, 4), 0);
        // The gap begins or ends at a line that is not stored.
        assert_eq!(lost([1, 2, 2, 4, 5], 2, 4), 2);
        assert_eq!(lost([1, 2, 3, 4, 5], 1, 3), 1);
    }

    #[test]
    fn the_end_of_a_line_may_be_stored_once_after_a_gap_or_after_the_whole_line() {
        let found = |first_served: usize, entries: &[LedgerEntry]| {
            let mut log = log(first_served);
            log.lines[2].message = "half c".into();
            let mut all = LedgerAudit::default();
            audit_stream(&log, &[&[line("a"), line("b")], entries].concat(), true, &mut all);
            (all.lost, all.ends, all.duplicated, all.foreign)
        };
        let rest = [line("c"), line("d"), line("e")];
        assert_eq!(found(3, &[&[gap(Some(2), Some(4))], &rest[..]].concat()), (0, 1, 0, 0));
        assert_eq!(found(3, &[&[line("half c")], &rest[..]].concat()), (0, 1, 0, 0));
        assert_eq!(
            found(3, &[&[line("half c"), line("c")], &rest[..]].concat()),
            (0, 2, 1, 0)
        );
        assert_eq!(found(3, &rest), (1, 1, 0, 0));
        // The line is still served.
        assert_eq!(found(2, &[&[line("half c")], &rest[..]].concat()), (0, 0, 0, 1));
    }

    #[test]
    fn a_gap_does_not_cover_lines_that_the_api_still_serves() {
        let entries = [line("a"), gap(Some(1), Some(4)), line("d"), line("e")];
        assert_eq!(counts(2, &entries), (1, 0));
        assert_eq!(counts(3, &[line("a"), gap(Some(1), None)]), (2, 0));
    }

    #[test]
    fn a_gap_in_a_log_that_the_api_serves_completely_has_no_cause() {
        let entries = ["a", "b", "c", "d", "e"].map(line);
        assert_eq!(
            counts(0, &[&entries[..2], &[gap(Some(2), Some(3))], &entries[2..]].concat()),
            (0, 1)
        );
        assert_eq!(counts(0, &entries), (0, 0));
    }
}
