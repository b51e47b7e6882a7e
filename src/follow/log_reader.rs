//! Reads the log of one instance once, from the stored position to its present end, and has the new lines written.
//!
//! It never keeps a log open: `follow_stream` does. It never decides what follows a read: `instance` does. The lines
//! that it has taken wait in the `writer`, which stores them and moves the position.

use std::time::Duration;

use crate::cluster::{LogError, LogStream};
use crate::domain::line_decoder::ResumeMode;
use crate::domain::resume::{NextRead, ReadOutcome};
use crate::domain::unstamped::Unstamped;
use crate::domain::{Gap, GapReason, Message, Position, Time};
use crate::unread::{LogState, UnreadReason};

use super::assignment::{ContainerEnd, PodAssignment};
use super::context::Context;
use super::instance_log::InstanceLog;
use super::instance_status::InstanceStatus;
use super::read_end::ReadEnd;
use super::stream_lines::StreamLines;
use super::writer::{WriteOutcome, Writer};

/// Time without bytes after which a plain read counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Time without bytes after which a stream has sent everything that was written before.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// How long a log may stay open and unread. The kubelet's reader survives one rotation while its client does not read,
/// and skips a file at the second. Two rotations are 10 s apart with default settings and 3 s with the shortest; 1 s of
/// these 3 s is for noticing late.
pub(super) const MAX_UNREAD: Duration = Duration::from_secs(2);

/// An open log, or why it was closed while it was not read.
pub(super) type OpenLog = Result<LogStream, ReadEnd>;

/// The last line of a log, as a probe has found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastLine {
    /// Its timestamp.
    pub(super) time: Time,
    /// Its [`Position::hash`].
    pub(super) hash: u64,
}

impl From<Position> for LastLine {
    fn from(position: Position) -> Self {
        Self {
            time: position.time,
            hash: position.hash,
        }
    }
}

/// Reads the log of one instance.
pub(super) struct LogReader<'a> {
    pub(super) context: &'a Context,
    pub(super) assignment: &'a PodAssignment,
    pub(super) log: InstanceLog<'a>,
    pub(super) lines: StreamLines<'a>,
    /// Number of lines taken so far that this instance has certainly written.
    pub(super) lines_taken: u64,
    /// Whether lines that a read took were dropped, because another instance may have written them, and no read has
    /// come to its end since.
    pub(super) dropped_lines: bool,
    /// Whether a probe has shown an end of the log that the stream has not sent, and nothing has arrived since.
    pub(super) probe_found_unsent: bool,
    /// The last line that a probe has found and that no read has found to be new.
    pub(super) probed_line: Option<LastLine>,
}

impl<'a> LogReader<'a> {
    pub(super) fn new(
        context: &'a Context,
        assignment: &'a PodAssignment,
        status: InstanceStatus<'a>,
        state: &'a LogState,
        writer: Writer<'a>,
    ) -> Self {
        Self {
            context,
            assignment,
            log: InstanceLog::new(context, assignment, status, state),
            lines: StreamLines::new(context.clock, context.settings.max_line, writer),
            lines_taken: 0,
            dropped_lines: false,
            probe_found_unsent: false,
            probed_line: None,
        }
    }

    /// The present time, if a stream that has just ended certainly ended at the end of the log. A process that was
    /// paused does not know when the stream ended, a stream that ended in the middle of a line was not at the end, and
    /// the end of an empty log does not show what was rotated away before.
    pub(super) fn certain_end(&self) -> Option<Duration> {
        let certain = !self.probe_found_unsent
            && self.lines.decoder.ends_with_a_line()
            && !self.lines.resume.was_emptied_unread()
            && self.context.stall_detector.ran_without_stall_for(QUIET);
        certain.then(|| self.context.clock.now())
    }

    /// Marks the instance as read to its end, after a gap for what could not be read.
    pub(super) async fn finish(&mut self, unread: Option<GapReason>) -> Option<ContainerEnd> {
        let writer = &mut self.lines.writer;
        if let Some(reason) = unread {
            let from = writer.position().map(|p| p.time);
            writer.gap = Some(Gap { from, to: None, reason });
        }
        if writer.flush(|| {}).await == WriteOutcome::Fenced {
            return Some(ContainerEnd::Fenced);
        }
        writer.mark_finished();
        None
    }

    /// Reads what is there, from the stored position to the present end of the log.
    pub(super) async fn catch_up(&mut self) -> ReadEnd {
        let ended = self.log.status.has_ended();
        let read = self.begin_read();
        let mut log = match self.log.open(false, read.since, &mut self.lines.resume).await {
            Ok(stream) => Ok(stream),
            Err(end) => return end,
        };
        let end = self.drain(&mut log).await;
        let mut complete = true;
        if end == ReadEnd::EndOfLog {
            complete = self.lines.finish_read(ended);
            if ended && complete && self.log.is_pod_deleted() {
                self.lines.resume.set_caught_up_at_request();
            }
        }
        let unwritten = self.flush(&mut log).await;
        self.count_lines();
        match unwritten {
            Some(end) => end,
            None if end == ReadEnd::EndOfLog => {
                self.dropped_lines = false;
                match self.classify_read(read.mode) {
                    ReadEnd::EndOfLog if !complete => ReadEnd::PositionNotFound,
                    outcome => outcome,
                }
            }
            None => end,
        }
    }

