//! Why a read of a log ended.
//!
//! A list of reasons: `instance` decides what to do after each.

use std::time::Duration;

/// Why a read of a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// The log ended without an error, and its place was found.
    EndOfLog,
    /// The log ended without an error and without a line, although lines of the instance are stored.
    EmptyLog,
    /// The stored line was not found; the next read searches in another way.
    PositionNotFound,
    /// The connection failed, or the answer could not be checked.
    Broken,
    /// The API server asks not to be called again for this long.
    RetryAfter(Duration),
    /// The kubelet answers that it does not have the log, or the API server refuses to serve it.
    Refused,
    /// The container has started another instance, so this one's log is now the previous log of the container.
    InstanceChanged,
    /// The pod's status no longer names the instance, so the log that was opened may be another's.
    InstanceUnknown,
    /// The pod is deleted.
    PodDeleted,
    /// Closed because a write to the sink took too long, and the stream was not read meanwhile.
    SlowSink,
    /// Closed because the API server took too long to answer, and the stream was not read meanwhile.
    SlowApi,
    /// Closed because the process was paused, and the stream was not read meanwhile.
    ProcessPaused,
    /// Closed because lines arrived so late that the kubelet may have skipped a file after them.
    LateLines,
    /// Closed on schedule, or because the log was rotated while the stream was silent.
    Reopen,
    /// Closed because the log has lines that the stream does not send.
    Mute,
    /// No stream may be opened now; the log is read again after this long.
    NoStreamFree(Duration),
    /// The task was asked to stop.
    Stopped,
    /// The sink refuses to store under this claim.
    Fenced,
}

impl ReadEnd {
    /// The `reason` of the metric `podlog_stream_ends_total`; `None` when no stream was open.
    pub(super) fn as_str(self) -> Option<&'static str> {
        let reason = match self {
            Self::EndOfLog | Self::EmptyLog => "end",
            Self::PositionNotFound => "position_not_found",
            Self::Broken | Self::Refused | Self::RetryAfter(_) => "broken",
            Self::InstanceChanged => "instance_changed",
            Self::InstanceUnknown => "instance_unknown",
            Self::PodDeleted => "pod_deleted",
            Self::SlowSink => "slow_sink",
            Self::SlowApi => "slow_api",
            Self::ProcessPaused => "process_paused",
            Self::LateLines => "late_lines",
            Self::Reopen => "reopen",
            Self::Mute => "mute",
            Self::NoStreamFree(_) => return None,
            Self::Stopped => "stopped",
            Self::Fenced => "fenced",
        };
        Some(reason)
    }
}
