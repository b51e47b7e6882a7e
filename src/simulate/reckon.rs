//! Compares what is stored with what the containers wrote, also while the history goes on.
//!
//! Pure: the truth and the book go in, numbers and the first mistake come out.

use std::collections::BTreeMap;

use super::breach::{Breach, Rule};
use super::sink::{Entry, Ledger, is_of};
use crate::sim::Truth;

/// How what was stored compares with what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reckoning {
    /// Lines neither stored nor covered by a gap.
    pub lost: usize,
    /// Lines stored more often than once, each time but the first.
    pub twice: usize,
    /// Lines stored after a later one.
    pub disordered: usize,
    /// Gaps.
    pub gaps: usize,
    /// Gaps where no line is missing.
    pub vain: usize,
    /// Lines stored, repeats included.
    pub stored: usize,
    /// Lines stored in a stream whose container did not write them.
    pub foreign: usize,
}

impl Reckoning {
    /// What was promised and does not hold. Twice is a mistake at a sink that promises `once`.
    #[must_use]
    pub fn breach(&self, once: bool) -> Option<Breach> {
        let rules = [
            (self.foreign, Rule::Foreign),
            (self.lost, Rule::Complete),
            (self.disordered, Rule::Order),
            (if once { self.twice } else { 0 }, Rule::Once),
        ];
        let broken = rules.into_iter().find(|(count, _)| *count > 0);
        broken.map(|(_, rule)| Breach::new(rule, format!("{self:?}")))
    }
}

impl Ledger {
    /// Compares with the truth. Every message of a stream must be different. While it is not `over`, what comes
    /// after the last line that is stored is not missed.
    #[must_use]
    pub fn reckon(&self, truth: &[Truth], over: bool) -> Reckoning {
        let mut all = Reckoning::default();
        self.read(|streams| {
            for log in truth {
                let stream = streams.iter().find(|(id, _)| is_of(id, log));
                reckon(
                    log,
                    stream.map_or(&[][..], |(_, stream)| &stream.entries),
                    over,
                    &mut all,
                );
            }
        });
        all
    }
}

fn reckon(log: &Truth, entries: &[Entry], over: bool, all: &mut Reckoning) {
    let lines = log.lines.iter().enumerate();
    let places: BTreeMap<&[u8], usize> = lines.map(|(at, line)| (&line.message[..], at)).collect();
    let mut seen = vec![false; log.lines.len()];
    let mut rejected = seen.clone();
    let (mut next, mut gap) = (0, false);
    for entry in entries {
        let message = match entry {
            Entry::Gap => {
                gap = true;
                all.gaps += 1;
                continue;
            }
            Entry::Line(message) | Entry::Rejected(message) => message,
        };
        let Some(&at) = places.get(message.as_bytes()) else {
            all.foreign += 1;
            continue;
        };
        let stored = matches!(entry, Entry::Line(_));
        all.stored += usize::from(stored);
        if seen[at] {
            all.twice += usize::from(stored);
        } else if at < next {
            // What was refused may be sent again.
            all.disordered += usize::from(stored && !rejected[at]);
        } else if at > next && !gap {
            all.lost += at - next;
        }
        all.vain += usize::from(gap && at <= next);
        seen[at] |= stored;
        rejected[at] |= !stored;
        next = next.max(at + 1);
        gap = false;
    }
    if over && next < log.lines.len() && !gap {
        all.lost += log.lines.len() - next;
    }
    all.vain += usize::from(over && gap && next >= log.lines.len());
}
