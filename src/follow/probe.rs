//! Reads the last line of a log that is being followed, to find out whether its stream still sends what is written.
//!
//! A stream may send nothing although lines are written, or may not notice the next file because it was opened too
//! early. Nothing that is read here is taken.

use std::time::Duration;

use crate::cluster::open_log;
use crate::domain::Time;
use crate::domain::line_decoder::{Batch, LineDecoder};

use super::read_end::ReadEnd;
use super::reader::{OpenLog, QUIET, Reader, unread_reason};
use super::stream_timers::{SEARCH_PAUSE, StreamTimers};

/// Time that a line which a probe has found is given to arrive in the stream.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// Longest time for reading the last line of a log, and for fetching the pod after it. The stream is not read
/// meanwhile: with a write that is just fast enough, for less than 4 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long after its latest bytes a silent stream has certainly sent all of the file before the new file that it has
/// not noticed: 2 s until it must watch, 1 s until it is probed, 2 s for the probe, and 1 s to notice the new file.
const SILENCE_EXPLAINED: Duration = Duration::from_secs(6);

/// What the end of a log shows.
enum LastLine {
    /// The line that was stored last, or a line that was found to be no new line.
    Stored,
    /// Another line.
    Other(Time, u64),
    /// No line, although lines of the log are stored: it was rotated.
    None,
    /// Nothing that can be compared.
    Unknown,
}

/// Compares the end of the log with what is stored; `Some` when the stream must be closed.
pub(super) async fn probe(reader: &mut Reader<'_>, log: &mut OpenLog, timers: &mut StreamTimers) -> Option<ReadEnd> {
    let (clock, interval) = (reader.context.clock, reader.context.settings.probe);
    if !reader.context.limiter.try_open() {
        timers.probe_at = clock.now() + QUIET.mul_f64(1.0 + fastrand::f64());
        return None;
    }
    timers.probe_at = clock.now() + interval;
    (timers.bytes, timers.flush_at) = (0, None);
    if let Some(end) = reader.flush(log).await {
        return Some(end);
    }
    if let Err(end) = log {
        return Some(*end);
    }
    match compare_last_line(reader).await {
        LastLine::Stored => timers.watches = true,
        LastLine::Other(time, hash) => {
            timers.mute_at = Some(clock.now() + IN_FLIGHT);
            (reader.probed_line, reader.probe_contradicts) = (Some((time, hash)), true);
        }
        // A kubelet that watches for new files will send this one.
        LastLine::None | LastLine::Unknown if timers.watches => {}
        LastLine::None if reader.lines.ends_with_a_line() => {
            // It may be the log of another pod of that name.
            let began = clock.now();
            match tokio::time::timeout(PROBE_TIMEOUT, reader.log.verify()).await {
                Ok(Ok(())) => {}
                Ok(Err(end)) => return Some(end),
                Err(_) => return Some(unread_reason(reader.context, began, ReadEnd::SlowApi)),
            }
            timers.new_file_missed_at = Some(clock.now() + SEARCH_PAUSE);
            reader.probe_contradicts = true;
        }
        LastLine::None | LastLine::Unknown => {
            timers.unclear_probes += 1;
            let wait = QUIET * (1 << timers.unclear_probes.min(5));
            timers.probe_at = clock.now() + wait.min(interval);
        }
    }
    None
}

/// Closes a stream that has not noticed a new file and would skip it; the next read finds that file empty. The stream
/// has sent all of the file before if it was opened or sent bytes a short time ago (`heard_at`); after a longer
/// silence it may be mute for another reason.
pub(super) fn close_for_new_file(reader: &mut Reader<'_>, heard_at: Duration, now: Duration) -> ReadEnd {
    reader.lines.resume.record_empty_probe();
    reader.probe_contradicts = false;
    if now < heard_at + SILENCE_EXPLAINED {
        ReadEnd::Reopen
    } else {
        ReadEnd::Mute
    }
}

async fn compare_last_line(reader: &Reader<'_>) -> LastLine {
    let last = tokio::select! {
        biased;
        () = reader.assignment.stop.cancelled() => return LastLine::Unknown,
        last = tokio::time::timeout(PROBE_TIMEOUT, read_last_line(reader)) => last,
    };
    let Ok(Some(last)) = last else { return LastLine::Unknown };
    match (last, reader.lines.writer.position()) {
        (Some(last), Some(stored)) if last == (stored.time, stored.hash) => LastLine::Stored,
        // The kubelet serves the last record, which is only the end of a line that is longer than 16 KiB.
        (Some(last), _) if reader.probed_line == Some(last) => LastLine::Stored,
        (Some((time, hash)), _) => LastLine::Other(time, hash),
        (None, Some(_)) => LastLine::None,
        // Nothing has been written yet, so the stream is at the end.
        (None, None) => LastLine::Stored,
    }
}

/// Timestamp and hash of the last line of the log, if it has a line. `None` without an answer, or when the answer is
/// not a line: the beginning of one, or a message of the kubelet.
async fn read_last_line(reader: &Reader<'_>) -> Option<Option<(Time, u64)>> {
    let query = reader.log.last_line_query();
    let mut stream = open_log(&reader.context.cluster, &query).await.ok()?;
    let mut decoder = LineDecoder::new(reader.context.settings.max_line);
    let mut batch = Batch::default();
    while let Some(bytes) = stream.next().await.ok()? {
        decoder.feed(&bytes, &mut batch);
    }
    let whole = decoder.ends_with_a_line() && decoder.stats().kubelet_messages == 0;
    whole.then(|| batch.end().map(|end| (end.time, end.hash)))
}
