//! Following a log that has been opened (`identity.rs`).
//!
//! Each stream is opened by name and checked by identity afterwards, because the log API takes only
//! names. A stream is never left open and unread, nor trusted for ever: it is opened anew on a
//! schedule, and one that is silent for long is compared with the last line of the log.

use std::time::Duration;

use bytes::Bytes;

use crate::cluster::{LogError, LogQuery, LogStream};
use crate::domain::Time;
use crate::domain::steps::Source;
use crate::metrics::Reason;

use super::read_end::ReadEnd;
use super::reader::Reader;

/// A follow stream that has begun must show the stored line before it pauses for this long, and
/// within [`SEEK`] in any case.
pub(super) const ALIGN: Duration = Duration::from_secs(1);

/// See [`ALIGN`]. What lies before the stored line is what was written in some two seconds.
const SEEK: Duration = Duration::from_secs(10);

/// A stream that has been silent for this long has shown all there was.
pub(super) const IDLE: Duration = Duration::from_secs(2);

/// The kubelet's reader survives one rotation while its client does not read, and skips a file at the second. Two are
/// 10 s apart as kubelets come, and 3 s where they are told to look most often; 1 s of these is for noticing late.
/// So a stream that was left unread for so long is closed.
pub(super) const HELD_UP: Duration = Duration::from_secs(2);

/// Held up elsewhere, by the network or the API server, a stream falls silent and brings its lines late. 8 s of both are
/// taken for a file that may have been skipped: 2 s less than there are between two rotations as kubelets come.
pub(super) const BEHIND: Duration = Duration::from_secs(8);

/// A stream of an ended instance or a deleted pod that brings nothing more is given this long to end by itself.
const LINGER: Duration = Duration::from_secs(10);

/// How long to wait before asking again for a log that may not be read.
const FORBIDDEN: Duration = Duration::from_secs(30);

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

/// What is known of an open stream, and when it has to be looked at next.
pub(super) struct Due {
    /// When it was opened or something came last.
    pub(super) heard: Duration,
    /// For how long it was not listened to since.
    unread: Duration,
    /// What comes is late until the contrary is known.
    judging: bool,
    /// How many probes in a row could not tell whether it watches for new files.
    pub(super) unknown: u32,
    /// It is closed and opened anew.
    reopen: Duration,
    /// Its end is awaited, and nothing else: the log may not be had again.
    lingers: bool,
    /// It is checked against the last line of the log, if nothing comes before.
    pub(super) probe: Duration,
    /// What comes from then on shows that it watches for new files.
    watching: Duration,
    /// It has shown that.
    pub(super) watches: bool,
    /// It has not heard of a new file that is there, unless something comes before.
    pub(super) unheard: Option<Duration>,
    /// The batch is written.
    pub(super) flush: Option<Duration>,
    /// It must have shown the stored line.
    align: Option<Duration>,
    /// The same, however busy it is.
    seek: Option<Duration>,
    /// Bytes that have come since the latest probe.
    pub(super) volume: usize,
    /// A line that the probe saw must have come.
    pub(super) mute: Option<Duration>,
}

impl Due {
    /// Only the end is awaited from now on.
    fn linger(&mut self, now: Duration) {
        self.lingers = true;
        self.reopen = self.reopen.min(now + LINGER);
        (self.probe, self.mute, self.unheard) = (Duration::MAX, None, None);
    }

    fn next(&self) -> Duration {
        let soon = [self.flush, self.align, self.mute, self.unheard].into_iter().flatten();
        soon.fold(self.reopen.min(self.probe), Duration::min)
    }
}

/// When a chunk that begins now is written: half an age to one and a half from now, at a time that
/// all streams have in common, so that they share a request and the process wakes once for all.
fn together(now: Duration, age: Duration) -> Duration {
    let (least, step) = ((now + age / 2).as_micros(), age.as_micros().max(1));
    Duration::from_micros(u64::try_from(least.div_ceil(step) * step).unwrap_or(u64::MAX))
}

