//! From bytes of a log response to lines that have not been stored yet.
//!
//! The log API can only be asked for "since that second", so every read begins with lines that
//! are known already. [`Intake`] splits bytes into lines, numbers lines of equal timestamps, and
//! finds the place after the last stored line by content. It never judges by timestamp alone
//! where a read continues: timestamps repeat and go backwards.

use super::chunk::Line;
use super::position::Position;
use super::time::Time;

/// Lines taken and not yet written.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The bytes of all lines, one after another.
    pub text: Vec<u8>,
    /// The lines.
    pub lines: Vec<Line>,
}

impl Batch {
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
pub enum Stance {
    /// Take every line: nothing of the stream is stored yet.
    All,
    /// Pass over everything up to the line at this position, then take.
    After(Position),
    /// The line at this position is no longer there, and `nth` lines are that carry its timestamp and
    /// content: pass over everything up to the last of those, then take. Happens when a rotation fell
    /// between lines of one timestamp, so that ordinals have shifted.
    AfterTwin {
        /// The last stored line.
        position: Position,
        /// Which of the lines with its timestamp and content it is, from 1.
        nth: u32,
    },
    /// The line at this position has been rotated away, so the file is all new: take every line, if the
    /// first one is not older than the position. An older first line means that the file does reach
    /// back far enough and that the search was cut short; nothing is taken then.
    AllSince(Position),
    /// Take lines with a later timestamp only. The last resort, when the line at the position cannot be
    /// found in a file that reaches back to it.
    Later(Position),
}

/// What one read has shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Lines of the container, taken or passed over.
    pub lines: u64,
    /// Lines taken.
    pub taken: u64,
    /// The timestamp of the first line, taken or not.
    pub first: Option<Time>,
    /// The timestamp of the first line taken.
    pub first_taken: Option<Time>,
    /// Whether lines are taken now: the place was found, or none was sought.
    pub taking: bool,
    /// Lines with the timestamp and content of the position sought.
    pub twins: u32,
    /// Lines without a timestamp: the kubelet's own words, or the end of a line begun before the read.
    pub control: u64,
    /// Lines cut at the cap.
    pub cut: u64,
}

/// Splits and aligns the bytes of one read after another of one stream.
#[derive(Debug)]
pub struct Intake {
    cap: usize,
    stance: Stance,
    seen: Seen,
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
            stance: Stance::All,
            seen: Seen::default(),
            carry: Vec::new(),
            dropped: 0,
            ordinals: Ordinals::default(),
        }
    }

    /// A new read begins; whatever was half read before is forgotten.
    pub fn begin(&mut self, stance: Stance) {
        self.stance = stance;
        self.seen = Seen {
            taking: stance == Stance::All,
            ..Seen::default()
        };
        self.clear_carry();
        self.ordinals = Ordinals::default();
    }

    /// What the present read has shown so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
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

    /// The read has come to its end in order. What remains without a line end is a line too, if the
    /// instance has `ended`; until then it is a line being written. Without a timestamp it is neither.
    pub fn finish(&mut self, ended: bool, batch: &mut Batch) {
        let control = !self.carry.is_empty() && Time::split_line(&self.carry).is_none();
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
            self.seen.control += 1;
            return;
        };
        self.seen.lines += 1;
        self.seen.first.get_or_insert(time);
        let ordinal = self.ordinals.next(time);
        if !self.takes(time, ordinal, message) {
            return;
        }
        let kept = &message[..message.len().min(self.cap)];
        let cut = dropped + (message.len() - kept.len()) as u64;
        self.seen.taken += 1;
        self.seen.cut += u64::from(cut > 0);
        self.seen.first_taken.get_or_insert(time);
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
        if let Stance::Later(position) = self.stance {
            return time > position.time;
        }
        if self.seen.taking {
            return true;
        }
        let (position, nth) = match self.stance {
            Stance::After(position) => (position, None),
            Stance::AfterTwin { position, nth } => (position, Some(nth)),
            Stance::AllSince(position) => {
                self.seen.taking = self.seen.lines == 1 && time >= position.time;
                return self.seen.taking;
            }
            Stance::All | Stance::Later(_) => return true,
        };
        if time == position.time && Position::hash(message) == position.hash {
            self.seen.twins += 1;
            if nth.map_or(ordinal == position.ordinal, |nth| self.seen.twins == nth) {
                self.seen.taking = true;
                self.ordinals.resume(position);
            }
        }
        false
    }
}

/// Numbers lines of equal timestamps. Equal timestamps need not be neighbours: two writers of one
/// container interleave, so the latest few are remembered.
#[derive(Debug, Default)]
struct Ordinals {
    time: Time,
    next: u32,
    recent: [(Time, u32); 8],
    oldest: usize,
}

