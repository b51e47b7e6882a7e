//! Where a read of a log continues, and whether lines are missing there: how the stored line is sought, what a read
//! that came to its end has shown, and when a gap is due.
//!
//! Pure: what was seen and what time it is go in. A line that is not there was rotated away: a gap, once the file has
//! shown that it begins later, unless all of the log had been read a moment before.

use std::time::Duration;

use super::chunk::{Gap, GapReason};
use super::intake::{Seen, Stance};
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
enum How {
    /// By timestamp, ordinal and hash.
    #[default]
    Usual,
    /// As so many lines with its timestamp and content, of which the last is it.
    Twin(u32),
    /// Not at all: the file is believed to be a new one.
    NewFile,
    /// Not at all: later timestamps decide.
    LaterStamps,
}

/// What a read that came to its end in order has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
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
pub struct Search {
    how: How,
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

impl Search {
    /// How the next read treats lines, and from when it asks for them.
    #[must_use]
    pub fn stance(&self, position: Option<Position>, ended: bool) -> (Stance, Option<Time>) {
        let Some(position) = position else {
            return (Stance::All, None);
        };
        if defect::on(Defect::SinceRoundedUp) {
            return (Stance::All, Some(position.time.plus_nanos(1_000_000_000)));
        }
        // An ended instance is read whole, once or twice, for the same reason as after doubts.
        let since = (!ended && !self.doubtful).then(|| position.time.plus_nanos(-MARGIN));
        match self.how {
            How::Usual => (Stance::After(position), since),
            How::Twin(nth) => (Stance::AfterTwin { position, nth }, since),
            How::NewFile => (Stance::AllSince(position), None),
            How::LaterStamps => (Stance::Later(position), since),
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
        self.how == How::NewFile
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
        self.how = How::Usual;
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
    pub fn judge(&mut self, stance: Stance, seen: Seen) -> Shown {
        // The kubelet's words at the end of a log say why there is no more of it.
        if seen.ends_in_control {
            return Shown::Refused;
        }
        let sought = matches!(stance, Stance::After(_) | Stance::AllSince(_));
        if sought && seen.lines == 0 {
            return self.empty();
        }
        let later = matches!(stance, Stance::Later(_));
        if later && seen.taken == 0 {
            self.how = How::LaterStamps;
            return Shown::Refused;
        }
        if later || seen.taking {
            self.settle();
            self.how = How::Usual;
            return Shown::Whole;
        }
        if let Stance::After(_) = stance {
            self.how = match seen.twins {
                0 => How::NewFile,
                twins => How::Twin(twins),
            };
            return Shown::Misplaced;
        }
        self.failures += 1;
        self.how = if self.failures < SEARCHES {
            How::Usual
        } else {
            How::LaterStamps
        };
        Shown::CutShort
    }

    /// Nothing of what is stored is there, so whatever comes now is new. A follow stream that sought the
    /// stored line would pass it all over, and it may be rotated away before another read finds it.
    /// One empty answer may have been cut short, so it is believed the second time.
    fn empty(&mut self) -> Shown {
        self.empties += 1;
        if self.unbroken {
            // The file that is empty now is the next one.
            self.note_read();
        }
        if self.empties == 1 {
            self.how = How::Usual;
            return Shown::Misplaced;
        }
        self.unsure |= !self.unbroken;
        self.how = How::NewFile;
        Shown::Empty
    }

    /// The gap before the first line that is taken from a file that no longer has the stored line. Once lines of it
    /// are stored ([`took`](Self::took)), nothing is missing before the next.
    #[must_use]
    pub fn gap(&self, position: Option<Position>, seen: Seen) -> Option<Gap> {
        let unbroken = match self.how {
            How::Usual | How::Twin(_) => return None,
            How::NewFile => self.unbroken,
            How::LaterStamps => false,
        };
        let (position, first) = (position?, seen.first_taken?);
        let told = !defect::on(Defect::GapForgotten);
        (told && !unbroken).then_some(Gap {
            from: Some(position.time),
            to: Some(first),
            reason: GapReason::Rotated,
        })
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
