//! How a simulated cluster behaves: sizes, times and what it supports. Plain values.

use std::time::Duration;

use jiff::Timestamp;

/// How a simulated cluster behaves.
#[derive(Debug, Clone)]
pub struct SimSettings {
    /// Where UIDs and container IDs come from.
    pub seed: u64,
    /// What the clock shows at creation.
    pub now: Timestamp,
    /// Size at which a log file is rotated.
    pub rotate_bytes: u64,
    /// Bytes that fit between a log reader and a client that does not read: the socket buffers on the way.
    pub buffer_bytes: usize,
    /// After this long the kubelet ends a log stream.
    pub stream_lifetime: Duration,
    /// Time between two bookmarks of a watch.
    pub bookmark_interval: Duration,
    /// How long a watch lasts when the client gives no `timeoutSeconds`.
    pub watch_lifetime: Duration,
    /// Events kept for watches; older ones are compacted.
    pub history: usize,
    /// Whether `sendInitialEvents` is understood, or refused as by an older server.
    pub supports_watch_list: bool,
}

impl Default for SimSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            now: Timestamp::now(),
            rotate_bytes: 10 * 1024 * 1024,
            buffer_bytes: 256 * 1024,
            stream_lifetime: Duration::from_hours(4),
            bookmark_interval: Duration::from_mins(1),
            watch_lifetime: Duration::from_mins(30),
            history: 2_000,
            supports_watch_list: true,
        }
    }
}
