//! Watches on pods: events after a resource version, bookmarks, and an ERROR event when the history that a watch needs
//! is compacted. It reads the state and never changes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::answer::Refusal;
use super::faults::{Fault, RequestSubject};
use super::list::table_object;
use super::published::PublishedPod;
use super::route::Query;
use super::select::Selector;
use super::shared::Shared;
use super::state::{ClusterState, Event};
use super::stream::{SimBody, Source, body};

struct WatchSource {
    shared: Arc<Shared>,
    selector: Selector,
    /// All events up to this version have been sent.
    sent_version: u64,
    /// Events that are not sent yet, a line each.
    lines: VecDeque<Bytes>,
    ended: bool,
    version: Receiver<u64>,
    expires_at: Instant,
    /// When the next bookmark is due; `None` if the client wants none.
    bookmark: Option<Instant>,
    /// Whether the client wants table rows.
    table: bool,
    /// Whether the column definitions have been sent. Only the first table of a watch has them.
    columns_sent: bool,
}

/// Opens a watch.
pub(super) fn open(
    shared: &Arc<Shared>,
    selector: Selector,
    query: &Query,
    table: bool,
    subject: RequestSubject,
    faults: &[Fault],
) -> Result<Response<SimBody>, Refusal> {
    let settings = &shared.settings;
    let initial = query.flag("sendInitialEvents");
    if initial && !settings.supports_watch_list {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
                       sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let lifetime = query
        .number("timeoutSeconds")?
        .and_then(|seconds| u64::try_from(seconds).ok());
    let now = Instant::now();
    let mut watch = WatchSource {
        selector,
        sent_version: query.version()?,
        lines: VecDeque::new(),
        ended: false,
        version: shared.version.subscribe(),
        expires_at: now + lifetime.map_or(settings.watch_lifetime, Duration::from_secs),
        bookmark: query
            .flag("allowWatchBookmarks")
            .then(|| now + settings.bookmark_interval),
        table,
        columns_sent: false,
        shared: Arc::clone(shared),
    };
    watch.send_initial(initial);
    let handle = shared.faults.open(subject);
    let mut response = Response::new(body(watch, handle, faults));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

impl WatchSource {
    /// Sends the pods that exist if the client wants them. Otherwise checks that the history after its resource version
    /// is not compacted.
    fn send_initial(&mut self, initial: bool) {
        let shared = Arc::clone(&self.shared);
        let state = shared.state();
        if self.sent_version == 0 || initial {
            self.sent_version = state.version();
            for pod in state.snapshot(self.sent_version).unwrap_or_default().values() {
                if self.selector.selects(pod) {
                    self.send_pod("ADDED", pod);
                }
            }
            if initial && self.bookmark.is_some() {
                self.send_bookmark(true);
            }
        } else if self.sent_version < state.oldest() {
            self.send_expired(&state);
        }
    }

    /// Sends the next event that concerns this watch.
    fn read_history(&mut self) {
        let shared = Arc::clone(&self.shared);
        let state = shared.state();
        if self.sent_version < state.newest_compacted() {
            return self.send_expired(&state);
        }
        while let Some(event) = state.event_after(self.sent_version) {
            self.sent_version = event.version;
            if let Some((kind, pod)) = self.visible_change(event) {
                self.send_pod(kind, pod);
                return;
            }
        }
        self.sent_version = state.version();
    }

    /// The type of an event for this watch. A pod that begins to match the selector is added, one that no longer
    /// matches is deleted.
    fn visible_change<'a>(&self, event: &'a Event) -> Option<(&'static str, &'a PublishedPod)> {
        let before = event.before.as_ref().is_some_and(|pod| self.selector.selects(pod));
        let after = !event.deletion && self.selector.selects(&event.after);
        let kind = match (before, after) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some((kind, &event.after))
    }

    fn send_pod(&mut self, kind: &str, pod: &PublishedPod) {
        let line = if self.table {
            let metadata = json!({"resourceVersion": pod.version.to_string()});
            let table = table_object(&metadata, !self.columns_sent, &[pod.row(self.shared.clock.now())]);
            self.columns_sent = true;
            format!("{}\n", json!({"type": kind, "object": table})).into_bytes()
        } else {
            let mut line = format!(r#"{{"type":"{kind}","object":"#).into_bytes();
            line.extend_from_slice(&pod.json);
            line.extend_from_slice(b"}\n");
            line
        };
        self.lines.push_back(Bytes::from(line));
    }

    fn send_bookmark(&mut self, initial_end: bool) {
        let mut metadata = json!({"resourceVersion": self.sent_version.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = if self.table {
            table_object(&metadata, false, &[])
        } else {
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": null}, "status": {}})
        };
        self.send_object("BOOKMARK", &object);
    }

    fn send_expired(&mut self, state: &ClusterState) {
        self.send_object("ERROR", &Refusal::expired(self.sent_version, state.oldest()).object());
        self.ended = true;
    }

    fn send_object(&mut self, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.lines.push_back(Bytes::from(line));
    }
}

impl Source for WatchSource {
    async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.version.mark_unchanged();
            self.read_history();
            if !self.lines.is_empty() {
                continue;
            }
            let bookmark = self.bookmark.unwrap_or(self.expires_at).min(self.expires_at);
            tokio::select! {
                biased;
                changed = self.version.changed() => if changed.is_err() { return None },
                () = tokio::time::sleep_until(bookmark) => {
                    self.ended = Instant::now() >= self.expires_at;
                    if self.bookmark.is_some() {
                        self.send_bookmark(false);
                        self.bookmark = Some(bookmark + self.shared.settings.bookmark_interval);
                    }
                }
            }
        }
    }
}
