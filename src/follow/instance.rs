//! Reads one instance of a container, again and again: a plain read of what is there, then, while the instance runs, a
//! follow stream. Every read begins at the stored position.
//!
//! A read that ends without an error does not show that the instance has ended. An instance is finished only when the
//! pod's status says that it ended, and a plain read that began after that finds no new line. Only a new line makes the
//! waits between reads short again. Nothing here opens a log or writes to the sink.

use std::time::Duration;

use crate::defect::{self, Defect};
use crate::domain::backoff::Backoff;
use crate::domain::resume::is_just_before;
use crate::domain::{GapReason, Message};
use crate::unread::UnreadReason;

use super::assignment::ContainerEnd;
use super::follow_stream::follow_stream;
use super::log_reader::LogReader;
use super::read_end::ReadEnd;
use super::stream_timers::SETTLED;

/// Number of streams in a row that end before they are [`SETTLED`], from which on the log counts as not followed. One ends like this
/// whenever a container exits soon after it has started.
const SHORT_STREAMS: u32 = 3;

/// First wait after a read that found no new line.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Longest wait after a read that found no new line.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long to wait for the watch when the API server has just shown a later status of the pod.
const STALE_STATUS: Duration = Duration::from_secs(2);

/// Number of times that the log of an ended instance may be refused before the rest of it is given up. With waits of
/// 250 ms that double up to 30 s, each reduced by a random part of up to half, that is after 46 to 92 s.
const MAX_REFUSALS: u32 = 10;

/// Number of times that the log of an ended instance must be found empty although lines of it are stored. One answer
/// may have been cut short.
const EMPTY_READS: u32 = 2;

/// Reads one instance.
pub(super) struct InstanceReader<'a> {
    reader: Box<LogReader<'a>>,
    backoff: Backoff,
    /// Number of reads without a new line in which the log was refused.
    refusals: u32,
    /// Number of reads in a row that found the log empty although lines of it are stored.
    empty_reads: u32,
    /// Number of streams in a row that ended soon after they were opened, although the instance runs.
    short_streams: u32,
    /// The waits between such streams, whether or not they bring new lines.
    short_stream_backoff: Backoff,
    /// Boot-clock time at which the latest stream ended, if it certainly ended at the end of the log.
    stream_ended_at: Option<Duration>,
}

/// What to do after a read.
enum AfterRead {
    /// Read again at once.
    Again,
    /// Read again after this long, or as soon as the instance has ended.
    AgainAfter(Duration),
    /// Stop reading this instance. `None`: the container goes on with what the pod's status says then.
    Done(Option<ContainerEnd>),
}

impl<'a> InstanceReader<'a> {
    pub(super) fn new(reader: LogReader<'a>) -> Self {
        let poll = reader.context.settings.poll;
        Self {
            reader: Box::new(reader),
            short_streams: 0,
            short_stream_backoff: Backoff::new(FIRST_WAIT, poll.max(FIRST_WAIT)),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            refusals: 0,
            empty_reads: 0,
            stream_ended_at: None,
        }
    }

    /// Reads the instance until it is finished or can no longer be found (`None`), or until the task must end.
    pub(super) async fn run(&mut self) -> Option<ContainerEnd> {
        loop {
            let next = self.read_once().await;
            match next {
                AfterRead::Done(end) => return end,
                AfterRead::Again => {}
                AfterRead::AgainAfter(wait) => {
                    if let Some(end) = self.reader.log.status.wait(wait).await {
                        return Some(end);
                    }
                }
            }
        }
    }

    /// Makes one plain read, and follows the log after it. Futures that last only moments are boxed, so that they take
    /// no memory during the hours of following.
    async fn read_once(&mut self) -> AfterRead {
        let before = self.reader.lines_taken;
        let ended = self.reader.log.status.refresh();
        let mut end = Box::pin(self.reader.catch_up()).await;
        if end == ReadEnd::EndOfLog
            && self.stream_ended_at.is_some()
            && self.reader.lines_taken == before
            && self.reader.lines.decoder.ends_with_a_line()
        {
            // A stream and the read after it both ended without an error, and the read found nothing new.
            self.reader.lines.resume.set_caught_up_at_request();
        }
        self.reader.record_read(end, self.reader.lines_taken > before, ended);
        if matches!(end, ReadEnd::EndOfLog | ReadEnd::EmptyLog) && !ended {
            let opened = self.reader.context.clock.now();
            end = follow_stream(&mut self.reader).await;
            self.record_stream(end, opened);
            self.stream_ended_at = match end {
                ReadEnd::EndOfLog => self.reader.certain_end(),
                // That the pod is deleted does not change how its stream ended before.
                ReadEnd::PodDeleted => self.stream_ended_at,
                _ => None,
            };
        }
        let new_lines = self.reader.lines_taken > before;
        if new_lines {
            self.backoff.reset();
            self.refusals = 0;
        }
        if new_lines || !matches!(end, ReadEnd::EmptyLog) {
            self.empty_reads = 0;
        }
        Box::pin(self.after_read(end, ended, new_lines)).await
    }

