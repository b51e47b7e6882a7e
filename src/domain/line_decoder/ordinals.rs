//! Numbers the lines that have the same timestamp, in the same way at every read of the stream.
//!
//! It remembers a few timestamps, never the lines.

use crate::domain::position::Position;
use crate::domain::time::Time;

/// Numbers the lines that have the same timestamp. Such lines need not follow each other, because the lines of stdout
/// and stderr mix; so the most recent timestamps are remembered.
#[derive(Debug, Default)]
pub(super) struct Ordinals {
    /// Timestamp of the latest line.
    time: Time,
    /// Ordinal of the next line if it has that timestamp.
    next: u32,
    /// Earlier timestamps, each with the ordinal of its next line.
    recent: [(Time, u32); 8],
    /// Index in `recent` that is overwritten next.
    oldest: usize,
}

impl Ordinals {
    /// The ordinal of the next line, which has this timestamp.
    pub(super) fn next(&mut self, time: Time) -> u32 {
        if time != self.time {
            // Each timestamp is kept once, so that two alternating timestamps do not push out the others.
            if let Some(known) = self.recent.iter_mut().find(|(t, _)| *t == self.time) {
                known.1 = self.next;
            } else {
                self.recent[self.oldest] = (self.time, self.next);
                self.oldest = (self.oldest + 1) % self.recent.len();
            }
            self.next = self
                .recent
                .iter()
                .filter(|(t, _)| *t == time)
                .map(|(_, n)| *n)
                .max()
                .unwrap_or(0);
            self.time = time;
        }
        let ordinal = self.next;
        self.next = self.next.saturating_add(1);
        ordinal
    }

    /// Continues the numbering after the line at this position.
    pub(super) fn resume(&mut self, position: Position) {
        self.time = position.time;
        self.next = position.ordinal.saturating_add(1);
    }
}
