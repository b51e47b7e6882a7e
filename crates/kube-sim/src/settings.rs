//! The settings of a simulated cluster: sizes, times and supported features. Plain values.

use std::time::Duration;

use jiff::Timestamp;

/// The settings of a simulated cluster.
#[derive(Debug, Clone)]
pub struct SimSettings {
    /// The seed of UIDs and container IDs.
    pub seed: u64,
    /// The time on the cluster's clock when the cluster is created.
    pub now: Timestamp,
    /// The size at which a log file is rotated.
    pub rotate_bytes: u64,
    /// How many bytes are buffered for a client that does not read a log stream, as in socket buffers.
    pub buffer_bytes: usize,
    /// The time after which the kubelet ends a log stream.
    pub stream_lifetime: Duration,
    /// The time between two bookmarks of a watch.
    pub bookmark_interval: Duration,
    /// How long a watch lasts if the client sends no `timeoutSeconds`.
    pub watch_lifetime: Duration,
    /// How many events are kept for watches. Older events are compacted.
    pub history: usize,
    /// Whether the server supports `sendInitialEvents`. Older servers refuse it.
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
