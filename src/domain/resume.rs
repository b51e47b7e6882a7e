//! Where a read of a log continues, and whether lines are missing there: how the next read searches for the stored
//! line, what a finished read has shown, and when a gap must be reported.
//!
//! Pure: it gets what a read has shown and the time, and it never reads a log or a clock. A stored line that is no
//! longer in the log was rotated away. That is a gap as soon as the log is known to begin later, unless the whole log
//! had been read just before. The position is an input here; it moves only when lines are stored.

use std::time::Duration;

use super::chunk::{Gap, GapReason};
use super::line_decoder::{ReadStats, ResumeMode};
use super::position::Position;
use super::time::Time;
use crate::defect::{self, Defect};

/// How far before the stored line a read begins, in nanoseconds: 2 s. The API cuts times to whole seconds (1 s), and
/// stdout and stderr of a container are stamped separately, so a line may carry an earlier timestamp than the line
/// before it.
const OVERLAP: i64 = 2_000_000_000;

/// How long after the whole log was read a new file counts as complete. 2 s are too short for a file to be filled with
/// unread lines, and rotated.
const CAUGHT_UP_VALIDITY: Duration = Duration::from_secs(2);

/// How many searches for the stored line may fail in a row before later timestamps decide what is new.
const MAX_FAILED_SEARCHES: u32 = 5;

/// Whether the time from `at` to `now` is too short for lines to be written and rotated away.
#[must_use]
pub fn is_just_before(at: Option<Duration>, now: Duration) -> bool {
    at.is_some_and(|at| now < at + CAUGHT_UP_VALIDITY)
}

/// How the next read searches for the stored line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Strategy {
    /// By timestamp, ordinal and hash.
    #[default]
    ByPosition,
    /// By timestamp and hash: the last of this many lines that have both.
    EqualStamp(u32),
    /// No search: the log is assumed to be a new file.
    NewFile,
    /// No search: lines with later timestamps are new.
    LaterStamps,
}

/// What the next read asks for and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextRead {
    /// Which lines it takes.
    pub mode: ResumeMode,
    /// The time from which it asks for lines; `None` for the whole log.
    pub since: Option<Time>,
}

/// What a read that ended without an error has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Every line after the stored one.
    Complete,
    /// No line, although lines of the instance are stored.
    EmptyLog,
    /// The stored line is not there; the next read searches in another way.
    PositionNotFound,
    /// The stored line is not there, probably because the answer was cut short.
    CutShort,
    /// The kubelet answers that it has no more of the log.
    Refused,
}

/// What the reads of one instance have shown so far. It decides how the next read searches for the stored line.
#[derive(Clone, Debug, Default)]
pub struct ResumeState {
    strategy: Strategy,
    /// Searches for the stored line that failed in a row.
    failed_searches: u32,
    /// Reads in a row that found the log empty although lines of it are stored.
    empty_reads: u32,
    /// Whether the log became empty although it had not been read to its end just before, so that lines may be missing.
    emptied_unread: bool,
    /// Whether the next read asks for the whole log, because a stream has missed lines of it. After a step of the
    /// node's clock, new lines may have timestamps far before that of the stored line.
    read_whole_log: bool,
    /// Boot-clock time at which the whole log was known to be read.
    caught_up_at: Option<Duration>,
    /// Whether the whole log had been read just before the present read was opened. A new file is then the next file,
    /// and nothing is missing before it.
    caught_up_at_open: bool,
    /// Boot-clock time at which the present read was requested.
    requested_at: Duration,
    last_end: LogEnd,
}

/// What the log of an ended instance ended with at the last read.
#[derive(Clone, Copy, Debug, Default)]
struct LogEnd {
    /// Hash of the bytes after the last line end, if there are any.
    unfinished_line: Option<u64>,
    /// Whether the log had no line.
    empty: bool,
}

impl ResumeState {
    /// What the next read asks for and takes. `ended`: whether the instance has ended.
    #[must_use]
    pub fn next_read(&self, position: Option<Position>, ended: bool) -> NextRead {
        let Some(position) = position else {
            let mode = ResumeMode::All;
            return NextRead { mode, since: None };
        };
        if defect::on(Defect::SinceRoundedUp) {
            return NextRead {
                mode: ResumeMode::All,
                since: Some(position.time.plus_nanos(1_000_000_000)),
            };
        }
        // An ended instance is read only once or twice more. All of its log is read, because the node's clock may have
        // stepped.
        let whole_log = ended || self.read_whole_log || self.strategy == Strategy::NewFile;
        let mode = match self.strategy {
            Strategy::ByPosition => ResumeMode::After(position),
            Strategy::EqualStamp(nth) => ResumeMode::AfterEqualStamp { position, nth },
            Strategy::NewFile => ResumeMode::NewFile(position),
            Strategy::LaterStamps => ResumeMode::LaterStamps(position),
        };
        let since = (!whole_log).then(|| position.time.plus_nanos(-OVERLAP));
        NextRead { mode, since }
    }

    /// Records the time at which the whole log had been read; `None` when this is no longer known.
    pub fn set_caught_up(&mut self, at: Option<Duration>) {
        self.caught_up_at = at;
    }

    /// Records that the present read has reached the end that the log had when the read was requested.
    pub fn set_caught_up_at_request(&mut self) {
        self.caught_up_at = Some(self.requested_at);
    }

