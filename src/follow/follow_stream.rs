//! Follows the log of one instance: one stream, from its opening until it ends or must be closed.
//!
//! A stream is never left open and unread. It is opened again on a schedule, and a stream that is silent for long is
//! compared with the last line of the log (`probe`), because a stream may miss lines without an error. It decides
//! nothing about the instance.

use std::time::Duration;

use bytes::Bytes;

use crate::metrics::Reason;

use super::log_reader::{LogReader, MAX_UNREAD, OpenLog, QUIET};
use super::probe;
use super::read_end::ReadEnd;
use super::stream_lines::{MAX_DELAY, Punctuality};
use super::stream_timers::{StreamProgress, StreamTimers, WATCH_START};

/// Follows the log from the stored position until the stream ends or must be closed.
pub(super) async fn follow_stream(reader: &mut LogReader<'_>) -> ReadEnd {
    let context = reader.context;
    let node = reader.assignment.pod.borrow().node.clone();
    let Some(_permit) = context.limiter.try_acquire(node.as_deref().unwrap_or_default()) else {
        return ReadEnd::NoStreamFree(context.settings.poll);
    };
    let since = reader.begin_read().since;
    let log = match Box::pin(reader.log.open(true, since, &mut reader.lines.resume)).await {
        Ok(stream) => Ok(stream),
        Err(end) => return end,
    };
    let expects_new_file = reader.lines.resume.expects_new_file();
    let timers = StreamTimers::new(context.clock.now(), &context.settings, expects_new_file);
    reader.lines.resume.clear_whole_log_request();
    let mut stream = FollowStream { reader, log, timers };
    let end = stream.run().await;
    Box::pin(stream.finish(end)).await
}

/// One open stream.
struct FollowStream<'r, 'a> {
    reader: &'r mut LogReader<'a>,
    log: OpenLog,
    timers: StreamTimers,
}

impl FollowStream<'_, '_> {
    async fn run(&mut self) -> ReadEnd {
        let clock = self.reader.context.clock;
        let mut pod = self.reader.assignment.pod.clone();
        loop {
            let now = clock.now();
            if now >= self.timers.next() {
                if let Some(end) = Box::pin(self.do_what_is_due()).await {
                    return end;
                }
                self.timers.unread_for += clock.since(now);
            }
            let open = match &mut self.log {
                Ok(open) => open,
                Err(end) => return *end,
            };
            let frame = tokio::select! {
                biased;
                () = self.reader.assignment.stop.cancelled() => return ReadEnd::Stopped,
                frame = open.next() => frame,
                changed = pod.changed() => {
                    if changed.is_err() {
                        return ReadEnd::Stopped;
                    }
                    if self.reader.log.status.refresh() || pod.borrow_and_update().deleted {
                        self.timers.await_end(clock.now());
                    }
                    continue;
                }
                () = clock.sleep_until(self.timers.next()) => continue,
            };
            let bytes = match frame {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return ReadEnd::EndOfLog,
                Err(error) => return self.reader.log.read_error(&error),
            };
            if let Some(end) = self.process(&bytes) {
                return end;
            }
            if self.reader.lines.writer.is_full() {
                self.timers.flush_at = None;
                if let Some(end) = Box::pin(self.reader.flush(&mut self.log)).await {
                    return end;
                }
            }
        }
    }

    /// Processes bytes that have arrived. `Some` when the stream must be closed; then nothing of them is taken.
    fn process(&mut self, bytes: &Bytes) -> Option<ReadEnd> {
        let now = self.reader.context.clock.now();
        if let Some(pause) = self.pause_before(now) {
            // Bytes sent before the pause do not show that the kubelet watches for new files.
            self.timers.watches_files_from = now + WATCH_START;
            if pause >= MAX_UNREAD {
                return Some(ReadEnd::ProcessPaused);
            }
        }
        if self.is_quiet(now) {
            self.reader.lines.resume.set_caught_up(Some(now));
        }
        let timers = &mut self.timers;
        let was_silent = now >= timers.last_bytes_at + MAX_DELAY;
        timers.checks_delay = !timers.awaits_end && (timers.checks_delay || was_silent);
        if timers.checks_delay {
            match self.reader.lines.feed_unless_late(bytes) {
                Punctuality::OnTime => timers.checks_delay = false,
                Punctuality::Late => return Some(ReadEnd::LateLines),
                Punctuality::Unknown => {}
            }
        } else {
            self.reader.lines.feed(bytes);
        }
        (timers.last_bytes_at, timers.unread_for) = (now, Duration::ZERO);
        self.reader.probe_found_unsent = false;
        let lines = &self.reader.lines;
        let progress = StreamProgress {
            position_found: lines.decoder.stats().taking,
            lines_to_write: !lines.writer.is_empty(),
        };
        timers.record_bytes(now, bytes.len(), progress, &self.reader.context.settings);
        None
    }

