//! Reads the last line of a log that is being followed, to find out whether its stream still sends what is written.
//!
//! A stream may send nothing although lines are written, or may not notice the next file because it was opened too
//! early. Nothing that is read here is taken.

use std::time::Duration;

use crate::cluster::open_log;
use crate::domain::line_decoder::{Batch, LineDecoder};

use super::log_reader::{LastLine, LogReader, OpenLog, QUIET, unread_reason};
use super::read_end::ReadEnd;
use super::stream_timers::{SEARCH_PAUSE, StreamTimers};

/// Time that a line which a probe has found is given to arrive in the stream.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// Longest time for reading the last line of a log, and for fetching the pod after it. The stream is not read
/// meanwhile: with a write that is just fast enough, for less than 4 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest silence that a new file explains which the stream has not noticed: 2 s until the kubelet must watch for new
/// files, 1 s until the probe, 2 s for the probe, and 1 s to notice the new file.
const MAX_NEW_FILE_SILENCE: Duration = Duration::from_secs(6);

/// What the end of a log shows.
enum ProbeResult {
    /// No line is missing: it ends with the line that was stored last, or with a line that a read found not to be new.
    NothingNew,
    /// It ends with a line that the stream has not sent.
    NewLine(LastLine),
    /// It has no line, although lines of it are stored: it was rotated.
    EmptyLog,
    /// Nothing that can be compared.
    Unclear,
}

/// There was no answer, or the answer was not a line: the beginning of one, or a message of the kubelet.
struct NotComparable;

/// Compares the end of the log with what is stored; `Some` when the stream must be closed.
pub(super) async fn probe(reader: &mut LogReader<'_>, log: &mut OpenLog, timers: &mut StreamTimers) -> Option<ReadEnd> {
    let (clock, interval) = (reader.context.clock, reader.context.settings.probe);
    if !reader.context.limiter.try_open() {
        timers.probe_at = clock.now() + QUIET.mul_f64(1.0 + fastrand::f64());
        return None;
    }
    timers.probe_at = clock.now() + interval;
    (timers.bytes_since_probe, timers.flush_at) = (0, None);
    if let Some(end) = reader.flush(log).await {
        return Some(end);
    }
    if let Err(end) = log {
        return Some(*end);
    }
    match compare_last_line(reader).await {
        ProbeResult::NothingNew => timers.watches_files = true,
        ProbeResult::NewLine(line) => {
            timers.mute_at = Some(clock.now() + IN_FLIGHT);
            (reader.probed_line, reader.probe_found_unsent) = (Some(line), true);
        }
        // A kubelet that watches for new files will send this one.
        ProbeResult::EmptyLog | ProbeResult::Unclear if timers.watches_files => {}
        ProbeResult::EmptyLog if reader.lines.decoder.ends_with_a_line() => {
            // It may be the log of another pod of that name.
            let began = clock.now();
            match tokio::time::timeout(PROBE_TIMEOUT, reader.log.verify()).await {
                Ok(Ok(())) => {}
                Ok(Err(end)) => return Some(end),
                Err(_) => return Some(unread_reason(reader.context, began, ReadEnd::SlowApi)),
            }
            timers.new_file_missed_at = Some(clock.now() + SEARCH_PAUSE);
            reader.probe_found_unsent = true;
        }
        ProbeResult::EmptyLog | ProbeResult::Unclear => {
            timers.unclear_probes += 1;
            let wait = QUIET * (1 << timers.unclear_probes.min(5));
            timers.probe_at = clock.now() + wait.min(interval);
        }
    }
    None
}

/// Closes a stream that has not noticed a new file and would skip it; the next read finds that file empty. The stream
/// has sent all of the file before if it was opened or sent bytes a short time ago; after a longer silence it may be
/// mute for another reason.
pub(super) fn close_for_new_file(reader: &mut LogReader<'_>, last_bytes_at: Duration, now: Duration) -> ReadEnd {
    reader.lines.resume.record_empty_probe();
    reader.probe_found_unsent = false;
    if now < last_bytes_at + MAX_NEW_FILE_SILENCE {
        ReadEnd::Reopen
    } else {
        ReadEnd::Mute
    }
}

async fn compare_last_line(reader: &LogReader<'_>) -> ProbeResult {
    let last = tokio::select! {
        biased;
        () = reader.assignment.stop.cancelled() => return ProbeResult::Unclear,
        last = tokio::time::timeout(PROBE_TIMEOUT, read_last_line(reader)) => last,
    };
    let Ok(Ok(last)) = last else {
        return ProbeResult::Unclear;
    };
    let stored = reader.lines.writer.position().map(LastLine::from);
    match last {
        Some(_) if last == stored => ProbeResult::NothingNew,
        // The kubelet serves the last record, which is only the end of a line that is longer than 16 KiB.
        Some(_) if last == reader.probed_line => ProbeResult::NothingNew,
        Some(line) => ProbeResult::NewLine(line),
        None if stored.is_some() => ProbeResult::EmptyLog,
        // Nothing has been written yet, so the stream is at the end.
        None => ProbeResult::NothingNew,
    }
}

/// The last line of the log; `None` when the log has no line.
async fn read_last_line(reader: &LogReader<'_>) -> Result<Option<LastLine>, NotComparable> {
    let query = reader.log.last_line_query();
    let opened = open_log(&reader.context.cluster, &query).await;
    let mut stream = opened.map_err(|_| NotComparable)?;
    let mut decoder = LineDecoder::new(reader.context.settings.max_line);
    let mut batch = Batch::default();
    while let Some(bytes) = stream.next().await.map_err(|_| NotComparable)? {
        decoder.feed(&bytes, &mut batch);
    }
    let whole = decoder.ends_with_a_line() && decoder.stats().kubelet_messages == 0;
    let last = batch.end().map(LastLine::from);
    whole.then_some(last).ok_or(NotComparable)
}
