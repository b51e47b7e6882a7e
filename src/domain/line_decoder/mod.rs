//! From the bytes of a log to the lines that are not stored yet.
//!
//! The log API can only be asked for lines since a whole second, so every read begins with lines that are stored
//! already. [`LineDecoder`] splits bytes into lines, numbers the lines that have the same timestamp, and finds the last
//! stored line by its content. It never decides by timestamps alone where a read continues, because timestamps repeat
//! and go backwards; only [`ResumeMode::LaterStamps`] does, as the last resort. Nothing here stores a line.

mod ordinals;
#[cfg(test)]
mod tests;

use super::chunk::Line;
use super::position::Position;
use super::time::Time;
use crate::defect::{self, Defect};
use ordinals::Ordinals;

/// Lines that were taken from a log and are not written yet.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The bytes of all lines, without line ends.
    pub text: Vec<u8>,
    /// The lines, in the order of the log.
    pub lines: Vec<Line>,
}

impl Batch {
    /// Keeps the first `lines` lines and drops the others.
    pub fn truncate(&mut self, lines: usize) {
        if let Some(line) = self.lines.get(lines) {
            self.text.truncate(line.start as usize);
            self.lines.truncate(lines);
        }
    }

    /// The position of the last line.
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

/// Which lines of a read are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeMode {
    /// Every line: nothing of the stream is stored yet.
    All,
    /// The lines after the one at this position.
    After(Position),
    /// The lines after the `nth` line that has the timestamp and content of this position. Needed when the log was
    /// rotated between lines with the same timestamp, so that their ordinals have changed.
    AfterEqualStamp {
        /// The last stored line.
        position: Position,
        /// Which of the lines with its timestamp and content it is; the first is 1.
        nth: u32,
    },
    /// The line at this position was rotated away, so the log should be a new file. If its first line is later than the
    /// position, every line is taken. If its first line is the stored line, the lines after it are taken. Any other
    /// first line means that the log does reach back to the position and an earlier answer was cut short; then nothing
    /// is taken.
    NewFile(Position),
    /// Lines with a later timestamp. The last resort, when the stored line cannot be found in a log that reaches back
    /// to it.
    LaterStamps(Position),
}

/// What one read has shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Number of lines of the container, taken or skipped.
    pub lines: u64,
    /// Number of lines taken.
    pub taken: u64,
    /// Timestamp of the first line taken.
    pub first_taken: Option<Time>,
    /// Whether lines are taken from here on: the stored line was found, or none was searched for.
    pub taking: bool,
    /// Number of lines with the timestamp and content of the stored line.
    pub equal_stamps: u32,
    /// Number of lines without a timestamp: messages of the kubelet, or the end of a line that began before the read.
    pub kubelet_messages: u64,
    /// Whether the last line of all was one without a timestamp.
    pub ends_in_kubelet_message: bool,
    /// Number of lines cut because they are longer than the limit.
    pub cut: u64,
}

/// Turns the bytes of one read after another into lines of one stream.
#[derive(Debug)]
pub struct LineDecoder {
    /// Longest line in bytes; longer lines are cut.
    max_line: usize,
    mode: ResumeMode,
    stats: ReadStats,
    /// The beginning of the line whose end has not arrived, timestamp included.
    unfinished: Vec<u8>,
    /// Number of bytes of that line that were cut off.
    unfinished_cut: u64,
    /// The beginning of the latest line without a timestamp.
    unstamped: Vec<u8>,
    ordinals: Ordinals,
}

/// The most bytes that are kept of a line without a timestamp: enough for a message of the kubelet.
const MAX_UNSTAMPED: usize = 300;

/// Longest length in bytes of the timestamp and the blank before the message.
const PREFIX: usize = 36;

/// Capacity in bytes above which the buffer of an unfinished line is freed when it is empty. Otherwise one long line
/// would hold memory for as long as its stream is open.
const MAX_EMPTY_CAPACITY: usize = 4096;

impl LineDecoder {
    /// A decoder that cuts lines longer than `max_line` bytes.
    #[must_use]
    pub fn new(max_line: usize) -> Self {
        Self {
            max_line,
            mode: ResumeMode::All,
            stats: ReadStats::default(),
            unfinished: Vec::new(),
            unfinished_cut: 0,
            unstamped: Vec::new(),
            ordinals: Ordinals::default(),
        }
    }

