//! Compares what is stored with what the containers wrote, also while the history goes on.
//!
//! Pure: the truth and the state go in, numbers and the first mistake come out.

use std::collections::BTreeMap;
use std::ops::Range;

use super::rule::{Breach, Rule};
use super::sink::{Ledger, LedgerEntry, is_of};
use crate::domain::{Gap, GapReason, Time};
use kube_sim::WrittenLog;

/// How what was stored compares with what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerAudit {
    /// Lines neither stored nor covered by a gap.
    pub lost: usize,
    /// Lines stored more often than once, each time but the first.
    pub duplicated: usize,
    /// Lines stored after a later one.
    pub out_of_order: usize,
    /// Gaps.
    pub gaps: usize,
    /// Gaps where no line is missing.
    pub needless: usize,
    /// Gaps in a log of which all is still there.
    pub unfounded: usize,
    /// Lines stored, repeats included.
    pub stored: usize,
    /// Lines stored in a stream whose container did not write them.
    pub foreign: usize,
}

impl LedgerAudit {
    /// The promise that does not hold, if one does not. Storing twice breaks it only at a sink that promises `once`.
    #[must_use]
    pub fn breach(&self, once: bool) -> Option<Breach> {
        let rules = [
            (self.foreign, Rule::Foreign),
            (self.lost, Rule::Complete),
            (self.out_of_order, Rule::Order),
            (if once { self.duplicated } else { 0 }, Rule::Once),
            (self.unfounded, Rule::GapHasCause),
        ];
        let broken = rules.into_iter().find(|(count, _)| *count > 0);
        broken.map(|(_, rule)| Breach::new(rule, format!("{self:?}")))
    }
}

/// Compares with the truth. Every message of a stream must be different, and each written later than the one before.
/// While it is not `over`, what comes after the last line that is stored is not missed.
#[must_use]
pub(super) fn audit(ledger: &Ledger, truth: &[WrittenLog], over: bool) -> LedgerAudit {
    let mut all = LedgerAudit::default();
    ledger.read(|streams| {
        for log in truth {
            let stream = streams.iter().find(|(id, _)| is_of(id, log));
            let entries = stream.map_or(&[][..], |(_, stream)| &stream.entries);
            audit_stream(log, entries, over, &mut all);
        }
        let strange = streams.iter().filter(|(id, _)| !truth.iter().any(|log| is_of(id, log)));
        let lines = strange.flat_map(|(_, stream)| &stream.entries);
        all.foreign += lines.filter(|entry| !matches!(entry, LedgerEntry::Gap(_))).count();
    });
    all
}

/// How many of these lines no gap covers. A gap covers lines that were written between its ends and that the API no
/// longer serves; lines that it still serves must be stored.
fn missed(log: &WrittenLog, lines: Range<usize>, gaps: &[&Gap]) -> usize {
    let covered = |at: usize| {
        let time = Time(log.lines[at].time);
        let covers = |gap: &&Gap| gap.from.is_none_or(|from| from < time) && gap.to.is_none_or(|to| time < to);
        at < log.first_served && gaps.iter().any(covers)
    };
    lines.filter(|at| !covered(*at)).count()
}

fn audit_stream(log: &WrittenLog, entries: &[LedgerEntry], over: bool, all: &mut LedgerAudit) {
    let lines = log.lines.iter().enumerate();
    let places: BTreeMap<&[u8], usize> = lines.map(|(at, line)| (&line.message[..], at)).collect();
    let mut seen = vec![false; log.lines.len()];
    let mut rejected = seen.clone();
    let (mut next, mut gaps) = (0, Vec::new());
    for entry in entries {
        let message = match entry {
            LedgerEntry::Gap(gap) => {
                gaps.push(gap);
                all.gaps += 1;
                // Instances that ran unseen are reported in the stream of the next one.
                let own = gap.reason != GapReason::Restarted;
                all.unfounded += usize::from(own && log.first_served == 0 && !log.lines.is_empty());
                continue;
            }
            LedgerEntry::Line(message) | LedgerEntry::Rejected(message) => message,
        };
        let Some(&at) = places.get(message.as_bytes()) else {
            all.foreign += 1;
            continue;
        };
        let stored = matches!(entry, LedgerEntry::Line(_));
        all.stored += usize::from(stored);
        if seen[at] {
            all.duplicated += usize::from(stored);
        } else if at < next {
            // What was refused may be sent again.
            all.out_of_order += usize::from(stored && !rejected[at]);
        } else {
            all.lost += missed(log, next..at, &gaps);
        }
        all.needless += usize::from(!gaps.is_empty() && at <= next);
        seen[at] |= stored;
        rejected[at] |= !stored;
        next = next.max(at + 1);
        gaps.clear();
    }
    if over {
        all.lost += missed(log, next..log.lines.len(), &gaps);
        all.needless += usize::from(!gaps.is_empty() && next >= log.lines.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_sim::{ContainerInstance, Output, WrittenLine};

    /// A log of five lines, a to e, at the times 1 to 5, of which the API serves those from a place on.
    fn log(kept: usize) -> WrittenLog {
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
            first_served: kept,
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

    /// What is lost and what is unfounded, of a log of which so much is kept.
    fn judged(kept: usize, entries: &[LedgerEntry]) -> (usize, usize) {
        let mut all = LedgerAudit::default();
        audit_stream(&log(kept), entries, true, &mut all);
        (all.lost, all.unfounded)
    }

    #[test]
    fn a_gap_covers_what_was_written_between_its_ends() {
        let entries = [line("a"), gap(Some(1), Some(4)), line("d"), line("e")];
        assert_eq!(judged(3, &entries), (0, 0));
        let entries = [line("a"), gap(Some(2), Some(4)), line("d"), line("e")];
        assert_eq!(judged(3, &entries), (1, 0));
        let entries = [line("a"), gap(Some(1), None)];
        assert_eq!(judged(5, &entries), (0, 0));
        assert_eq!(judged(5, &[line("a")]), (4, 0));
    }

    #[test]
    fn no_gap_covers_what_the_api_still_serves() {
        let entries = [line("a"), gap(Some(1), Some(4)), line("d"), line("e")];
        assert_eq!(judged(2, &entries), (1, 0));
        assert_eq!(judged(3, &[line("a"), gap(Some(1), None)]), (2, 0));
    }

    #[test]
    fn a_gap_in_a_log_of_which_all_is_there_is_groundless() {
        let entries = ["a", "b", "c", "d", "e"].map(line);
        assert_eq!(
            judged(0, &[&entries[..2], &[gap(Some(2), Some(3))], &entries[2..]].concat()),
            (0, 1)
        );
        assert_eq!(judged(0, &entries), (0, 0));
    }
}
