//! Looking at the end of a log that is being followed, to find out whether its stream still tells of it.
//!
//! A stream may go mute, or have been opened too early to hear of the next file. Nothing is taken in from here.

use std::time::Duration;

use crate::cluster::{LogQuery, LogStream};
use crate::domain::Time;
use crate::domain::intake::{Batch, Intake};

use super::follow_stream::{ALIGN, Due, IDLE};
use super::read_end::ReadEnd;
use super::reader::Reader;

/// A line that a probe saw is given this long to arrive in the stream.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// How long the last line of a log may take to be read, and the pod to be looked at. The stream waits unread meanwhile:
/// with a write that is just not too slow, for less than 4 s.
const PROBE: Duration = Duration::from_secs(1);

/// For so long after it was heard last a silent stream has shown all of the file before the new one it did not hear
/// of: the 2 s until it must watch, 1 s until it is probed, 2 s for that, and 1 s for the new file to be heard of.
const RECENT: Duration = Duration::from_secs(6);

/// What the end of a log shows.
enum Tail {
    /// The line stored last, or what was found to be none.
    Stored,
    /// Another line.
    Other(Time, u64),
    /// Nothing, although lines of the log are stored: it was rotated.
    Empty,
    /// Nothing that could be compared.
    Unknown,
}

impl Reader<'_> {
    /// Compares the end of the log with what is stored; `Some` when the stream must end.
    pub(super) async fn probe(&mut self, stream: &mut Option<LogStream>, due: &mut Due) -> Option<ReadEnd> {
        let clock = self.context.clock;
        if !self.context.limiter.try_open() {
            due.probe = clock.now() + IDLE.mul_f64(1.0 + fastrand::f64());
            return None;
        }
        due.probe = clock.now() + self.context.settings.probe;
        (due.volume, due.flush) = (0, None);
        if let Some(close) = self.flush(stream).await {
            return Some(close);
        }
        if stream.is_none() {
            return Some(ReadEnd::Late);
        }
        match self.look_at_end().await {
            Tail::Stored => due.watches = true,
            Tail::Other(time, hash) => {
                due.mute = Some(clock.now() + IN_FLIGHT);
                (self.tail, self.suspected) = (Some((time, hash)), true);
            }
            // What watches for new files hears of this one.
            Tail::Empty | Tail::Unknown if due.watches => {}
            Tail::Empty if self.ends_with_a_line() => {
                // It may be the log of another pod of that name.
                match tokio::time::timeout(PROBE, self.look()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(close)) => return Some(close),
                    Err(_) => return Some(ReadEnd::Late),
                }
                due.unheard = Some(clock.now() + ALIGN);
                self.suspected = true;
            }
            Tail::Empty | Tail::Unknown => {
                due.unknown += 1;
                let wait = IDLE * (1 << due.unknown.min(5));
                due.probe = clock.now() + wait.min(self.context.settings.probe);
            }
        }
        None
    }

    /// How a stream is closed that has not heard of a new file and would pass it over: the next read finds that file
    /// empty. The stream has shown all of the one before if it was opened or said something a while ago; later it may
    /// be mute for another reason.
    pub(super) fn close_unheard(&mut self, heard: Duration, now: Duration) -> ReadEnd {
        self.resume.note_empty();
        self.suspected = false;
        if now < heard + RECENT {
            ReadEnd::Reopen
        } else {
            ReadEnd::Mute
        }
    }

    async fn look_at_end(&mut self) -> Tail {
        let stop = self.task.stop.clone();
        let last = tokio::select! {
            biased;
            () = stop.cancelled() => return Tail::Unknown,
            last = tokio::time::timeout(PROBE, self.last_line()) => last,
        };
        let Ok(Some(last)) = last else { return Tail::Unknown };
        match (last, self.writer.position()) {
            (Some(last), Some(stored)) if last == (stored.time, stored.hash) => Tail::Stored,
            // The kubelet shows the last record, which is the end of a line where that is longer than 16 KiB.
            (Some(last), _) if self.tail == Some(last) => Tail::Stored,
            (Some((time, hash)), _) => Tail::Other(time, hash),
            (None, Some(_)) => Tail::Empty,
            // Nothing was written yet, so the reader is at the end.
            (None, None) => Tail::Stored,
        }
    }

    /// The last line of the log, if it has one; `None` without an answer, or when it is none: the beginning of a line,
    /// or words of the kubelet.
    async fn last_line(&mut self) -> Option<Option<(Time, u64)>> {
        let query = LogQuery {
            tail_lines: Some(1),
            ..self.query(false, None)
        };
        let mut stream = self.context.cluster.open_log(&query).await.ok()?;
        let mut intake = Intake::new(self.context.settings.max_line);
        let mut batch = Batch::default();
        while let Some(bytes) = stream.next().await.ok()? {
            intake.feed(&bytes, &mut batch);
        }
        let whole = intake.ends_with_a_line() && intake.stats().control == 0;
        whole.then(|| batch.end().map(|end| (end.time, end.hash)))
    }
}
