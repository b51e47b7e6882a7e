//! The pods of one namespace, or of all: listed, then watched, then listed again when need be.
//!
//! A watch that ends or breaks goes on from the version it had reached. When the server no longer
//! has that version, or watching does not work at all, everything is listed again; so where only
//! listing works the pods are still known, by polling. This part ends only by being dropped.

use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Resource;
use kube::api::{WatchEvent, WatchParams};
use tokio::time::Instant;

use super::convert::Names;
use super::discover::Board;
use super::failure::{ApiError, Asked};
use super::look::wanted;
use super::select::Scope;
use super::{Cluster, HEADERS_DEADLINE, LIST_DEADLINE};
use crate::domain::Pod;
use crate::domain::backoff::Backoff;

/// How long the server keeps a watch open, in seconds, less up to a fifth. kube allows 295.
const WATCH_SECONDS: u32 = 290;
/// Bookmarks come about once a minute: two and a half missed ones, and the watch counts as dead.
const SILENCE: Duration = Duration::from_secs(150);
/// The wait after a first failure; it doubles up to the poll interval.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A watch that lived this long works, whatever ends it.
const LIVED: Duration = Duration::from_secs(5);

/// Follows the pods of one namespace or of all.
pub(super) struct Watcher<'a> {
    cluster: &'a Cluster,
    scope: &'a Scope,
    board: &'a Board,
    /// The namespace; `None` is all.
    namespace: Option<&'a str>,
    /// The watcher's place on the board.
    index: usize,
    names: Names,
    backoff: Backoff,
    /// The failure that was logged, so that it is logged once.
    warned: Option<String>,
    /// Whether the namespace was looked for.
    sought: bool,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        scope: &'a Scope,
        board: &'a Board,
        namespace: Option<&'a str>,
        index: usize,
    ) -> Self {
        Self {
            cluster,
            scope,
            board,
            namespace,
            index,
            names: Names::default(),
            backoff: Backoff::new(FIRST_WAIT.min(scope.poll_interval), scope.poll_interval),
            warned: None,
            sought: false,
        }
    }

    /// Lists and watches for ever.
    pub(super) async fn run(mut self) {
        let mut listed_for_nothing = false;
        loop {
            let end = match self.list().await {
                Ok(version) => self.watch(version).await,
                Err(error) => (error, false),
            };
            match end {
                // At once, unless the list before this one was in vain too.
                (ApiError::Gone, worked) if worked || !listed_for_nothing => listed_for_nothing = !worked,
                (error, _) => self.pause(&error).await,
            }
        }
    }

    async fn pause(&mut self, error: &ApiError) {
        let text = error.to_string();
        let namespace = self.namespace.unwrap_or("(all)");
        if self.warned.as_ref() == Some(&text) {
            tracing::debug!(namespace, error = %text, "the pods still cannot be watched");
        } else {
            tracing::warn!(namespace, error = %text, "the pods cannot be watched; trying again");
            self.warned = Some(text);
        }
        let mut wait = self.backoff.wait(fastrand::f64());
        if let ApiError::Throttled { after } = error {
            wait = wait.max(*after);
        }
        tokio::time::sleep(wait).await;
    }

    fn works(&mut self) {
        self.backoff.reset();
        if self.warned.take().is_some() {
            tracing::info!(
                namespace = self.namespace.unwrap_or("(all)"),
                "the pods are watched again"
            );
        }
    }

    fn request(&self) -> kube::core::Request {
        kube::core::Request::new(ApiPod::url_path(&(), self.namespace))
    }

    fn asked(&self, verb: &'static str) -> Asked<'a> {
        Asked {
            verb,
            resource: "pods",
            namespace: self.namespace,
        }
    }

    /// Lists all pages, puts them on the board and answers with the version to watch from.
    async fn list(&mut self) -> Result<String, ApiError> {
        let (scope, names) = (self.scope, &mut self.names);
        let listing = self.cluster.pages(scope, self.namespace, names, LIST_DEADLINE);
        let (pods, version) = listing.await?;
        if pods.is_empty() {
            self.seek_namespace().await;
        }
        self.board.replace(self.index, self.namespace, pods);
        self.names.sweep();
        Ok(version)
    }

    /// The API server lists no pods for a namespace that does not exist, without an error.
    async fn seek_namespace(&mut self) {
        let Some(name) = self.namespace.filter(|_| !self.sought) else {
            return;
        };
        self.sought = true;
        // Without the right to look there is nothing to say.
        if let Ok(false) = self.cluster.has_namespace(name).await {
            tracing::warn!(
                namespace = name,
                "there is no such namespace; its pods are collected once it is created"
            );
        }
    }

    fn wanted(&mut self, pod: ApiPod) -> Option<Pod> {
        wanted(self.scope, pod, &mut self.names)
    }

    /// Watches from a version on. Answers with why it cannot go on, and whether it brought anything.
    async fn watch(&mut self, mut version: String) -> (ApiError, bool) {
        let mut worked = false;
        loop {
            let request = self.request().watch(&self.params(), &version);
            let request = match request {
                Ok(request) => request,
                Err(error) => return (ApiError::Rejected(error.to_string()), worked),
            };
            let opening = self.cluster.events(request);
            let stream = match self.cluster.ask(self.asked("watch"), HEADERS_DEADLINE, opening).await {
                Ok(stream) => stream,
                Err(error) => return (error, worked),
            };
            let opened = Instant::now();
            let (end, brought) = self.read(stream, &mut version).await;
            let fine = brought || opened.elapsed() >= LIVED;
            worked |= fine;
            match end {
                Some(ApiError::Gone) => return (ApiError::Gone, worked),
                Some(error) if !fine => return (error, worked),
                None if !fine => return (ApiError::Unavailable("the watch ended at once".into()), worked),
                Some(error) => {
                    tracing::debug!(%error, "a watch broke; it goes on from where it was");
                    tokio::time::sleep(self.backoff.wait(fastrand::f64())).await;
                }
                None if opened.elapsed() < LIVED => tokio::time::sleep(self.backoff.wait(fastrand::f64())).await,
                None => {}
            }
        }
    }

    fn params(&self) -> WatchParams {
        WatchParams {
            label_selector: self.scope.labels.clone(),
            field_selector: self.scope.fields.clone(),
            // Spread out, so that watches that began together do not end together.
            timeout: Some(fastrand::u32(WATCH_SECONDS * 4 / 5..=WATCH_SECONDS)),
            bookmarks: true,
            ..WatchParams::default()
        }
    }

    /// Reads one watch to its end: the error, if that ended it, and whether it brought anything.
    async fn read(
        &mut self,
        stream: impl Stream<Item = Result<WatchEvent<ApiPod>, kube::Error>>,
        version: &mut String,
    ) -> (Option<ApiError>, bool) {
        let mut stream = std::pin::pin!(stream);
        let mut brought = false;
        loop {
            let event = match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => return (None, brought),
                Err(_) => {
                    let text = format!("the watch was silent for {} s", SILENCE.as_secs());
                    return (Some(ApiError::Unavailable(text)), brought);
                }
            };
            let applied = match event {
                Ok(event) => self.apply(event, version),
                Err(error) => Err(self.asked("watch").failed(error)),
            };
            if let Err(error) = applied {
                return (Some(error), brought);
            }
            brought = true;
            self.works();
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
            WatchEvent::Error(status) => return Err(self.asked("watch").failed(kube::Error::Api(status))),
        };
        if let Some(reached) = &pod.metadata.resource_version {
            version.clone_from(reached);
        }
        let Some(uid) = pod.metadata.uid.clone() else {
            return Ok(());
        };
        // A pod that is no longer wanted leaves the set as one that was deleted does.
        match (!deleted).then(|| self.wanted(pod)).flatten() {
            Some(pod) => self.board.put(pod),
            None => self.board.remove(&uid.into()),
        }
        Ok(())
    }
}