    /// Begins a new read. An unfinished line of the read before is dropped.
    pub fn begin(&mut self, mode: ResumeMode) {
        self.mode = mode;
        self.stats = ReadStats {
            taking: mode == ResumeMode::All,
            ..ReadStats::default()
        };
        self.clear_unfinished();
        self.unstamped = Vec::new();
        self.ordinals = Ordinals::default();
    }

    /// What the present read has shown so far.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        self.stats
    }

    /// The beginning of the latest line without a timestamp; empty if there was none.
    #[must_use]
    pub fn unstamped_line(&self) -> &[u8] {
        &self.unstamped
    }

    /// Processes the next bytes of the read and appends the lines that are taken.
    pub fn feed(&mut self, mut bytes: &[u8], batch: &mut Batch) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (head, rest) = bytes.split_at(end);
            if self.unfinished.is_empty() {
                self.process_line(head, 0, batch);
            } else {
                self.extend_unfinished(head);
                self.process_unfinished(batch);
            }
            bytes = &rest[1..];
        }
        self.extend_unfinished(bytes);
    }

    /// Capacity in bytes of the buffer for an unfinished line.
    #[must_use]
    pub fn buffer_capacity(&self) -> usize {
        self.unfinished.capacity()
    }

    /// Whether the bytes so far end with a line end.
    #[must_use]
    pub fn ends_with_a_line(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Hash of the bytes after the last line end; `None` if there are none.
    #[must_use]
    pub fn unfinished_line(&self) -> Option<u64> {
        (!self.unfinished.is_empty()).then(|| Position::hash(&self.unfinished))
    }

    /// Ends a read that came to its end without an error. Bytes after the last line end are a line if the instance has
    /// `ended`; before that the line is still being written. Bytes without a timestamp count as a message of the
    /// kubelet.
    pub fn finish(&mut self, ended: bool, batch: &mut Batch) {
        let kubelet_message = !self.unfinished.is_empty() && Time::split_line(&self.unfinished).is_none();
        let ended = ended || defect::on(Defect::HalfLineTaken);
        if kubelet_message || ended && !self.unfinished.is_empty() {
            self.process_unfinished(batch);
        }
    }

    fn extend_unfinished(&mut self, bytes: &[u8]) {
        let room = (self.max_line + PREFIX).saturating_sub(self.unfinished.len());
        let kept = bytes.len().min(room);
        self.unfinished.extend_from_slice(&bytes[..kept]);
        self.unfinished_cut += (bytes.len() - kept) as u64;
    }

    fn process_unfinished(&mut self, batch: &mut Batch) {
        let line = std::mem::take(&mut self.unfinished);
        let cut = std::mem::take(&mut self.unfinished_cut);
        self.process_line(&line, cut, batch);
        self.unfinished = line;
        self.clear_unfinished();
    }

    fn clear_unfinished(&mut self) {
        self.unfinished_cut = 0;
        if self.unfinished.capacity() > MAX_EMPTY_CAPACITY {
            self.unfinished = Vec::new();
        } else {
            self.unfinished.clear();
        }
    }

    fn process_line(&mut self, raw: &[u8], already_cut: u64, batch: &mut Batch) {
        let Some((time, message)) = Time::split_line(raw) else {
            self.stats.kubelet_messages += 1;
            self.stats.ends_in_kubelet_message = true;
            self.unstamped.clear();
            self.unstamped.extend_from_slice(&raw[..raw.len().min(MAX_UNSTAMPED)]);
            return;
        };
        self.stats.lines += 1;
        self.stats.ends_in_kubelet_message = false;
        let ordinal = self.ordinals.next(time);
        if !self.takes(time, ordinal, message) {
            return;
        }
        let kept = &message[..message.len().min(self.max_line)];
        let cut = already_cut + (message.len() - kept.len()) as u64;
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

    /// Whether this line is taken. When it is the stored line, the lines after it are.
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
                // The stored line itself may come first, if the log was only believed to be empty. Another line with
                // its timestamp may be a line before it.
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
