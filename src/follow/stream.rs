//! Following a log that has been opened (`identity.rs`).
//!
//! Each stream is opened by name and checked by identity afterwards, because the log API takes only
//! names. A stream is never left open and unread, nor trusted for ever: it is opened anew on a
//! schedule, and one that is silent for long is compared with the last line of the log.

use std::time::Duration;

use crate::cluster::{LogError, LogQuery, LogStream};
use crate::domain::intake::{Batch, Intake};
use crate::domain::steps::Source;
use crate::domain::{Position, Time};
use crate::metrics::Reason;

use super::close::Close;
use super::reading::Reading;

/// A follow stream that has begun must show the stored line before it pauses for this long, and
/// within [`SEEK`] in any case.
const ALIGN: Duration = Duration::from_secs(1);

/// See [`ALIGN`]. What lies before the stored line is what was written in some two seconds.
const SEEK: Duration = Duration::from_secs(10);

/// A stream that has been silent for this long has shown all there was.
pub(super) const IDLE: Duration = Duration::from_secs(2);

/// The kubelet's reader survives one rotation while its client does not read, and skips a file at the second. Two are
/// 10 s apart as kubelets come, and 3 s where they are told to look most often; 1 s of these is for noticing late.
/// So a stream that was left unread for so long is closed.
pub(super) const HELD_UP: Duration = Duration::from_secs(2);

/// A stream of an ended instance or a deleted pod that brings nothing more is given this long to end by itself.
const LINGER: Duration = Duration::from_secs(10);

/// A line that a probe saw is given this long to arrive in the stream.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// How long to wait before asking again for a log that may not be read.
const FORBIDDEN: Duration = Duration::from_secs(30);

/// How long the last line of a log may take to be read. The stream waits unread meanwhile.
const PROBE: Duration = HELD_UP;

/// The kubelet watches for new files only once it has read the present one to its end. A file that is
/// rotated before leaves the stream mute until the next rotation, and the file between is passed over
/// in silence. A stream that brings something after this time watches; one that does not is probed
/// soon: well before the 10 s that the kubelet takes at least between two rotations.
const WATCHING: Duration = Duration::from_secs(2);

/// A stream that has brought so much since it was last probed is probed as soon as it falls silent. What writes so fast
/// may fill a file before the usual probe; and a node's clock that is set back silences a stream, because the kubelet
/// leaves out of it what is stamped before the time from which it was asked for. 1 MiB is a tenth of the usual file,
/// and a probe costs less than to read that.
const BUSY: usize = 1024 * 1024;

/// What the end of a log shows.
enum Tail {
    /// The line stored last.
    Stored,
    /// Another line.
    Other,
    /// Nothing: the log was rotated since this stream was opened.
    Rotated,
    /// Nothing that could be compared.
    Unknown,
}

/// When a follow stream has to be looked at next.
struct Due {
    /// It is closed and opened anew.
    reopen: Duration,
    /// Its end is awaited.
    lingers: bool,
    /// It is checked against the last line of the log, if nothing comes before.
    probe: Duration,
    /// What comes from then on shows that it watches for new files.
    watching: Duration,
    /// The batch is written.
    flush: Option<Duration>,
    /// It must have shown the stored line.
    align: Option<Duration>,
    /// The same, however busy it is.
    seek: Option<Duration>,
    /// Bytes that have come since the latest probe.
    volume: usize,
    /// A line that the probe saw must have come.
    mute: Option<Duration>,
}

impl Due {
    fn next(&self) -> Duration {
        let soon = [self.flush, self.align, self.mute].into_iter().flatten();
        soon.fold(self.reopen.min(self.probe), Duration::min)
    }
}

/// When a chunk that begins now is written: half an age to one and a half from now, at a time that
/// all streams have in common, so that they share a request and the process wakes once for all.
fn together(now: Duration, age: Duration) -> Duration {
    let (least, step) = ((now + age / 2).as_micros(), age.as_micros().max(1));
    Duration::from_micros(u64::try_from(least.div_ceil(step) * step).unwrap_or(u64::MAX))
}

