//! From bytes of a log response to lines that have not been stored yet.
//!
//! The log API can only be asked for "since that second", so every read begins with lines that
//! are known already. [`Intake`] splits bytes into lines, numbers lines of equal timestamps, and
//! finds the place after the last stored line by content. It never judges by timestamp alone
//! where a read continues: timestamps repeat and go backwards.

mod ordinals;
#[cfg(test)]
mod tests;

use super::chunk::Line;
use super::position::Position;
use super::time::Time;
use crate::defect::{self, Defect};
use ordinals::Ordinals;

/// Lines taken and not yet written.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The bytes of all lines, one after another.
    pub text: Vec<u8>,
    /// The lines.
    pub lines: Vec<Line>,
}

impl Batch {
    /// Drops all but the first `lines`.
    pub fn truncate(&mut self, lines: usize) {
        if let Some(line) = self.lines.get(lines) {
            self.text.truncate(line.start as usize);
            self.lines.truncate(lines);
        }
    }

    /// The position after the last line.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        let line = self.lines.last()?;
        let message = &self.text[line.start as usize..];
        Some(Position {
            time: line.time,
            ordinal: line.ordinal,
            hash: Position::hash(message),
        })
    }
}

/// What to do with the lines of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeMode {
    /// Take every line: nothing of the stream is stored yet.
    All,
    /// Pass over everything up to the line at this position, then take.
    After(Position),
    /// The line at this position is no longer there, and `nth` lines are that carry its timestamp and
    /// content: pass over everything up to the last of those, then take. Happens when a rotation fell
    /// between lines of one timestamp, so that ordinals have shifted.
    AfterEqualStamp {
        /// The last stored line.
        position: Position,
        /// Which of the lines with its timestamp and content it is, from 1.
        nth: u32,
    },
    /// The line at this position has been rotated away, so the file is all new: take every line, if the
    /// first one is later than the position, or those after it if it is the stored line itself. Any other
    /// first line means that the file does reach back far enough and that the search was cut short; nothing
    /// is taken then.
    NewFile(Position),
    /// Take lines with a later timestamp only. The last resort, when the line at the position cannot be
    /// found in a file that reaches back to it.
    LaterStamps(Position),
}

/// What one read has shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Lines of the container, taken or passed over.
    pub lines: u64,
    /// Lines taken.
    pub taken: u64,
    /// The timestamp of the first line taken.
    pub first_taken: Option<Time>,
    /// Whether lines are taken now: the place was found, or none was sought.
    pub taking: bool,
    /// Lines with the timestamp and content of the position sought.
    pub equal_stamps: u32,
    /// Lines without a timestamp: the kubelet's own words, or the end of a line begun before the read.
    pub control: u64,
    /// Whether the latest of all was one of those.
    pub ends_in_control: bool,
    /// Lines cut at the cap.
    pub cut: u64,
}

/// Splits and aligns the bytes of one read after another of one stream.
#[derive(Debug)]
pub struct Intake {
    cap: usize,
    mode: ResumeMode,
    stats: ReadStats,
    carry: Vec<u8>,
    dropped: u64,
    ordinals: Ordinals,
}

/// The timestamp and the blank before the message, at their longest.
const PREFIX: usize = 36;

/// A carry buffer larger than this is given back once it is empty, so that one long line does not
/// cost a quiet stream its memory for ever.
const SPARE: usize = 4096;

