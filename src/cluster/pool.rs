//! The HTTP client under both kube clients: a small pool of HTTP/2 connections.
//!
//! hyper queues a request beyond the server's limit of streams silently, and because follow streams
//! do not end, for ever. So the streams of each connection are counted here, and one more than
//! allowed opens another connection. Where HTTP/2 is not to be had, each request gets an HTTP/1.1
//! connection of its own. Nothing here repeats a request that may have reached the server, and
//! nothing limits the rate; proxies are not supported.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tower::BoxError;

use super::connect::{Dialer, Dialled, Peer, Sent, chain};
use super::failure::Failure;
use super::tasks::Tasks;

/// Streams on one connection, as many as an API server allows by default; fewer if it says so.
const STREAMS: usize = 100;
/// Connections tried for one request before giving up. Only requests that were never sent are tried
/// again: the connection had closed, or had been told to go away, a moment before.
const TRIES: usize = 3;

/// How many connections so many log streams and watches take. Lists and watches have a pool of their own, and
/// beside the open streams others are read to their end, for which one more connection is counted.
#[must_use]
pub fn connections(streams: usize, watches: usize, http2: bool) -> usize {
    if !http2 {
        return streams + watches + 2;
    }
    (streams + 1).div_ceil(STREAMS).max(1) + (watches + 1).div_ceil(STREAMS)
}

/// The pool. Cloning shares it; its connections end when the last clone and the last response go.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    lines: Mutex<Vec<Arc<Line>>>,
    /// One at a time connects; the others wait and find room on the new connection.
    dialing: tokio::sync::Mutex<()>,
    /// How many attempts have failed, and the latest reason: who waited meanwhile fails with it.
    failed: Mutex<(u64, Option<Failure>)>,
    /// The server chose HTTP/1.1 last time, so connections are made side by side.
    http1: AtomicBool,
    tasks: Tasks,
}

/// One HTTP/2 connection.
struct Line {
    sender: http2::SendRequest<Sent>,
    open: AtomicUsize,
    limit: Arc<AtomicUsize>,
    retired: AtomicBool,
}

impl Line {
    fn usable(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    fn room(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed)
    }
}

/// A place on a connection, given back when dropped.
struct Slot {
    line: Arc<Line>,
    pool: Arc<Inner>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut lines = self.pool.lines();
        // Counted under the lock that hands places out, so that the two never disagree.
        let left = self.line.open.fetch_sub(1, Ordering::Relaxed) - 1;
        let other = |line: &Arc<Line>| !Arc::ptr_eq(line, &self.line) && line.usable() && line.room();
        if left == 0 && lines.iter().any(other) {
            lines.retain(|line| !Arc::ptr_eq(line, &self.line));
        }
    }
}

enum Way {
    Two(Slot),
    One(http1::SendRequest<Sent>),
}

impl Inner {
    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, (u64, Option<Failure>)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// A pool that has no connection yet.
    pub(super) fn new(dialer: Dialer) -> Self {
        Self(Arc::new(Inner {
            dialer,
            lines: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
            http1: AtomicBool::new(false),
            tasks: Tasks::default(),
        }))
    }

    /// A place on the first connection that has one, so that the later ones empty and close.
    fn free(&self) -> Option<Slot> {
        let mut lines = self.0.lines();
        lines.retain(|line| line.usable());
        let line = lines.iter().find(|line| line.room())?;
        Some(self.take(line))
    }

    /// The caller holds the lock on the lines.
    fn take(&self, line: &Arc<Line>) -> Slot {
        line.open.fetch_add(1, Ordering::Relaxed);
        Slot {
            line: Arc::clone(line),
            pool: Arc::clone(&self.0),
        }
    }

    async fn way(&self) -> Result<Way, Failure> {
        if let Some(slot) = self.free() {
            return Ok(Way::Two(slot));
        }
        if self.0.http1.load(Ordering::Relaxed) {
            return self.dial().await;
        }
        let seen = self.0.failures().0;
        let _turn = self.0.dialing.lock().await;
        if let Some(slot) = self.free() {
            return Ok(Way::Two(slot));
        }
        if let (count, Some(why)) = &*self.0.failures()
            && *count != seen
        {
            return Err(why.clone());
        }
        self.dial().await
    }