    /// Records whether a plain read that ended like this has read the log. `new_lines`: whether it found new lines.
    /// `ended`: whether the instance has ended, so that there is nothing to follow.
    pub(super) fn record_read(&self, end: ReadEnd, new_lines: bool, ended: bool) {
        let stats = self.lines.decoder.stats();
        if end == ReadEnd::Refused && stats.ends_in_kubelet_message {
            let node = self.assignment.pod.borrow().node.clone().unwrap_or_default();
            let line = self.lines.decoder.unstamped_line();
            let (reason, message) = match Unstamped::new(line, stats.lines, &node) {
                Unstamped::KubeletError(message) => (UnreadReason::KubeletFailed, message),
                Unstamped::NoTimestamps(message) => (UnreadReason::NoTimestamps, message),
            };
            self.log.unread(reason, message);
        } else if new_lines || matches!(end, ReadEnd::EndOfLog | ReadEnd::EmptyLog) {
            if ended {
                self.log.state.followed();
            } else {
                self.log.state.read();
            }
        }
    }

    fn classify_read(&mut self, mode: ResumeMode) -> ReadEnd {
        match self.lines.resume.classify_read(mode, self.lines.decoder.stats()) {
            ReadOutcome::Complete => ReadEnd::EndOfLog,
            ReadOutcome::EmptyLog => ReadEnd::EmptyLog,
            ReadOutcome::PositionNotFound => ReadEnd::PositionNotFound,
            ReadOutcome::CutShort => ReadEnd::Broken,
            ReadOutcome::Refused => ReadEnd::Refused,
        }
    }

    /// Prepares the next read.
    pub(super) fn begin_read(&mut self) -> NextRead {
        let read = self.lines.begin_read(self.log.status.has_ended());
        self.probe_found_unsent = false;
        self.log.begin_read(read.mode);
        read
    }

    /// Processes everything that a plain read receives.
    async fn drain(&mut self, log: &mut OpenLog) -> ReadEnd {
        loop {
            let open = match log {
                Ok(open) => open,
                Err(end) => return *end,
            };
            let frame = tokio::select! {
                biased;
                () = self.assignment.stop.cancelled() => return ReadEnd::Stopped,
                frame = tokio::time::timeout(READ_TIMEOUT, open.next()) => frame,
            };
            match frame {
                Ok(Ok(Some(bytes))) => self.lines.feed(&bytes),
                Ok(Ok(None)) => return ReadEnd::EndOfLog,
                Ok(Err(error)) => return self.log.read_error(&error),
                Err(_) => {
                    let silent = LogError::KubeletFailed(Message::new(
                        "the log sent nothing for 30 s before its end",
                        "look at the load of the node and its disk",
                    ));
                    return self.log.read_error(&silent);
                }
            }
            if self.lines.writer.is_full()
                && let Some(end) = self.flush(log).await
            {
                return end;
            }
        }
    }

    /// Writes the lines that were taken. `Some` when the read must end. Closes the log when it stays unread for too
    /// long meanwhile.
    pub(super) async fn flush(&mut self, log: &mut OpenLog) -> Option<ReadEnd> {
        let context = self.context;
        let began = context.clock.now();
        if !self.lines.writer.is_empty() {
            if let Err(end) = self.log.prove_identity().await {
                self.drop_lines(end);
                return Some(end);
            }
            self.confirm_lines();
        }
        if context.clock.since(began) >= MAX_UNREAD {
            *log = Err(unread_reason(context, began, ReadEnd::SlowApi));
        }
        let (write_began, mut reason) = (context.clock.now(), ReadEnd::SlowSink);
        let close = || {
            reason = unread_reason(context, write_began, ReadEnd::SlowSink);
            *log = Err(reason);
        };
        match self.lines.writer.flush(close).await {
            WriteOutcome::InTime => None,
            WriteOutcome::Slow => Some(reason),
            WriteOutcome::Fenced => Some(ReadEnd::Fenced),
        }
    }

    /// Drops the lines that were taken, because another instance may have written them.
    fn drop_lines(&mut self, end: ReadEnd) {
        self.lines.writer.discard();
        self.dropped_lines = true;
        if matches!(
            end,
            ReadEnd::InstanceChanged | ReadEnd::InstanceUnknown | ReadEnd::PodDeleted
        ) {
            // The log of another instance does not show how far this one was read.
            self.lines.resume.set_caught_up(None);
        }
    }

    /// Counts the lines that are about to be written: this instance has certainly written them.
    fn confirm_lines(&mut self) {
        let lines = self.lines.writer.batch.lines.len() as u64;
        self.lines_taken += lines;
        if lines > 0 {
            self.lines.resume.record_lines_taken();
            self.probed_line = None;
        }
    }

    /// Adds what a read has shown to the metrics.
    pub(super) fn count_lines(&self) {
        let stats = self.lines.decoder.stats();
        self.context.metrics.kubelet_messages.inc_by(stats.kubelet_messages);
        self.context.metrics.lines_cut.inc_by(stats.cut);
    }
}

/// Why a log stayed unread since `began`: the process was paused, or else `otherwise`.
pub(super) fn unread_reason(context: &Context, began: Duration, otherwise: ReadEnd) -> ReadEnd {
    let stall = context.stall_detector.latest_stall();
    if stall.ended > began && stall.length >= MAX_UNREAD {
        ReadEnd::ProcessPaused
    } else {
        otherwise
    }
}
