//! Where a read of a log continues, and whether lines are missing there: how the stored line is sought, what a read
//! that came to its end has shown, and when a gap is due.
//!
//! Pure: what was seen and what time it is go in. A line that is not there was rotated away: a gap, once the file has
//! shown that it begins later, unless all of the log had been read a moment before.

use std::time::Duration;

use super::chunk::{Gap, GapReason};
use super::intake::{ReadStats, ResumeMode};
use super::position::Position;
use super::time::Time;
use crate::defect::{self, Defect};

/// How far before the stored line a read begins. The API cuts to whole seconds, and a container's
/// two streams are stamped by two writers, so a line may carry an earlier stamp than the one before it.
const MARGIN: i64 = 2_000_000_000;

/// How long after all of a log had been read its place need not be found again: too short for the file to be
/// filled and rotated by lines that nobody saw.
const SAME_BREATH: Duration = Duration::from_secs(2);

/// How often the search for the stored line may fail before later timestamps decide.
const SEARCHES: u32 = 5;

/// Whether this was a moment before `now`.
#[must_use]
pub fn is_same_breath(at: Option<Duration>, now: Duration) -> bool {
    at.is_some_and(|at| now < at + SAME_BREATH)
}

/// How the next read seeks the stored line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Strategy {
    /// By timestamp, ordinal and hash.
    #[default]
    ByPosition,
    /// As so many lines with its timestamp and content, of which the last is it.
    EqualStamp(u32),
    /// Not at all: the file is believed to be a new one.
    NewFile,
    /// Not at all: later timestamps decide.
    LaterStamps,
}

/// What a read that came to its end in order has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// Everything after the stored line.
    Whole,
    /// No line, although lines are stored.
    Empty,
    /// Not the stored line: the next read seeks differently.
    Misplaced,
    /// Not the stored line, as if it had been cut short.
    CutShort,
    /// The kubelet's word that it has not got more.
    Refused,
}

/// The search for the stored line over the reads of one instance.
#[derive(Clone, Debug, Default)]
pub struct ResumeState {
    strategy: Strategy,
    /// How often in a row it has failed.
    failures: u32,
    /// How often in a row the log was empty although lines of it are stored.
    empties: u32,
    /// The log was empty although lines of it are stored, and nobody watched meanwhile.
    unsure: bool,
    /// A stream has missed lines that are there: the next read asks for the whole log, because after a
    /// step of the node's clock new lines may carry stamps far before the stored one.
    doubtful: bool,
    /// When all of the log had been read for certain.
    caught_up: Option<Duration>,
    /// Whether that was a moment before the present read was opened: a new file is then the next one.
    unbroken: bool,
    /// When the present read was asked for.
    asked: Duration,
    ending: Ending,
}

/// What the log of an instance ended with when it was read last.
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    /// What remained without a line end.
    rest: Option<u64>,
    /// Whether there was no line, although the instance had ended.
    empty: bool,
}

impl ResumeState {
    /// How the next read treats lines, and from when it asks for them.
    #[must_use]
    pub fn mode(&self, position: Option<Position>, ended: bool) -> (ResumeMode, Option<Time>) {
        let Some(position) = position else {
            return (ResumeMode::All, None);
        };
        if defect::on(Defect::SinceRoundedUp) {
            return (ResumeMode::All, Some(position.time.plus_nanos(1_000_000_000)));
        }
        // An ended instance is read whole, once or twice, for the same reason as after doubts.
        let since = (!ended && !self.doubtful).then(|| position.time.plus_nanos(-MARGIN));
        match self.strategy {
            Strategy::ByPosition => (ResumeMode::After(position), since),
            Strategy::EqualStamp(nth) => (ResumeMode::AfterEqualStamp { position, nth }, since),
            Strategy::NewFile => (ResumeMode::NewFile(position), None),
            Strategy::LaterStamps => (ResumeMode::LaterStamps(position), since),
        }
    }

    /// Notes when all of the log had been read, or that this is not known any more.
    pub fn note_caught_up(&mut self, at: Option<Duration>) {
        self.caught_up = at;
    }

    /// Notes that the present read has shown where the log ended when it was asked for, and that all of it had been read.
    pub fn note_read(&mut self) {
        self.caught_up = Some(self.asked);
    }

    /// Whether all of the log had been read a moment ago.
    #[must_use]
    pub fn was_caught_up(&self, now: Duration) -> bool {
        !self.unsure && is_same_breath(self.caught_up, now)
    }

