//! Numbers lines of equal timestamps, the same way however often the stream is read.
//!
//! It remembers a few timestamps, never the lines.

use super::Position;
use super::Time;

/// Numbers lines of equal timestamps. Equal timestamps need not be neighbours: two writers of one
/// container interleave, so the latest few are remembered.
#[derive(Debug, Default)]
pub(super) struct Ordinals {
    time: Time,
    next: u32,
    recent: [(Time, u32); 8],
    oldest: usize,
}

impl Ordinals {
    /// The number of the next line, which carries this timestamp.
    pub(super) fn next(&mut self, time: Time) -> u32 {
        if time != self.time {
            // Each stamp once: two that take turns must not drive out the others.
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

    /// The line at this position has just been seen.
    pub(super) fn resume(&mut self, position: Position) {
        self.time = position.time;
        self.next = position.ordinal.saturating_add(1);
    }
}