    /// Whether the whole log had been read just before `now`.
    #[must_use]
    pub fn was_caught_up(&self, now: Duration) -> bool {
        !self.emptied_unread && is_just_before(self.caught_up_at, now)
    }

    /// Records that a read was opened `now` which had been requested at `requested_at`.
    pub fn record_opened(&mut self, requested_at: Duration, now: Duration) {
        (self.caught_up_at_open, self.requested_at) = (self.was_caught_up(now), requested_at);
    }

    /// Whether the log became empty although it had not been read to its end just before, so that lines may be missing.
    #[must_use]
    pub fn was_emptied_unread(&self) -> bool {
        self.emptied_unread
    }

    /// Whether the log is assumed to be a new file.
    #[must_use]
    pub fn expects_new_file(&self) -> bool {
        self.strategy == Strategy::NewFile
    }

    /// Records that a probe found the log empty although lines of it are stored.
    pub fn record_empty_probe(&mut self) {
        self.empty_reads = self.empty_reads.max(1);
    }

    /// Makes the next read ask for the whole log, because a stream has missed lines of it.
    pub fn request_whole_log(&mut self) {
        self.read_whole_log = true;
    }

    /// Makes reads begin shortly before the stored line again.
    pub fn clear_whole_log_request(&mut self) {
        self.read_whole_log = false;
    }

    /// Records that new lines were taken: the next read searches for the last of them in the ordinary way.
    pub fn record_lines_taken(&mut self) {
        self.reset_failures();
        self.strategy = Strategy::ByPosition;
    }

    fn reset_failures(&mut self) {
        (self.failed_searches, self.empty_reads, self.emptied_unread) = (0, 0, false);
    }

    /// Whether the end of this read is the end of the log, so that bytes after the last line end are a line. An answer
    /// may be cut short in the middle of a line. So for an instance that has `ended` two reads must agree on these
    /// bytes (`unfinished_line` is their hash), and two reads must find the log empty before it counts as empty.
    pub fn is_end_confirmed(&mut self, ended: bool, lines: u64, unfinished_line: Option<u64>) -> bool {
        let before = std::mem::replace(
            &mut self.last_end,
            LogEnd {
                unfinished_line,
                empty: ended && lines == 0,
            },
        );
        !ended || unfinished_line == before.unfinished_line && (lines > 0 || before.empty)
    }

    /// Classifies a plain read that ended without an error, and chooses how the next read searches for the stored line.
    pub fn classify_read(&mut self, mode: ResumeMode, stats: ReadStats) -> ReadOutcome {
        // A message of the kubelet at the end of a log says why there is no more of it.
        if stats.ends_in_kubelet_message {
            return ReadOutcome::Refused;
        }
        let searched = matches!(mode, ResumeMode::After(_) | ResumeMode::NewFile(_));
        if searched && stats.lines == 0 {
            return self.classify_empty_log();
        }
        let later = matches!(mode, ResumeMode::LaterStamps(_));
        if later && stats.taken == 0 {
            self.strategy = Strategy::LaterStamps;
            return ReadOutcome::Refused;
        }
        if later || stats.taking {
            self.record_lines_taken();
            return ReadOutcome::Complete;
        }
        if let ResumeMode::After(_) = mode {
            self.strategy = match stats.equal_stamps {
                0 => Strategy::NewFile,
                equal_stamps => Strategy::EqualStamp(equal_stamps),
            };
            return ReadOutcome::PositionNotFound;
        }
        self.failed_searches += 1;
        self.strategy = if self.failed_searches < MAX_FAILED_SEARCHES {
            Strategy::ByPosition
        } else {
            Strategy::LaterStamps
        };
        ReadOutcome::CutShort
    }

    /// Classifies a log without a line. One empty answer may have been cut short, so the second one counts. From then
    /// on every line is new: a stream that searched for the stored line would skip all of them, and they may be rotated
    /// away before another read finds them.
    fn classify_empty_log(&mut self) -> ReadOutcome {
        self.empty_reads += 1;
        if self.caught_up_at_open {
            // The file that is empty now is the next file.
            self.set_caught_up_at_request();
        }
        if self.empty_reads == 1 {
            self.strategy = Strategy::ByPosition;
            return ReadOutcome::PositionNotFound;
        }
        self.emptied_unread |= !self.caught_up_at_open;
        self.strategy = Strategy::NewFile;
        ReadOutcome::EmptyLog
    }

    /// The gap before the first line taken from a log that no longer has the stored line. Once lines of that log are
    /// stored ([`record_lines_taken`](Self::record_lines_taken)), nothing is missing before the next line.
    #[must_use]
    pub fn gap(&self, position: Option<Position>, stats: ReadStats) -> Option<Gap> {
        let nothing_missed = match self.strategy {
            Strategy::ByPosition | Strategy::EqualStamp(_) if !defect::on(Defect::GapForNothing) => return None,
            Strategy::NewFile => self.caught_up_at_open,
            Strategy::ByPosition | Strategy::EqualStamp(_) | Strategy::LaterStamps => false,
        };
        let (position, first) = (position?, stats.first_taken?);
        let reported = !defect::on(Defect::GapForgotten);
        (reported && !nothing_missed).then_some(Gap {
            from: Some(position.time),
            to: Some(first),
            reason: GapReason::Rotated,
        })
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
