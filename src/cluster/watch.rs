//! The pods of one namespace, or of all: listed, then watched, and listed again when necessary.
//!
//! A watch that ends or breaks continues from the resource version that it had reached. All pods are listed again when
//! the server no longer has that version, or when watching does not work. So where only listing works, the pods are
//! polled. A watcher ends only when it is dropped.

use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Resource;
use kube::api::{WatchEvent, WatchParams};
use tokio::time::Instant;

use super::client::{Cluster, HEADERS_DEADLINE};
use super::convert::{SharedNames, convert_selected};
use super::error::ApiError;
use super::events::watch_events;
use super::list::{self, PodList};
use super::operation::Operation;
use super::pod_cache::PodCache;
use super::select::Scope;
use crate::clock;
use crate::domain::ListFailure;
use crate::domain::backoff::Backoff;

/// A page of 500 pods; the server itself gives up after 60 s.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// The longest time that the server keeps a watch open, in seconds; up to a fifth is subtracted at random. kube allows
/// at most 295.
const WATCH_SECONDS: u32 = 290;
/// The longest time without any event, over one watch or several. Bookmarks come about once a minute, so that is 2.5
/// missed ones.
const SILENCE: Duration = Duration::from_secs(150);
/// After this time without an event the API server is asked for its version: a watch without events does not show whether
/// the server answers. HTTP/2 has pings, but HTTP/1.1 has none, and a proxy may answer them itself.
const ASK_AFTER: Duration = Duration::from_secs(20);
/// The wait after the first failure. It doubles up to the poll interval.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A watch that was open this long counts as working, whatever ended it.
const WORKING_AFTER: Duration = Duration::from_secs(5);

/// Why a watch cannot continue.
enum WatchEnd {
    /// The server no longer has the resource version that the watch had reached.
    Expired,
    /// Another error.
    Failed(ApiError),
}

/// How one watch ended.
enum ReadEnd {
    /// The server ended it in order.
    Ended,
    /// There was no event for too long. The server may not know the resource version at all, as after it was restored from a
    /// backup, so only a list shows what there is.
    Silent,
    Failed(ApiError),
}

impl From<ApiError> for WatchEnd {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Gone => Self::Expired,
            error => Self::Failed(error),
        }
    }
}