    async fn dial(&self) -> Result<Way, Failure> {
        match self.0.dialer.dial(&self.0.tasks).await {
            Ok(Dialled::One(sender)) => {
                self.0.http1.store(true, Ordering::Relaxed);
                Ok(Way::One(sender))
            }
            Ok(Dialled::Two(sender, peer)) => {
                self.0.http1.store(false, Ordering::Relaxed);
                let limit = Arc::new(AtomicUsize::new(allowed(&peer)));
                let line = Arc::new(Line {
                    sender,
                    open: AtomicUsize::new(0),
                    limit: Arc::clone(&limit),
                    retired: AtomicBool::new(false),
                });
                self.0.tasks.run(drive(peer, limit));
                let mut lines = self.0.lines();
                lines.push(Arc::clone(&line));
                Ok(Way::Two(self.take(&line)))
            }
            Err(failure) => {
                let mut failed = self.0.failures();
                *failed = (failed.0 + 1, Some(failure.clone()));
                Err(failure)
            }
        }
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Held>, Failure> {
        let mut cause = String::new();
        for _ in 0..TRIES {
            match self.way().await? {
                Way::Two(slot) => {
                    let mut sender = slot.line.sender.clone();
                    match sender.try_send_request(request.clone().map(Sent::new)).await {
                        Ok(response) => {
                            return Ok(response.map(|body| Held {
                                body,
                                _slot: Some(slot),
                            }));
                        }
                        Err(error) if error.message().is_some() => {
                            slot.line.retired.store(true, Ordering::Relaxed);
                            cause = chain(error.error());
                        }
                        Err(error) => return Err(self.lost(&error.into_error())),
                    }
                }
                Way::One(mut sender) => {
                    let request = origin_form(request, &self.0.dialer.address());
                    let answer = sender.send_request(request.map(Sent::new)).await;
                    let response = answer.map_err(|error| self.lost(&error))?;
                    return Ok(response.map(|body| Held { body, _slot: None }));
                }
            }
        }
        Err(Failure::Lost(self.0.dialer.address(), cause))
    }

    fn lost(&self, error: &hyper::Error) -> Failure {
        Failure::Lost(self.0.dialer.address(), chain(error))
    }

    /// Streams open on each connection.
    #[cfg(test)]
    pub(super) fn load(&self) -> Vec<usize> {
        let lines = self.0.lines();
        lines.iter().map(|line| line.open.load(Ordering::Relaxed)).collect()
    }
}

fn allowed(peer: &Peer) -> usize {
    peer.current_max_send_streams().min(STREAMS)
}

/// Drives a connection to its end and keeps the limit as the server last announced it.
async fn drive(mut peer: Peer, limit: Arc<AtomicUsize>) {
    let end = std::future::poll_fn(|cx| {
        let state = peer.poll_unpin(cx);
        limit.store(allowed(&peer), Ordering::Relaxed);
        state
    })
    .await;
    if let Err(error) = end {
        // Each of its streams reports the failure to the one who reads it.
        tracing::debug!(error = %chain(&error), "a connection to the API server broke");
    }
}

/// HTTP/1.1 wants the path in the request line and the host in a header.
fn origin_form(request: Request<Bytes>, host: &str) -> Request<Bytes> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().map_or(host, |authority| authority.as_str());
    if let Ok(value) = HeaderValue::from_str(host) {
        parts.headers.entry(header::HOST).or_insert(value);
    }
    if let Some(path) = parts.uri.path_and_query() {
        parts.uri = Uri::from(path.clone());
    }
    Request::from_parts(parts, body)
}

impl tower::Service<Request<kube::client::Body>> for Pool {
    type Response = Response<Held>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Always: an error here would end the kube client for good.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let pool = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(pool.send(Request::from_parts(parts, body)).await?)
        })
    }
}

/// The body of a response. It holds its place on the connection until it is dropped.
pub(super) struct Held {
    body: Incoming,
    _slot: Option<Slot>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