    /// A read has been opened that was `asked` for then.
    pub fn opened(&mut self, asked: Duration, now: Duration) {
        (self.unbroken, self.asked) = (self.was_caught_up(now), asked);
    }

    /// Whether the log was found empty although lines of it are stored, and nobody watched meanwhile.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Whether the log is believed to be a new file.
    #[must_use]
    pub fn expects_new_file(&self) -> bool {
        self.strategy == Strategy::NewFile
    }

    /// The log was empty when it was looked at, although lines of it are stored.
    pub fn note_empty(&mut self) {
        self.empties = self.empties.max(1);
    }

    /// A stream has missed lines that are there.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// A stream has been opened without a doubt.
    pub fn trust(&mut self) {
        self.doubtful = false;
    }

    /// New lines were taken: whatever had to be sought is behind them.
    pub fn took(&mut self) {
        self.settle();
        self.strategy = Strategy::ByPosition;
    }

    fn settle(&mut self) {
        (self.failures, self.empties, self.unsure) = (0, 0, false);
    }

    /// Whether a read of an instance that has `ended` shows its last line whole. `rest` is a hash of what remains
    /// without a line end. A read may be cut short in mid-line, so the rest counts when two reads agree on it.
    /// The same holds for a log without `lines`.
    pub fn is_complete(&mut self, ended: bool, lines: u64, rest: Option<u64>) -> bool {
        let before = std::mem::replace(
            &mut self.ending,
            Ending {
                rest,
                empty: ended && lines == 0,
            },
        );
        !ended || rest == before.rest && (lines > 0 || before.empty)
    }

    /// What a plain read that has come to its end says about the place of the stored line.
    pub fn judge(&mut self, mode: ResumeMode, stats: ReadStats) -> ReadVerdict {
        // The kubelet's words at the end of a log say why there is no more of it.
        if stats.ends_in_control {
            return ReadVerdict::Refused;
        }
        let sought = matches!(mode, ResumeMode::After(_) | ResumeMode::NewFile(_));
        if sought && stats.lines == 0 {
            return self.empty();
        }
        let later = matches!(mode, ResumeMode::LaterStamps(_));
        if later && stats.taken == 0 {
            self.strategy = Strategy::LaterStamps;
            return ReadVerdict::Refused;
        }
        if later || stats.taking {
            self.settle();
            self.strategy = Strategy::ByPosition;
            return ReadVerdict::Whole;
        }
        if let ResumeMode::After(_) = mode {
            self.strategy = match stats.equal_stamps {
                0 => Strategy::NewFile,
                equal_stamps => Strategy::EqualStamp(equal_stamps),
            };
            return ReadVerdict::Misplaced;
        }
        self.failures += 1;
        self.strategy = if self.failures < SEARCHES {
            Strategy::ByPosition
        } else {
            Strategy::LaterStamps
        };
        ReadVerdict::CutShort
    }

    /// Nothing of what is stored is there, so whatever comes now is new. A follow stream that sought the
    /// stored line would pass it all over, and it may be rotated away before another read finds it.
    /// One empty answer may have been cut short, so it is believed the second time.
    fn empty(&mut self) -> ReadVerdict {
        self.empties += 1;
        if self.unbroken {
            // The file that is empty now is the next one.
            self.note_read();
        }
        if self.empties == 1 {
            self.strategy = Strategy::ByPosition;
            return ReadVerdict::Misplaced;
        }
        self.unsure |= !self.unbroken;
        self.strategy = Strategy::NewFile;
        ReadVerdict::Empty
    }

    /// The gap before the first line that is taken from a file that no longer has the stored line. Once lines of it
    /// are stored ([`took`](Self::took)), nothing is missing before the next.
    #[must_use]
    pub fn gap(&self, position: Option<Position>, stats: ReadStats) -> Option<Gap> {
        let unbroken = match self.strategy {
            Strategy::ByPosition | Strategy::EqualStamp(_) if !defect::on(Defect::GapForNothing) => return None,
            Strategy::NewFile => self.unbroken,
            Strategy::ByPosition | Strategy::EqualStamp(_) | Strategy::LaterStamps => false,
        };
        let (position, first) = (position?, stats.first_taken?);
        let told = !defect::on(Defect::GapForgotten);
        (told && !unbroken).then_some(Gap {
            from: Some(position.time),
            to: Some(first),
            reason: GapReason::Rotated,
        })
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