impl Ordinals {
    fn next(&mut self, time: Time) -> u32 {
        if time != self.time {
            self.recent[self.oldest] = (self.time, self.next);
            self.oldest = (self.oldest + 1) % self.recent.len();
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
        self.next += 1;
        ordinal
    }

    fn resume(&mut self, position: Position) {
        self.time = position.time;
        self.next = position.ordinal + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: usize = 8192;

    /// A log of lines `(seconds, text)`.
    fn log(lines: &[(i64, &str)]) -> Vec<u8> {
        lines
            .iter()
            .flat_map(|(t, text)| format!("{} {text}\n", Time(t * 1_000_000_000)).into_bytes())
            .collect()
    }

    fn read(intake: &mut Intake, stance: Stance, bytes: &[u8], step: usize) -> Batch {
        let mut batch = Batch::default();
        intake.begin(stance);
        for piece in bytes.chunks(step) {
            intake.feed(piece, &mut batch);
        }
        batch
    }

    fn messages(batch: &Batch) -> Vec<String> {
        let message = |l: &Line| &batch.text[l.start as usize..(l.start + l.len) as usize];
        batch
            .lines
            .iter()
            .map(|l| String::from_utf8_lossy(message(l)).into_owned())
            .collect()
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let log = log(&[(1, "a"), (1, ""), (2, "long enough to be split"), (1, "a"), (2, "b")]);
        for step in 1..log.len() {
            let batch = read(&mut Intake::new(CAP), Stance::All, &log, step);
            assert_eq!(messages(&batch), ["a", "", "long enough to be split", "a", "b"]);
            let ordinals: Vec<u32> = batch.lines.iter().map(|l| l.ordinal).collect();
            assert_eq!(ordinals, [0, 1, 0, 2, 1]);
        }
    }

    #[test]
    fn a_read_continues_after_any_line_of_a_log_with_equal_and_backward_stamps() {
        let log = log(&[
            (5, "x"),
            (5, "x"),
            (5, "y"),
            (4, "x"),
            (5, "x"),
            (9, ""),
            (9, ""),
            (3, "z"),
        ]);
        let mut intake = Intake::new(CAP);
        let all = read(&mut intake, Stance::All, &log, 7);
        for stored in 1..=all.lines.len() {
            let head = Batch {
                lines: all.lines[..stored].to_vec(),
                text: all.text.clone(),
            };
            let last = head.lines[stored - 1];
            let head = Batch {
                text: head.text[..(last.start + last.len) as usize].to_vec(),
                ..head
            };
            let rest = read(&mut intake, Stance::After(head.end().unwrap()), &log, 7);
            assert!(intake.seen().taking);
            assert_eq!(messages(&rest), messages(&all)[stored..], "after {stored} lines");
            let ordinals = |lines: &[Line]| lines.iter().map(|l| (l.time, l.ordinal)).collect::<Vec<_>>();
            assert_eq!(ordinals(&rest.lines), ordinals(&all.lines[stored..]));
        }
    }

    #[test]
    fn a_place_that_was_rotated_away_is_not_found_and_nothing_is_taken() {
        let position = Position {
            time: Time(1_000_000_000),
            ordinal: 0,
            hash: Position::hash(b"gone"),
        };
        let mut intake = Intake::new(CAP);
        let batch = read(
            &mut intake,
            Stance::After(position),
            &log(&[(1, "other"), (2, "x")]),
            99,
        );
        assert!(batch.lines.is_empty() && !intake.seen().taking);
        assert_eq!(
            messages(&read(
                &mut intake,
                Stance::AllSince(position),
                &log(&[(2, "x"), (3, "y")]),
                99
            )),
            ["x", "y"]
        );
    }

    #[test]
    fn a_file_that_reaches_back_far_enough_is_not_taken_for_a_new_one() {
        let position = Position {
            time: Time(5_000_000_000),
            ordinal: 0,
            hash: 1,
        };
        let mut intake = Intake::new(CAP);
        let older = log(&[(4, "known"), (6, "new")]);
        assert!(
            read(&mut intake, Stance::AllSince(position), &older, 99)
                .lines
                .is_empty()
        );
        assert_eq!(
            messages(&read(&mut intake, Stance::Later(position), &older, 99)),
            ["new"]
        );
    }

    #[test]
    fn a_rotation_between_lines_of_one_stamp_is_seen_through() {
        let stored = Position {
            time: Time(1_000_000_000),
            ordinal: 2,
            hash: Position::hash(b"tick"),
        };
        let newest = log(&[(1, "tick"), (1, "tick"), (1, "tock")]);
        let mut intake = Intake::new(CAP);
        assert!(read(&mut intake, Stance::After(stored), &newest, 99).lines.is_empty());
        assert_eq!(intake.seen().twins, 2);
        let batch = read(
            &mut intake,
            Stance::AfterTwin {
                position: stored,
                nth: 2,
            },
            &newest,
            99,
        );
        assert_eq!(messages(&batch), ["tock"]);
        assert_eq!(batch.lines[0].ordinal, 3);
    }

    #[test]
    fn words_of_the_kubelet_are_counted_and_never_taken() {
        let mut bytes = b"unable to retrieve container logs for containerd://1\n".to_vec();
        bytes.extend(log(&[(1, "a")]));
        let mut intake = Intake::new(CAP);
        assert_eq!(messages(&read(&mut intake, Stance::All, &bytes, 5)), ["a"]);
        assert_eq!(intake.seen().control, 1);
        let mut batch = read(&mut intake, Stance::All, b"context canceled", 5);
        intake.finish(true, &mut batch);
        assert!(batch.lines.is_empty() && intake.seen().control == 1);
    }

    #[test]
    fn a_line_over_the_cap_is_cut_and_says_by_how_much() {
        let long = "x".repeat(CAP + 1000);
        for step in [100, 1 << 20] {
            let mut intake = Intake::new(CAP);
            let batch = read(&mut intake, Stance::All, &log(&[(1, &long), (2, "next")]), step);
            assert_eq!(
                (batch.lines[0].len as usize, batch.lines[0].cut),
                (CAP, 1000),
                "step {step}"
            );
            assert_eq!(messages(&batch)[1], "next");
        }
    }

    #[test]
    fn a_last_line_without_line_end_is_taken_only_when_the_instance_has_ended() {
        let mut bytes = log(&[(1, "a"), (2, "half")]);
        bytes.pop();
        let mut intake = Intake::new(CAP);
        let mut batch = read(&mut intake, Stance::All, &bytes, 3);
        intake.finish(false, &mut batch);
        assert_eq!(messages(&batch), ["a"]);
        intake.finish(true, &mut batch);
        assert_eq!(messages(&batch), ["a", "half"]);
    }
}
