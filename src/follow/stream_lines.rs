//! The lines of one stream, from the bytes of its log to the writer: takes the lines that are not stored, puts a gap
//! before them where lines are missing, and measures how late lines arrive.
//!
//! `domain::line_decoder` splits the bytes and finds the stored line; `domain::resume` decides how the next read
//! searches for it. This file opens no log and writes nothing to the sink.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::domain::line_decoder::LineDecoder;
use crate::domain::resume::{NextRead, ResumeState};

use super::delivery_delay::DeliveryDelay;
use super::writer::Writer;

/// How late lines may arrive in a stream after a silence. A stream that is held up by the network or the API server
/// falls silent, and then sends its lines late. After 8 s the kubelet may have skipped a file: with default settings
/// two rotations are 10 s apart, and 2 s of these are for noticing late.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(8);

/// Whether the lines that a stream sends after a silence are late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Punctuality {
    /// They are not late.
    OnTime,
    /// They are so late that the kubelet may have skipped a file.
    Late,
    /// There is no line yet from which to tell.
    Unknown,
}

/// Takes the new lines of one stream.
pub(super) struct StreamLines<'a> {
    clock: Clock,
    /// Splits bytes into lines, and finds the stored line.
    pub(super) decoder: LineDecoder,
    /// Where reads continue, and whether lines are missing.
    pub(super) resume: ResumeState,
    delay: DeliveryDelay,
    /// Holds the lines that were taken until it has written them.
    pub(super) writer: Writer<'a>,
}

impl<'a> StreamLines<'a> {
    /// Cuts lines that are longer than `max_line` bytes.
    pub(super) fn new(clock: Clock, max_line: usize, writer: Writer<'a>) -> Self {
        Self {
            clock,
            decoder: LineDecoder::new(max_line),
            resume: ResumeState::default(),
            delay: DeliveryDelay::default(),
            writer,
        }
    }

    /// Begins a read. `ended`: whether the instance has ended.
    pub(super) fn begin_read(&mut self, ended: bool) -> NextRead {
        let read = self.resume.next_read(self.writer.position(), ended);
        self.decoder.begin(read.mode);
        read
    }

    /// Ends a plain read. `ended`: whether the instance had ended when the read began. Returns whether the end of the
    /// read is the end of the log.
    pub(super) fn finish_read(&mut self, ended: bool) -> bool {
        let (lines, unfinished) = (self.decoder.stats().lines, self.decoder.unfinished_line());
        let confirmed = self.resume.is_end_confirmed(ended, lines, unfinished);
        self.decoder.finish(ended && confirmed, &mut self.writer.batch);
        self.add_gap();
        confirmed
    }

    /// Processes the next bytes of a log.
    pub(super) fn feed(&mut self, bytes: &Bytes) {
        self.take_lines(bytes);
        self.record_delay();
    }

    /// Processes bytes that a stream sends after a silence. Takes nothing of them when they are late: if the kubelet
    /// has skipped a file, the lines before that file are as late and arrive first.
    pub(super) fn feed_unless_late(&mut self, bytes: &Bytes) -> Punctuality {
        let (before, gap) = (self.writer.batch.lines.len(), self.writer.gap);
        // A line has the timestamp of its beginning and may end much later, so an unfinished line shows nothing.
        let unfinished = !self.decoder.ends_with_a_line();
        self.take_lines(bytes);
        let Some(first) = self.writer.batch.lines.get(before + usize::from(unfinished)) else {
            return Punctuality::Unknown;
        };
        if self.delay.measure(first.time, self.clock.now()) < MAX_DELAY {
            self.record_delay();
            return Punctuality::OnTime;
        }
        self.writer.batch.truncate(before);
        self.writer.gap = gap;
        self.delay.reset();
        Punctuality::Late
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
