//! From the bytes of a log to the lines that wait to be written: finds the place, takes the new lines, puts a gap
//! before them where lines are missing, and measures how late lines arrive.
//!
//! A plain read begins a little before the stored line and searches for it. Text without a timestamp is never taken. It
//! opens no log and writes nothing to the sink.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::domain::Time;
use crate::domain::line_decoder::{LineDecoder, ReadStats, ResumeMode};
use crate::domain::resume::{ReadOutcome, ResumeState};

use super::delivery_delay::DeliveryDelay;
use super::writer::Writer;

/// How late lines may arrive in a stream after a silence. A stream that is held up by the network or the API server
/// falls silent, and then sends its lines late. After 8 s the kubelet may have skipped a file: with default settings two
/// rotations are 10 s apart, and 2 s of these are for noticing late.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(8);

/// The lines of one instance from the log to the writer.
pub(super) struct StreamLines<'a> {
    clock: Clock,
    decoder: LineDecoder,
    /// Where reads continue, and whether lines are missing.
    pub(super) resume: ResumeState,
    delay: DeliveryDelay,
    /// Holds the lines that were taken, and writes them.
    pub(super) writer: Writer<'a>,
}

impl<'a> StreamLines<'a> {
    /// A decoder that cuts lines longer than `max_line` bytes.
    pub(super) fn new(clock: Clock, max_line: usize, writer: Writer<'a>) -> Self {
        Self {
            clock,
            decoder: LineDecoder::new(max_line),
            resume: ResumeState::default(),
            delay: DeliveryDelay::default(),
            writer,
        }
    }

    /// Begins a read: returns which lines it takes, and from which time it asks for lines. `ended`: whether the
    /// instance has ended.
    pub(super) fn begin_read(&mut self, ended: bool) -> (ResumeMode, Option<Time>) {
        let (mode, since) = self.resume.next_read(self.writer.position(), ended);
        self.decoder.begin(mode);
        (mode, since)
    }

    /// What the present read has shown so far.
    pub(super) fn stats(&self) -> ReadStats {
        self.decoder.stats()
    }

    /// Whether the bytes so far end with a line end.
    pub(super) fn ends_with_a_line(&self) -> bool {
        self.decoder.ends_with_a_line()
    }

    /// Ends a plain read. `ended`: whether the instance had ended when the read began. Returns whether the end of the
    /// read is the end of the log.
    pub(super) fn finish_read(&mut self, ended: bool) -> bool {
        let (lines, unfinished) = (self.stats().lines, self.decoder.unfinished_line());
        let confirmed = self.resume.is_end_confirmed(ended, lines, unfinished);
        self.decoder.finish(ended && confirmed, &mut self.writer.batch);
        self.add_gap();
        confirmed
    }

    /// Classifies a plain read that came to its end.
    pub(super) fn classify_read(&mut self, mode: ResumeMode) -> ReadOutcome {
        self.resume.classify_read(mode, self.decoder.stats())
    }

    /// Processes the next bytes of a log.
    pub(super) fn feed(&mut self, bytes: &Bytes) {
        self.take_lines(bytes);
        self.record_delay();
    }

    /// Processes bytes that a stream sends after a silence. `Some(false)`, and nothing of them is taken, when they are
    /// so late that the kubelet may have skipped a file: what it read before the skipped file is as late and arrives
    /// first. `None` when there is no line yet from which to tell.
    pub(super) fn feed_if_punctual(&mut self, bytes: &Bytes) -> Option<bool> {
        let (before, gap) = (self.writer.batch.lines.len(), self.writer.gap);
        // A line is stamped when it begins, and may end much later; so an unfinished line is not judged.
        let unfinished = !self.ends_with_a_line();
        self.take_lines(bytes);
        let first = self.writer.batch.lines.get(before + usize::from(unfinished))?.time;
        if self.delay.of(first, self.clock.now()) < MAX_DELAY {
            self.record_delay();
            return Some(true);
        }
        self.writer.batch.truncate(before);
        self.writer.gap = gap;
        self.delay.reset();
        Some(false)
    }

    fn take_lines(&mut self, bytes: &Bytes) {
        let first = self.decoder.stats().taken == 0;
        self.decoder.feed(bytes, &mut self.writer.batch);
        if first {
            self.add_gap();
        }
    }

    fn record_delay(&mut self) {
        if let Some(last) = self.writer.batch.lines.last() {
            self.delay.record(last.time, self.clock.now());
        }
    }

    /// Puts a gap before the first line that is taken from a log which no longer has the stored line.
    fn add_gap(&mut self) {
        let gap = self.resume.gap(self.writer.position(), self.decoder.stats());
        self.writer.gap = gap.or(self.writer.gap.take());
    }
}
