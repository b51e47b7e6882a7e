//! One rule for logs that are not read: a cause is said once when it begins and once when it is over, it is counted by
//! reason, and `/status` shows it beside each container.
//!
//! Tasks that read logs report here; nothing here reads a log or decides when one is read again.

mod reason;
mod table;

use std::sync::{Arc, Mutex};

use crate::clock::{self, Clock};
use crate::domain::{Message, Pod, PodUid};
use crate::metrics::{Metrics, Reason};
use crate::sync::lock;
pub use reason::{Place, UnreadReason};
pub use table::{LogKey, Moment, Saying, UnreadLog, UnreadTable};

/// The logs of this replica that are not read now. Clones share them.
#[derive(Clone, Debug)]
pub struct UnreadLogs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<UnreadTable>,
    clock: Clock,
    metrics: Metrics,
}

impl UnreadLogs {
    /// All logs are read.
    #[must_use]
    pub fn new(clock: Clock, metrics: Metrics) -> Self {
        for reason in UnreadReason::ALL {
            // A series that is there from the beginning shows that nothing is unread.
            metrics.streams_unread.get_or_create(&label(reason)).set(0);
        }
        Self(Arc::new(Shared {
            table: Mutex::default(),
            clock,
            metrics,
        }))
    }

    /// The state of one log. Until it is dropped, it is told what becomes of the log.
    #[must_use]
    pub fn log(&self, uid: PodUid, container: Arc<str>) -> LogState {
        LogState {
            logs: self.clone(),
            key: LogKey { uid, container },
        }
    }

    /// The containers of a pod that are not read.
    #[must_use]
    pub fn of_pod(&self, uid: &PodUid) -> Vec<(Arc<str>, UnreadLog)> {
        let table = lock(&self.0.table);
        let logs = table.of_pod(uid);
        logs.map(|(container, log)| (container.clone(), log.clone())).collect()
    }

    fn count(&self, before: Option<UnreadReason>, after: Option<UnreadReason>) {
        if before != after {
            let gauge = |reason| self.0.metrics.streams_unread.get_or_create(&label(reason)).clone();
            before.map(|reason| gauge(reason).dec());
            after.map(|reason| gauge(reason).inc());
        }
    }
}

/// Whether one log is read. When it is dropped, the log is not to be read any more.
#[derive(Debug)]
pub struct LogState {
    logs: UnreadLogs,
    key: LogKey,
}

impl LogState {
    /// The log could not be read.
    pub fn unread(&self, pod: &Pod, reason: UnreadReason, message: Message) {
        let at = Moment {
            now: self.logs.0.clock.now(),
            wall: clock::wall(),
        };
        let cause = (reason, reason.place(pod));
        let mut table = lock(&self.logs.0.table);
        let before = table.get(&self.key).map(|log| log.reason);
        let saying = table.report(&self.key, cause, message, at);
        self.logs.count(before, Some(reason));
        drop(table);
        if let Some(saying) = saying {
            self.say(&saying);
        }
    }

    /// The log was read. That streams of it end at once is another matter: see [`followed`](Self::followed).
    pub fn read(&self) {
        self.clear_unless(Some(UnreadReason::NotFollowed));
    }

    /// The log is followed, or there is nothing to read.
    pub fn followed(&self) {
        self.clear_unless(None);
    }

    fn clear_unless(&self, kept: Option<UnreadReason>) {
        let mut table = lock(&self.logs.0.table);
        let before = table.get(&self.key).map(|log| log.reason);
        if before.is_none() || before == kept {
            return;
        }
        let over = table.clear(&self.key, self.logs.0.clock.now());
        self.logs.count(before, None);
        drop(table);
        for saying in &over {
            self.say(saying);
        }
    }

    fn say(&self, saying: &Saying) {
        match saying {
            Saying::Begins(reason, place, message) => {
                let (reason, container) = (reason.as_str(), &*self.key.container);
                tracing::warn!(%place, reason, container, uid = %self.key.uid,
                    "a log is not read: {message}; this is said once for all logs of {place}, and /status names each of them");
            }
            Saying::Over(reason, place, lasted) => {
                let (reason, seconds) = (reason.as_str(), lasted.as_secs());
                tracing::info!(%place, reason, seconds, "this replica has no log of {place} any more that is unread for this reason");
            }
        }
    }
}

impl Drop for LogState {
    fn drop(&mut self) {
        self.followed();
    }
}

fn label(reason: UnreadReason) -> Reason {
    Reason {
        reason: reason.as_str(),
    }
}
