//! What all tasks that follow pods share: the API server, the sink, limits, clocks and settings.
//!
//! Handles and values only: nothing here reads a log or writes a record.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::cluster::{Cluster, StreamLimiter};
use crate::metrics::Metrics;
use crate::sinks::Sink;
use crate::unread::UnreadLogs;

use super::stall_detector::StallDetector;

/// What all tasks that follow pods share.
#[derive(Clone, Debug)]
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// Limits the number of open streams and the rate at which streams are opened.
    pub limiter: StreamLimiter,
    /// Where records go.
    pub sink: Arc<dyn Sink>,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// The clock of deadlines.
    pub clock: Clock,
    /// Tells whether the process was paused.
    pub stall_detector: StallDetector,
    /// The logs that cannot be read now.
    pub unread: UnreadLogs,
    /// Sizes and times of reading.
    pub settings: ReadSettings,
}

/// Sizes and times of reading.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// Longest line in bytes; longer lines are cut and marked.
    pub max_line: usize,
    /// Number of bytes after which a chunk is written.
    pub chunk_bytes: usize,
    /// Time after which a chunk is written, whatever its size.
    pub chunk_age: Duration,
    /// Longest time that a stream stays open before it is opened again. Far below the kubelet's limit of 4 h.
    pub reopen: Duration,
    /// Time without a line after which a stream is compared with the last line of the log.
    pub probe: Duration,
    /// Interval at which a log is read when no stream may be kept open.
    pub poll: Duration,
}