    /// Whether nothing has arrived for so long that the stream has sent all there was. A stream that has not shown
    /// the stored line has shown nothing yet, and a process that was paused received nothing.
    fn is_quiet(&self, now: Duration) -> bool {
        let reader = &self.reader;
        let begun = reader.lines.decoder.stats().taking || reader.lines.resume.expects_new_file();
        begun
            && now >= self.timers.last_bytes_at + self.timers.unread_for + QUIET
            && reader.context.stall_detector.ran_without_stall_for(QUIET)
    }

    /// How long the process was paused since the latest bytes, if bytes that arrive `now` may have waited for it to run
    /// again.
    fn pause_before(&self, now: Duration) -> Option<Duration> {
        let stall = self.reader.context.stall_detector.latest_stall();
        (stall.ended > self.timers.last_bytes_at && now < stall.ended + QUIET).then_some(stall.length)
    }

    /// Does what is due; `Some` when the stream must be closed.
    async fn do_what_is_due(&mut self) -> Option<ReadEnd> {
        let now = self.reader.context.clock.now();
        let passed = |at: Option<Duration>| at.is_some_and(|at| now >= at);
        if passed(self.timers.flush_at) {
            self.timers.flush_at = None;
            if let Some(end) = self.reader.flush(&mut self.log).await {
                return Some(end);
            }
        }
        if passed(self.timers.settled_at) {
            self.timers.settled_at = None;
            self.reader.log.state.followed();
        }
        if passed(self.timers.search_ends_at) {
            return Some(ReadEnd::PositionNotFound);
        }
        if passed(self.timers.mute_at) {
            let container = self.reader.log.status.container();
            tracing::debug!(%container, "the log has a line that its stream does not send; opening the stream again");
            return Some(ReadEnd::Mute);
        }
        if now >= self.timers.reopen_at {
            return Some(ReadEnd::Reopen);
        }
        if passed(self.timers.new_file_missed_at) {
            return Some(probe::close_for_new_file(self.reader, self.timers.last_bytes_at, now));
        }
        if now >= self.timers.probe_at {
            return Box::pin(probe::probe(self.reader, &mut self.log, &mut self.timers)).await;
        }
        None
    }

    /// Has the taken lines written, and records whether the stream has shown the whole log.
    async fn finish(mut self, end: ReadEnd) -> ReadEnd {
        let now = self.reader.context.clock.now();
        // The last lines may be missing from a stream that broke, was busy, or was not read for a while. The same holds
        // for a stream that stays open after its instance has ended, or that ends in the middle of a line.
        let over = self.reader.log.status.refresh() || self.reader.assignment.pod.borrow().deleted;
        let orderly = end == ReadEnd::EndOfLog || end == ReadEnd::Reopen && !over;
        let whole = orderly
            && !self.reader.probe_found_unsent
            && self.reader.lines.decoder.ends_with_a_line()
            && self.is_quiet(now);
        self.reader.lines.resume.set_caught_up(whole.then_some(now));
        if end == ReadEnd::Mute {
            self.reader.lines.resume.request_whole_log();
        }
        let end = self.reader.flush(&mut self.log).await.unwrap_or(end);
        self.reader.count_lines();
        if let Some(reason) = end.as_str() {
            self.reader
                .context
                .metrics
                .stream_ends
                .get_or_create(&Reason { reason })
                .inc();
        }
        end
    }
}