    /// Counts streams that end soon after they were opened, although the instance runs.
    fn record_stream(&mut self, end: ReadEnd, opened: Duration) {
        let failed = matches!(
            end,
            ReadEnd::EndOfLog | ReadEnd::EmptyLog | ReadEnd::Broken | ReadEnd::Refused | ReadEnd::RetryAfter(_)
        );
        let short = self.reader.context.clock.since(opened) < SETTLED;
        if !short || self.reader.log.status.refresh() {
            self.short_streams = 0;
            self.short_stream_backoff.reset();
        } else if failed {
            self.short_streams += 1;
        }
        if self.is_not_followed() {
            let message = Message::new(
                "the API server ends each stream of the log at once, although the container runs; the log is read from time to time only",
                "use a kubelet that keeps streams open (the providers of virtual nodes do not all), and check proxies between podlog and the API server",
            );
            self.reader.log.unread(UnreadReason::NotFollowed, message);
        }
    }

    fn is_not_followed(&self) -> bool {
        self.short_streams >= SHORT_STREAMS
    }

    /// Decides what follows a read that ended with `end`. `ended`: whether the instance had ended when the read
    /// began. `new_lines`: whether the read found new lines.
    async fn after_read(&mut self, end: ReadEnd, ended: bool, new_lines: bool) -> AfterRead {
        let container = self.reader.log.status.container();
        tracing::debug!(%container, ?end, ended, new_lines, "one read of the log has ended");
        match end {
            ReadEnd::Stopped => AfterRead::Done(Some(ContainerEnd::Stopped)),
            ReadEnd::Fenced => AfterRead::Done(Some(ContainerEnd::Fenced)),
            // A stream that is cut short may also end without an error, so its end counts only if the pod was deleted
            // right after it.
            ReadEnd::PodDeleted if !self.reader.dropped_lines && self.was_read_before_deletion() => {
                self.finish(None).await
            }
            ReadEnd::PodDeleted => self.finish(Some(GapReason::Deleted)).await,
            ReadEnd::InstanceUnknown => {
                // The pod's status is about to change, and the next step depends on it.
                AfterRead::Done(self.reader.log.status.wait(STALE_STATUS).await)
            }
            ReadEnd::EndOfLog if (ended && !new_lines) || defect::on(Defect::CleanEndProves) => self.finish(None).await,
            ReadEnd::EmptyLog if ended => self.after_empty_log().await,
            ReadEnd::Refused => self.after_refusal(ended).await,
            ReadEnd::SlowSink
            | ReadEnd::SlowApi
            | ReadEnd::ProcessPaused
            | ReadEnd::LateLines
            | ReadEnd::Reopen
            | ReadEnd::Mute => AfterRead::Again,
            ReadEnd::NoStreamFree(wait) => AfterRead::AgainAfter(wait),
            ReadEnd::EndOfLog | ReadEnd::Broken if !ended && new_lines && self.is_not_followed() => {
                AfterRead::AgainAfter(self.short_stream_backoff.next_wait(fastrand::f64()))
            }
            ReadEnd::EndOfLog | ReadEnd::PositionNotFound | ReadEnd::InstanceChanged if new_lines => AfterRead::Again,
            ReadEnd::RetryAfter(least) => AfterRead::AgainAfter(least.max(self.next_wait())),
            ReadEnd::EndOfLog
            | ReadEnd::EmptyLog
            | ReadEnd::Broken
            | ReadEnd::PositionNotFound
            | ReadEnd::InstanceChanged => AfterRead::AgainAfter(self.next_wait()),
        }
    }

    /// Whether the log had certainly been read to its end just before the pod was deleted.
    fn was_read_before_deletion(&self) -> bool {
        let now = self.reader.context.clock.now();
        is_just_before(self.stream_ended_at, now) || self.reader.lines.resume.was_caught_up(now)
    }

    /// Lines of an ended instance are stored, yet its log is empty: it was rotated at the end.
    async fn after_empty_log(&mut self) -> AfterRead {
        self.empty_reads += 1;
        if !self.reader.lines.resume.was_emptied_unread() {
            return self.finish(None).await;
        }
        if self.empty_reads < EMPTY_READS {
            return AfterRead::AgainAfter(self.next_wait());
        }
        self.finish(Some(GapReason::Rotated)).await
    }

    /// The kubelet answers, but does not have the log.
    async fn after_refusal(&mut self, ended: bool) -> AfterRead {
        self.refusals += 1;
        if ended && self.refusals >= MAX_REFUSALS {
            return self.finish(Some(GapReason::Unavailable)).await;
        }
        AfterRead::AgainAfter(self.next_wait())
    }

    /// Marks the instance as read to its end, after a gap for what could not be read.
    async fn finish(&mut self, unread: Option<GapReason>) -> AfterRead {
        AfterRead::Done(self.reader.finish(unread).await)
    }

    fn next_wait(&mut self) -> Duration {
        self.backoff.next_wait(fastrand::f64())
    }
}