/// Follows the pods of one namespace or of all.
pub(super) struct Watcher<'a> {
    cluster: &'a Cluster,
    scope: &'a Scope,
    cache: &'a PodCache,
    /// The namespace; `None` is all.
    namespace: Option<&'a str>,
    names: SharedNames,
    backoff: Backoff,
    /// Since when the pods cannot be watched, and the error that was logged last, so that it is logged once.
    failing: Option<(Instant, String)>,
    /// Whether it was checked that the namespace exists.
    namespace_checked: bool,
    /// Whether `/status` and the metrics show that the pods cannot be listed.
    failure_shown: bool,
    /// When the server last sent a list or an event.
    last_news: Instant,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(cluster: &'a Cluster, scope: &'a Scope, cache: &'a PodCache, namespace: Option<&'a str>) -> Self {
        Self {
            cluster,
            scope,
            cache,
            namespace,
            names: SharedNames::default(),
            backoff: Backoff::new(FIRST_WAIT.min(scope.poll_interval), scope.poll_interval),
            failing: None,
            namespace_checked: false,
            failure_shown: false,
            last_news: Instant::now(),
        }
    }

    /// Lists and watches until it is dropped.
    pub(super) async fn run(mut self) {
        // Whether the latest watch that expired had worked before.
        let mut last_watch_worked = true;
        loop {
            let (end, watch_worked) = match self.list().await {
                Ok(version) => self.watch(version).await,
                Err(error) => {
                    self.show_failure(&error);
                    (error.into(), false)
                }
            };
            match end {
                // Lists at once, unless the watch before did not work either.
                WatchEnd::Expired if watch_worked || last_watch_worked => last_watch_worked = watch_worked,
                WatchEnd::Expired => self.pause(&ApiError::Gone).await,
                WatchEnd::Failed(error) => self.pause(&error).await,
            }
        }
    }

    /// Lets `/status` and the metrics show why the pods cannot be listed.
    fn show_failure(&mut self, error: &ApiError) {
        let failure = ListFailure {
            forbidden: matches!(error, ApiError::Forbidden(_)),
            message: error.message(),
            since: clock::wall(),
        };
        self.cache.on_list_failed(self.namespace, failure);
        self.failure_shown = true;
    }

    fn warn_once(&mut self, error: &ApiError) {
        let text = error.to_string();
        let namespace = self.namespace.unwrap_or("(all)");
        if self.failing.as_ref().is_some_and(|(_, logged)| *logged == text) {
            tracing::debug!(namespace, error = %text, "the pods still cannot be watched");
        } else {
            tracing::warn!(namespace, error = %text, "the pods cannot be watched; trying again");
            let since = self.failing.take().map_or_else(Instant::now, |(since, _)| since);
            self.failing = Some((since, text));
        }
    }

    async fn pause(&mut self, error: &ApiError) {
        self.warn_once(error);
        let mut wait = self.backoff.next_wait(fastrand::f64());
        if let ApiError::Throttled { after } = error {
            wait = wait.max(*after);
        }
        tokio::time::sleep(wait).await;
    }

    /// The watch works: there was an event, or the server answered.
    fn record_success(&mut self) {
        self.backoff.reset();
        if self.failure_shown {
            self.failure_shown = false;
            self.cache.on_answered(self.namespace);
        }
        if let Some((since, _)) = self.failing.take() {
            let seconds = since.elapsed().as_secs();
            let namespace = self.namespace.unwrap_or("(all)");
            tracing::info!(namespace, seconds, "the pods are watched again");
        }
    }

    fn request(&self) -> kube::core::Request {
        kube::core::Request::new(ApiPod::url_path(&(), self.namespace))
    }

    fn operation(&self, verb: &'static str) -> Operation<'a> {
        Operation {
            verb,
            resource: "pods",
            namespace: self.namespace,
        }
    }

    /// Lists all pods, puts them into the cache and returns the resource version to watch from.
    async fn list(&mut self) -> Result<String, ApiError> {
        let listing = list::list(self.cluster, self.scope, self.namespace, &mut self.names, LIST_DEADLINE);
        let PodList { pods, version } = listing.await?;
        if pods.is_empty() {
            self.check_namespace().await;
        }
        self.cache.replace(self.namespace, pods);
        self.failure_shown = false;
        self.last_news = Instant::now();
        Ok(version)
    }

    /// Warns once when the namespace does not exist: the API server lists no pods for it, without an error.
    async fn check_namespace(&mut self) {
        let Some(name) = self.namespace.filter(|_| !self.namespace_checked) else {
            return;
        };
        self.namespace_checked = true;
        // Any error, such as a missing right, leaves it unknown.
        if let Ok(false) = self.cluster.has_namespace(name).await {
            tracing::warn!(
                namespace = name,
                "the namespace does not exist; its pods are collected once it is created"
            );
        }
    }

    /// Watches from a resource version on. Returns why it cannot continue, and whether watching worked.
    async fn watch(&mut self, mut version: String) -> (WatchEnd, bool) {
        let mut worked = false;
        loop {
            let request = self.request().watch(&self.params(), &version);
            let request = match request {
                Ok(request) => request,
                Err(error) => return (ApiError::rejected(error).into(), worked),
            };
            let opening = watch_events(self.cluster, request);
            let sent = self.cluster.send(self.operation("watch"), HEADERS_DEADLINE, opening);
            let stream = match sent.await {
                Ok(stream) => stream,
                Err(error) => return (error.into(), worked),
            };
            let opened = Instant::now();
            let (end, had_event) = self.read(stream, &mut version).await;
            let worked_now = had_event || opened.elapsed() >= WORKING_AFTER;
            worked |= worked_now;
            match end {
                ReadEnd::Failed(ApiError::Gone) => return (WatchEnd::Expired, worked),
                ReadEnd::Silent => {
                    tracing::debug!(version, "a watch was silent for long; listing again");
                    return (WatchEnd::Expired, worked);
                }
                ReadEnd::Failed(error) if !worked_now => return (error.into(), worked),
                ReadEnd::Ended if !worked_now => {
                    return (ApiError::unavailable("the watch ended at once").into(), worked);
                }
                ReadEnd::Failed(error) => {
                    tracing::debug!(%error, "a watch broke; it continues from the version it had reached");
                    tokio::time::sleep(self.backoff.next_wait(fastrand::f64())).await;
                }
                ReadEnd::Ended if opened.elapsed() < WORKING_AFTER => {
                    tokio::time::sleep(self.backoff.next_wait(fastrand::f64())).await;
                }
                ReadEnd::Ended => {}
            }
        }
    }

    fn params(&self) -> WatchParams {
        WatchParams {
            label_selector: self.scope.labels.clone(),
            field_selector: self.scope.fields.clone(),
            // Random, so that watches that began together do not end together.
            timeout: Some(fastrand::u32(WATCH_SECONDS * 4 / 5..=WATCH_SECONDS)),
            bookmarks: true,
            ..WatchParams::default()
        }
    }

    /// Reads one watch to its end. Returns how it ended, and whether there was any event.
    async fn read(
        &mut self,
        stream: impl Stream<Item = Result<WatchEvent<ApiPod>, kube::Error>>,
        version: &mut String,
    ) -> (ReadEnd, bool) {
        let mut stream = std::pin::pin!(stream);
        let mut had_event = false;
        let mut ask_at = Instant::now() + ASK_AFTER;
        loop {
            let event = tokio::select! {
                biased;
                event = stream.next() => event,
                () = tokio::time::sleep_until(self.last_news + SILENCE) => return (ReadEnd::Silent, had_event),
                () = tokio::time::sleep_until(ask_at) => {
                    self.ask_server().await;
                    ask_at = Instant::now() + ASK_AFTER;
                    continue;
                }
            };
            let Some(event) = event else {
                return (ReadEnd::Ended, had_event);
            };
            let applied = match event {
                Ok(event) => self.apply(event, version),
                Err(error) => Err(self.operation("watch").failed(error)),
            };
            if let Err(error) = applied {
                return (ReadEnd::Failed(error), had_event);
            }
            had_event = true;
            self.last_news = Instant::now();
            ask_at = self.last_news + ASK_AFTER;
            self.record_success();
        }
    }

    /// Shows whether the server answers at all. The watch goes on either way: more lists would not help a server that is
    /// overloaded.
    async fn ask_server(&mut self) {
        match self.cluster.version().await {
            Err(error @ ApiError::Unavailable(_)) => {
                self.show_failure(&error);
                self.warn_once(&error);
            }
            // A refusal is an answer too.
            _ => self.record_success(),
        }
    }

    fn apply(&mut self, event: WatchEvent<ApiPod>, version: &mut String) -> Result<(), ApiError> {
        let (pod, deleted) = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
            WatchEvent::Deleted(pod) => (pod, true),
            WatchEvent::Bookmark(mark) => {
                *version = mark.metadata.resource_version;
                return Ok(());
            }
            WatchEvent::Error(status) => return Err(self.operation("watch").failed(kube::Error::Api(status))),
        };
        if let Some(reached) = &pod.metadata.resource_version {
            version.clone_from(reached);
        }
        let Some(uid) = pod.metadata.uid.clone() else {
            return Ok(());
        };
        let selection = &self.scope.selection;
        let selected = (!deleted).then(|| convert_selected(selection, pod, &mut self.names));
        // A pod that is no longer selected leaves the set like a deleted one.
        match selected.flatten() {
            Some(pod) => self.cache.put(pod),
            None => self.cache.remove(&uid.into()),
        }
        Ok(())
    }
}