impl Reader<'_> {
    /// Follows the log from the stored position until the stream ends or must be closed.
    pub(super) async fn follow(&mut self) -> ReadEnd {
        let node = self.task.pod.borrow().node.clone();
        let Some(_turn) = self.context.limiter.try_acquire(node.as_deref().unwrap_or_default()) else {
            return ReadEnd::Poll(self.context.settings.poll);
        };
        let (_, since) = self.begin();
        let mut stream = match Box::pin(self.open(true, since)).await {
            Ok(stream) => Some(stream),
            Err(close) => return close,
        };
        let mut due = self.due();
        self.resume.trust();
        let close = self.attend(&mut stream, &mut due).await;
        let now = self.context.clock.now();
        // A stream that broke, or was busy, or was not read for a while, may have missed its last lines; so has one
        // that stays open after its instance, or ends in the middle of a line.
        let over = self.hear_of_end() || self.task.pod.borrow().gone;
        let orderly = close == ReadEnd::End || close == ReadEnd::Reopen && !over;
        let quiet = orderly && !self.suspected && self.ends_with_a_line() && self.is_silent(&due, now);
        self.resume.note_caught_up(quiet.then_some(now));
        if close == ReadEnd::Mute {
            self.resume.doubt();
        }
        let close = Box::pin(self.flush(&mut stream)).await.unwrap_or(close);
        self.count();
        if let Some(reason) = close.as_str() {
            self.context.metrics.stream_ends.get_or_create(&Reason { reason }).inc();
        }
        close
    }

    fn due(&self) -> Due {
        let (settings, now) = (&self.context.settings, self.context.clock.now());
        let watching = now + WATCHING;
        Due {
            heard: now,
            unread: Duration::ZERO,
            judging: false,
            unknown: 0,
            reopen: now + settings.reopen.mul_f64(0.75 + 0.25 * fastrand::f64()),
            lingers: false,
            // A while later, so that of a busy stream nobody need ask.
            probe: watching + ALIGN,
            watching,
            // An empty file is read to its end at once.
            watches: self.resume.expects_new_file(),
            unheard: None,
            volume: 0,
            flush: None,
            align: None,
            seek: None,
            mute: None,
        }
    }

    async fn attend(&mut self, stream: &mut Option<LogStream>, due: &mut Due) -> ReadEnd {
        let clock = self.context.clock;
        let mut pod = self.task.pod.clone();
        loop {
            let now = clock.now();
            if now >= due.next() {
                if let Some(close) = Box::pin(self.tend(stream, due)).await {
                    return close;
                }
                due.unread += clock.since(now);
            }
            let Some(open) = stream else { return ReadEnd::Late };
            let frame = tokio::select! {
                biased;
                () = self.task.stop.cancelled() => return ReadEnd::Stopped,
                frame = open.next() => frame,
                changed = pod.changed() => {
                    if changed.is_err() {
                        return ReadEnd::Stopped;
                    }
                    if self.hear_of_end() || pod.borrow_and_update().gone {
                        due.linger(clock.now());
                    }
                    continue;
                }
                () = clock.sleep_until(due.next()) => continue,
            };
            let bytes = match frame {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return ReadEnd::End,
                Err(error) => return self.broken(&error),
            };
            if let Some(close) = self.hear(due, &bytes) {
                return close;
            }
            if self.writer.is_full() {
                due.flush = None;
                if let Some(close) = Box::pin(self.flush(stream)).await {
                    return close;
                }
            }
        }
    }

    /// Takes in what has come; `Some` when the stream must end, and nothing of it is taken.
    fn hear(&mut self, due: &mut Due, bytes: &Bytes) -> Option<ReadEnd> {
        let now = self.context.clock.now();
        if let Some(slept) = self.slept_since(due.heard, now) {
            // What was sent long ago does not show that the kubelet watches.
            due.watching = now + WATCHING;
            if slept >= HELD_UP {
                return Some(ReadEnd::Late);
            }
        }
        if self.is_silent(due, now) {
            self.resume.note_caught_up(Some(now));
        }
        due.judging = !due.lingers && (due.judging || now >= due.heard + BEHIND);
        if !due.judging {
            self.feed(bytes);
        } else if let Some(punctual) = self.feed_if_punctual(bytes) {
            if !punctual {
                return Some(ReadEnd::Behind);
            }
            due.judging = false;
        }
        (due.heard, due.unread) = (now, Duration::ZERO);
        self.suspected = false;
        self.rearm(due, bytes.len(), now);
        None
    }

    /// Whether nothing has come for so long that the stream has shown all there was. One that has not shown the stored
    /// line has shown nothing yet, and a process that slept heard nothing.
    fn is_silent(&self, due: &Due, now: Duration) -> bool {
        let begun = self.intake.stats().taking || self.resume.expects_new_file();
        begun && now >= due.heard + due.unread + IDLE && self.context.stall_detector.ran_without_stall_for(IDLE)
    }

    /// How long the process slept since something was heard last, if what comes now may have waited for it to wake.
    fn slept_since(&self, heard: Duration, now: Duration) -> Option<Duration> {
        let stall = self.context.stall_detector.latest_stall();
        (stall.ended > heard && now < stall.ended + IDLE).then_some(stall.length)
    }

    /// So many bytes have come: sets anew what is due.
    fn rearm(&self, due: &mut Due, bytes: usize, now: Duration) {
        due.volume += bytes;
        if now >= due.watching && !due.lingers {
            due.watches = true;
            let busy = due.volume >= BUSY;
            due.probe = now + if busy { IDLE } else { self.context.settings.probe };
        }
        (due.mute, due.unheard) = (None, None);
        if due.lingers {
            // Of a deleted pod nothing can be had but through this stream.
            due.reopen = now + LINGER;
        }
        if self.intake.stats().taking {
            due.align = None;
        } else {
            let limit = *due.seek.get_or_insert(now + SEEK);
            due.align = Some(limit.min(now + ALIGN));
        }
        if !self.writer.is_empty() {
            due.flush.get_or_insert(together(now, self.context.settings.chunk_age));
        }
    }

    /// Does what is due; `Some` when the stream must end.
    async fn tend(&mut self, stream: &mut Option<LogStream>, due: &mut Due) -> Option<ReadEnd> {
        let now = self.context.clock.now();
        let past = |at: Option<Duration>| at.is_some_and(|at| now >= at);
        if past(due.flush) {
            due.flush = None;
            if let Some(close) = self.flush(stream).await {
                return Some(close);
            }
        }
        if past(due.align) {
            return Some(ReadEnd::Misplaced);
        }
        if past(due.mute) {
            tracing::debug!(container = %self.name(), "the stream had gone mute and is opened anew");
            return Some(ReadEnd::Mute);
        }
        if now >= due.reopen {
            return Some(ReadEnd::Reopen);
        }
        if past(due.unheard) {
            return Some(self.close_unheard(due.heard, now));
        }
        if now >= due.probe {
            return Box::pin(self.probe(stream, due)).await;
        }
        None
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
    pub(super) fn broken(&self, error: &LogError) -> ReadEnd {
        let container = self.name();
        match error {
            LogError::Forbidden(_) => {
                tracing::error!(%container, %error, "may not read the log; trying again");
                ReadEnd::Wait(FORBIDDEN)
            }
            LogError::Rejected(_) => {
                tracing::warn!(%container, %error, "the API server refuses to serve the log; trying again");
                ReadEnd::Refused
            }
            LogError::NotFound | LogError::NoPrevious => ReadEnd::Refused,
            LogError::Throttled { after } => ReadEnd::Wait(*after),
            LogError::Waiting | LogError::NotScheduled => ReadEnd::Wait(Duration::ZERO),
            LogError::Unavailable(_) => {
                tracing::debug!(%container, %error, "the log stream broke; trying again");
                ReadEnd::Broken
            }
        }
    }
}
