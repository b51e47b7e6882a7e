//! What is known of an open follow stream, and when something is next due for it.
//!
//! Times only: `follow_stream` does what is due.

use std::time::Duration;

use super::context::ReadSettings;
use super::log_reader::QUIET;

/// Once lines arrive, a stream must show the stored line before it pauses for this long, and within
/// [`MAX_SEARCH`] in any case.
pub(super) const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// Longest time that a stream may send lines without showing the stored line. Before it come only the lines that were
/// written in some 2 s.
const MAX_SEARCH: Duration = Duration::from_secs(10);

/// Time after the opening from which bytes show that the kubelet watches for new files. It watches only once it has
/// read the present file to its end. When the file is rotated before that, the stream stays silent until the next
/// rotation, and the file between the two is skipped. So a stream that has sent nothing since this time is probed, well
/// before the 10 s that lie between two rotations with default settings.
pub(super) const WATCH_START: Duration = Duration::from_secs(2);

/// Time that a stream of an ended instance or a deleted pod is given to end by itself after its latest bytes.
const END_WAIT: Duration = Duration::from_secs(10);

/// Number of bytes since the latest probe after which a stream is probed as soon as it falls silent. A container that
/// writes so fast may fill a file before the ordinary probe; and a stream falls silent when the node's clock is set
/// back, because the kubelet leaves out lines stamped before the time from which it was asked. 1 MiB is a tenth of the
/// usual file, and a probe costs less than to read that.
const BUSY: usize = 1024 * 1024;

/// How long a stream must stay open to count as one that is followed.
pub(super) const SETTLED: Duration = Duration::from_secs(10);

/// How far a stream has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamProgress {
    /// Whether it has shown the stored line.
    pub(super) position_found: bool,
    /// Whether lines of it wait to be written.
    pub(super) lines_to_write: bool,
}

/// What is known of an open follow stream, and when something is due. All times are of the boot clock.
pub(super) struct StreamTimers {
    /// Time at which the stream was opened or the latest bytes arrived.
    pub(super) last_bytes_at: Duration,
    /// For how long the stream was not read since then.
    pub(super) unread_for: Duration,
    /// Whether the next line shows whether the lines after a silence are late.
    pub(super) checks_delay: bool,
    /// Number of probes in a row that did not show whether the kubelet watches for new files.
    pub(super) unclear_probes: u32,
    /// Time at which the stream is closed and opened again.
    pub(super) reopen_at: Duration,
    /// Whether only the end of the stream is awaited, because the log may not be opened again.
    pub(super) awaits_end: bool,
    /// Time at which the stream is compared with the last line of the log, unless bytes arrive before.
    pub(super) probe_at: Duration,
    /// Time from which bytes show that the kubelet watches for new files.
    pub(super) watches_files_from: Duration,
    /// Whether the kubelet is known to watch for new files.
    pub(super) watches_files: bool,
    /// Time at which the stream is closed because it has not sent a new file that is there, unless bytes arrive
    /// before.
    pub(super) new_file_missed_at: Option<Duration>,
    /// Time at which the log counts as followed.
    pub(super) settled_at: Option<Duration>,
    /// Time at which the taken lines are written.
    pub(super) flush_at: Option<Duration>,
    /// Time at which the stream is closed unless it has shown the stored line.
    pub(super) search_ends_at: Option<Duration>,
    /// Time after which the stream is closed unless it has shown the stored line, even if lines keep arriving.
    search_limit_at: Option<Duration>,
    /// Number of bytes since the latest probe.
    pub(super) bytes_since_probe: usize,
    /// Time at which the stream counts as mute, unless the line that a probe found arrives before.
    pub(super) mute_at: Option<Duration>,
}

impl StreamTimers {
    /// The timers of a stream that is opened `now`.
    pub(super) fn new(now: Duration, settings: &ReadSettings, expects_new_file: bool) -> Self {
        let watches_files_from = now + WATCH_START;
        Self {
            last_bytes_at: now,
            unread_for: Duration::ZERO,
            checks_delay: false,
            unclear_probes: 0,
            reopen_at: now + settings.reopen.mul_f64(0.75 + 0.25 * fastrand::f64()),
            awaits_end: false,
            // Some time after `watches_files_from`, so that a busy stream needs no probe.
            probe_at: watches_files_from + SEARCH_PAUSE,
            watches_files_from,
            // An empty file is read to its end at once.
            watches_files: expects_new_file,
            new_file_missed_at: None,
            bytes_since_probe: 0,
            settled_at: Some(now + SETTLED),
            flush_at: None,
            search_ends_at: None,
            search_limit_at: None,
            mute_at: None,
        }
    }

    /// The earliest time at which something is due.
    pub(super) fn next(&self) -> Duration {
        let optional = [
            self.settled_at,
            self.flush_at,
            self.search_ends_at,
            self.mute_at,
            self.new_file_missed_at,
        ];
        let soonest = self.reopen_at.min(self.probe_at);
        optional.into_iter().flatten().fold(soonest, Duration::min)
    }

    /// From now on only the end of the stream is awaited.
    pub(super) fn await_end(&mut self, now: Duration) {
        self.awaits_end = true;
        self.reopen_at = self.reopen_at.min(now + END_WAIT);
        (self.probe_at, self.mute_at, self.new_file_missed_at) = (Duration::MAX, None, None);
    }

    /// Sets what is due after this many bytes arrived `now`.
    pub(super) fn record_bytes(
        &mut self,
        now: Duration,
        bytes: usize,
        progress: StreamProgress,
        settings: &ReadSettings,
    ) {
        self.bytes_since_probe += bytes;
        if now >= self.watches_files_from && !self.awaits_end {
            self.watches_files = true;
            let busy = self.bytes_since_probe >= BUSY;
            self.probe_at = now + if busy { QUIET } else { settings.probe };
        }
        (self.mute_at, self.new_file_missed_at) = (None, None);
        if self.awaits_end {
            // The log of a deleted pod can be read only through this stream.
            self.reopen_at = now + END_WAIT;
        }
        if progress.position_found {
            self.search_ends_at = None;
        } else {
            let limit = *self.search_limit_at.get_or_insert(now + MAX_SEARCH);
            self.search_ends_at = Some(limit.min(now + SEARCH_PAUSE));
        }
        if progress.lines_to_write {
            self.flush_at.get_or_insert(shared_flush_time(now, settings.chunk_age));
        }
    }
}

/// When a chunk that begins now is written: half an `age` to one and a half from now, at a multiple of `age`. All
/// streams have these times in common, so that their chunks share a request and the process wakes once for all.
fn shared_flush_time(now: Duration, age: Duration) -> Duration {
    let (least, step) = ((now + age / 2).as_micros(), age.as_micros().max(1));
    Duration::from_micros(u64::try_from(least.div_ceil(step) * step).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_written_at_common_times_within_half_an_age_of_their_own() {
        let age = Duration::from_millis(200);
        for millis in [0, 1, 99, 100, 101, 199] {
            let now = Duration::from_millis(1_000 + millis);
            let at = shared_flush_time(now, age);
            assert_eq!(at.as_millis() % 200, 0, "{millis}");
            assert!(at >= now + age / 2 && at <= now + age * 3 / 2, "{millis}: {at:?}");
        }
    }
}