impl Intake {
    /// An intake that cuts lines longer than `cap` bytes.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            mode: ResumeMode::All,
            stats: ReadStats::default(),
            carry: Vec::new(),
            dropped: 0,
            ordinals: Ordinals::default(),
        }
    }

    /// A new read begins; whatever was half read before is forgotten.
    pub fn begin(&mut self, mode: ResumeMode) {
        self.mode = mode;
        self.stats = ReadStats {
            taking: mode == ResumeMode::All,
            ..ReadStats::default()
        };
        self.clear_carry();
        self.ordinals = Ordinals::default();
    }

    /// What the present read has shown so far.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        self.stats
    }

    /// Takes in the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], batch: &mut Batch) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (head, rest) = bytes.split_at(end);
            if self.carry.is_empty() {
                self.line(head, 0, batch);
            } else {
                self.keep(head);
                self.carried_line(batch);
            }
            bytes = &rest[1..];
        }
        self.keep(bytes);
    }

    /// Bytes of memory held for the line that has begun, spare ones included.
    #[must_use]
    pub fn held(&self) -> usize {
        self.carry.capacity()
    }

    /// Whether nothing remains without a line end.
    #[must_use]
    pub fn ends_with_a_line(&self) -> bool {
        self.carry.is_empty()
    }

    /// A hash of what remains without a line end, when anything does.
    #[must_use]
    pub fn remainder(&self) -> Option<u64> {
        (!self.carry.is_empty()).then(|| Position::hash(&self.carry))
    }

    /// The read has come to its end in order. What remains without a line end is a line too, if the
    /// instance has `ended`; until then it is a line being written. Without a timestamp it is neither.
    pub fn finish(&mut self, ended: bool, batch: &mut Batch) {
        let control = !self.carry.is_empty() && Time::split_line(&self.carry).is_none();
        let ended = ended || defect::on(Defect::HalfLineTaken);
        if control || ended && !self.carry.is_empty() {
            self.carried_line(batch);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = (self.cap + PREFIX).saturating_sub(self.carry.len());
        let kept = bytes.len().min(room);
        self.carry.extend_from_slice(&bytes[..kept]);
        self.dropped += (bytes.len() - kept) as u64;
    }

    fn carried_line(&mut self, batch: &mut Batch) {
        let carry = std::mem::take(&mut self.carry);
        let dropped = std::mem::take(&mut self.dropped);
        self.line(&carry, dropped, batch);
        self.carry = carry;
        self.clear_carry();
    }

    fn clear_carry(&mut self) {
        self.dropped = 0;
        if self.carry.capacity() > SPARE {
            self.carry = Vec::new();
        } else {
            self.carry.clear();
        }
    }

    fn line(&mut self, raw: &[u8], dropped: u64, batch: &mut Batch) {
        let Some((time, message)) = Time::split_line(raw) else {
            self.stats.control += 1;
            self.stats.ends_in_control = true;
            return;
        };
        self.stats.lines += 1;
        self.stats.ends_in_control = false;
        let ordinal = self.ordinals.next(time);
        if !self.takes(time, ordinal, message) {
            return;
        }
        let kept = &message[..message.len().min(self.cap)];
        let cut = dropped + (message.len() - kept.len()) as u64;
        self.stats.taken += 1;
        self.stats.cut += u64::from(cut > 0);
        self.stats.first_taken.get_or_insert(time);
        let start = batch.text.len() as u32;
        batch.text.extend_from_slice(kept);
        batch.lines.push(Line {
            time,
            ordinal,
            start,
            len: kept.len() as u32,
            cut,
        });
    }

    /// Whether to take this line; moves from seeking to taking when it is the one sought.
    fn takes(&mut self, time: Time, ordinal: u32, message: &[u8]) -> bool {
        if let ResumeMode::LaterStamps(position) = self.mode {
            return time > position.time;
        }
        if self.stats.taking {
            return true;
        }
        let (position, nth) = match self.mode {
            ResumeMode::After(position) => (position, None),
            ResumeMode::AfterEqualStamp { position, nth } => (position, Some(nth)),
            ResumeMode::NewFile(position) => {
                // The line at the position itself, in a file that was found empty by mistake. Another line of its stamp
                // may be one before it.
                let stored =
                    (time, ordinal) == (position.time, position.ordinal) && Position::hash(message) == position.hash;
                self.stats.taking = self.stats.lines == 1 && (time > position.time || stored);
                if stored && self.stats.taking {
                    self.ordinals.resume(position);
                }
                return self.stats.taking && !stored;
            }
            ResumeMode::All | ResumeMode::LaterStamps(_) => return true,
        };
        if time == position.time && Position::hash(message) == position.hash {
            self.stats.equal_stamps += 1;
            if nth.map_or(ordinal == position.ordinal, |nth| self.stats.equal_stamps == nth) {
                self.stats.taking = true;
                self.ordinals.resume(position);
            }
        }
        false
    }
}