impl Reading<'_> {
    /// Follows the log from the stored position until the stream ends or must be closed.
    pub(super) async fn follow(&mut self) -> Close {
        let node = self.task.pod.borrow().node.clone();
        let Some(_turn) = self.site.gate.try_enter(node.as_deref().unwrap_or_default()) else {
            return Close::Poll(self.site.settings.poll);
        };
        let (_, since) = self.begin();
        let mut stream = match Box::pin(self.open(true, since)).await {
            Ok(stream) => Some(stream),
            Err(close) => return close,
        };
        let mut heard = self.site.clock.now();
        self.search.trust();
        let close = self.attend(&mut stream, &mut heard).await;
        let now = self.site.clock.now();
        // A stream that broke, or was busy, or was not read for a while, may have missed its last lines; so has one
        // that stays open after its instance, or ends in the middle of a line.
        let over = self.has_ended() || self.task.pod.borrow().gone;
        let orderly = close == Close::End && self.ends_with_a_line() || close == Close::Reopen && !over;
        let quiet = orderly && self.is_silent(heard, now);
        self.search.note_caught_up(quiet.then_some(now));
        if close == Close::Mute {
            self.search.doubt();
        }
        let close = Box::pin(self.flush(&mut stream)).await.unwrap_or(close);
        self.count();
        if let Some(reason) = close.as_str() {
            self.site.metrics.stream_ends.get_or_create(&Reason { reason }).inc();
        }
        close
    }

    fn due(&self) -> Due {
        let (settings, now) = (&self.site.settings, self.site.clock.now());
        let watching = now + WATCHING;
        Due {
            reopen: now + settings.reopen.mul_f64(0.75 + 0.25 * fastrand::f64()),
            lingers: false,
            probe: watching,
            watching,
            volume: 0,
            flush: None,
            align: None,
            seek: None,
            mute: None,
        }
    }

    async fn attend(&mut self, stream: &mut Option<LogStream>, heard: &mut Duration) -> Close {
        let clock = self.site.clock;
        let opened = clock.now();
        let mut due = self.due();
        let mut pod = self.task.pod.clone();
        loop {
            if clock.now() >= due.next()
                && let Some(close) = Box::pin(self.tend(stream, &mut due, *heard)).await
            {
                return close;
            }
            let Some(open) = stream else { return Close::Late };
            let frame = tokio::select! {
                biased;
                () = self.task.stop.cancelled() => return Close::Stopped,
                frame = open.next() => frame,
                changed = pod.changed() => {
                    if changed.is_err() {
                        return Close::Stopped;
                    }
                    if self.has_ended() || pod.borrow_and_update().gone {
                        due.lingers = true;
                        due.reopen = due.reopen.min(clock.now() + LINGER);
                    }
                    continue;
                }
                () = clock.sleep_until(due.next()) => continue,
            };
            let bytes = match frame {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Close::End,
                Err(error) => return self.broken(&error),
            };
            let now = clock.now();
            if self.was_held_up(&mut due, *heard, now) {
                return Close::Late;
            }
            if self.is_silent(*heard, now) {
                self.search.note_caught_up(Some(now));
            }
            if !self.feed_in_time(&bytes, opened, now) {
                return Close::Behind;
            }
            due.volume += bytes.len();
            *heard = now;
            self.heard(&mut due, now);
            if self.writer.is_full() {
                due.flush = None;
                if let Some(close) = Box::pin(self.flush(stream)).await {
                    return close;
                }
            }
        }
    }

    /// Whether nothing has come for so long that the stream has shown all there was. A process that slept
    /// meanwhile heard nothing either.
    fn is_silent(&self, heard: Duration, now: Duration) -> bool {
        now >= heard + IDLE && self.site.pulse.was_awake_for(IDLE)
    }

    /// Whether what comes now was held up by a sleep of the process for so long that more may be missing after it.
    fn was_held_up(&self, due: &mut Due, heard: Duration, now: Duration) -> bool {
        let sleep = self.site.pulse.sleep();
        if sleep.woke <= heard || now >= sleep.woke + IDLE {
            return false;
        }
        // What was sent long ago does not show that the kubelet watches.
        due.watching = now + WATCHING;
        sleep.slept >= HELD_UP
    }

    /// Something has come.
    fn heard(&self, due: &mut Due, now: Duration) {
        if now >= due.watching {
            let busy = due.volume >= BUSY;
            due.probe = now + if busy { IDLE } else { self.site.settings.probe };
        }
        due.mute = None;
        if due.lingers {
            // Of a deleted pod nothing can be had but through this stream.
            due.reopen = now + LINGER;
        }
        if self.intake.seen().taking {
            due.align = None;
        } else {
            let limit = *due.seek.get_or_insert(now + SEEK);
            due.align = Some(limit.min(now + ALIGN));
        }
        if !self.writer.is_empty() {
            due.flush.get_or_insert(together(now, self.site.settings.chunk_age));
        }
    }

    /// Does what is due; `Some` when the stream must end.
    async fn tend(&mut self, stream: &mut Option<LogStream>, due: &mut Due, heard: Duration) -> Option<Close> {
        let now = self.site.clock.now();
        let past = |at: Option<Duration>| at.is_some_and(|at| now >= at);
        if past(due.flush) {
            due.flush = None;
            if let Some(close) = self.flush(stream).await {
                return Some(close);
            }
        }
        if past(due.align) {
            return Some(Close::Misplaced);
        }
        if past(due.mute) {
            tracing::debug!(container = %self.name(), "the stream had gone mute and is opened anew");
            return Some(Close::Mute);
        }
        if now >= due.reopen {
            return Some(Close::Reopen);
        }
        if now >= due.probe {
            due.probe = now + self.site.settings.probe;
            due.volume = 0;
            due.flush = None;
            if let Some(close) = self.flush(stream).await {
                return Some(close);
            }
            match Box::pin(self.look_at_end()).await {
                Tail::Stored | Tail::Unknown => {}
                Tail::Other => due.mute = Some(self.site.clock.now() + IN_FLIGHT),
                Tail::Rotated => return Box::pin(self.rotated(due, heard)).await,
            }
        }
        None
    }

    /// The log was rotated and is empty. The stream may have been opened too early to hear of that, and would pass over
    /// the new file. It has shown all of the old one if it said something a moment ago; later it may be mute.
    async fn rotated(&mut self, due: &mut Due, heard: Duration) -> Option<Close> {
        let now = self.site.clock.now();
        if !self.is_silent(heard, now) {
            due.probe = now + IDLE;
            return None;
        }
        if now >= heard + 2 * IDLE {
            return None;
        }
        // What was found empty may be the log of another pod of that name.
        if let Err(close) = self.look().await {
            return Some(close);
        }
        self.search.note_empty();
        Some(Close::Reopen)
    }

    /// Compares the last line of the log with the last one stored.
    async fn look_at_end(&mut self) -> Tail {
        let stop = self.task.stop.clone();
        let last = tokio::select! {
            biased;
            () = stop.cancelled() => return Tail::Unknown,
            last = tokio::time::timeout(PROBE, self.last_line()) => last,
        };
        let Ok(Some(last)) = last else { return Tail::Unknown };
        match (last, self.writer.position()) {
            (Some(last), Some(stored)) if (last.time, last.hash) == (stored.time, stored.hash) => Tail::Stored,
            (Some(_), _) => Tail::Other,
            (None, Some(_)) if !self.search.expects_new_file() => Tail::Rotated,
            (None, _) => Tail::Unknown,
        }
    }

    /// The last line of the log, if it has one; `None` without an answer.
    async fn last_line(&mut self) -> Option<Option<Position>> {
        self.site.gate.open_turn().await;
        let query = LogQuery {
            tail_lines: Some(1),
            ..self.query(false, None)
        };
        let mut stream = self.site.cluster.open_log(&query).await.ok()?;
        let mut intake = Intake::new(self.site.settings.max_line);
        let mut batch = Batch::default();
        while let Some(bytes) = stream.next().await.ok()? {
            intake.feed(&bytes, &mut batch);
        }
        Some(batch.end())
    }

    pub(super) fn query(&self, follow: bool, since: Option<Time>) -> LogQuery {
        let pod = self.task.pod.borrow();
        LogQuery {
            namespace: pod.namespace.to_string(),
            pod: pod.name.to_string(),
            container: self.name().to_string(),
            follow,
            previous: self.source == Source::Previous,
            since,
            tail_lines: None,
        }
    }

    /// What to do about a failure. Logged here, at the level of who must act.
    pub(super) fn broken(&self, error: &LogError) -> Close {
        let container = self.name();
        match error {
            LogError::Forbidden(_) => {
                tracing::error!(%container, %error, "may not read the log; trying again");
                Close::Wait(FORBIDDEN)
            }
            LogError::Rejected(_) => {
                tracing::warn!(%container, %error, "the API server refuses to serve the log; trying again");
                Close::Refused
            }
            LogError::NotFound | LogError::NoPrevious => Close::Refused,
            LogError::Throttled { after } => Close::Wait(*after),
            LogError::Waiting | LogError::NotScheduled => Close::Wait(Duration::ZERO),
            LogError::Unavailable(_) => {
                tracing::debug!(%container, %error, "the log stream broke; trying again");
                Close::Broken
            }
        }
    }
}
