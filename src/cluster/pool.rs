//! The HTTP client under both kube clients: a small pool of HTTP/2 connections.
//!
//! hyper silently queues a request beyond the server's limit of streams, and follow streams do not end, so it would wait
//! for ever. Therefore the pool counts the streams of each connection and opens another connection when all are full.
//! With a server that speaks only HTTP/1.1, each request has a connection of its own. The pool never repeats a request
//! that may have reached the server, and it does not limit the rate. Proxies are not supported.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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

use super::connect::{ConnectError, Connection, Connector, Http2Driver, RequestBody};
use super::tasks::DriverTasks;
use super::text::error_chain;
use crate::sync::lock;

/// The most streams on one connection: what API servers allow by default. Fewer if the server says so.
const STREAMS: usize = 100;
/// The most connections that one request is tried on. It is tried again only when it was never sent, because the
/// connection was closed or received GOAWAY a moment before.
const TRIES: usize = 3;

/// How many connections this number of log streams and watches needs. Lists and watches have a pool of their own.
/// Logs that are read to their end, beside the open streams, count as one more stream.
#[must_use]
pub fn connections(streams: usize, watches: usize, http2: bool) -> usize {
    if !http2 {
        return streams + watches + 2;
    }
    (streams + 1).div_ceil(STREAMS).max(1) + (watches + 1).div_ceil(STREAMS)
}

/// The pool. Clones share it. Its connections are closed when the last clone and the last response are dropped.
#[derive(Clone)]
pub(super) struct Pool(Arc<PoolInner>);

struct PoolInner {
    connector: Connector,
    /// The HTTP/2 connections.
    connections: Mutex<Vec<Arc<Http2Connection>>>,
    /// Held while connecting. Other requests wait for it and then use the new connection.
    connecting: tokio::sync::Mutex<()>,
    failures: Mutex<ConnectFailures>,
    /// Whether the latest connection is HTTP/1.1. Then requests connect at the same time.
    http1: AtomicBool,
    tasks: DriverTasks,
}

/// The failed attempts to connect. Requests that waited for an attempt fail with its error.
#[derive(Default)]
struct ConnectFailures {
    count: u64,
    latest: Option<ConnectError>,
}

/// One HTTP/2 connection.
struct Http2Connection {
    sender: http2::SendRequest<RequestBody>,
    /// Streams that are open.
    open: AtomicUsize,
    /// The most streams that may be open.
    limit: Arc<AtomicUsize>,
    /// Whether the connection refused a request, and so takes no more.
    retired: AtomicBool,
}

impl Http2Connection {
    fn is_usable(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed)
    }
}

/// One stream of a connection, released when dropped.
struct StreamSlot {
    connection: Arc<Http2Connection>,
    pool: Arc<PoolInner>,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut connections = lock(&self.pool.connections);
        // Under the lock that `free_slot` takes, so that the counts and the list agree.
        let left = self.connection.open.fetch_sub(1, Ordering::Relaxed) - 1;
        let is_other = |one: &Arc<Http2Connection>| !Arc::ptr_eq(one, &self.connection);
        let mut others = connections.iter().filter(|one| is_other(one));
        if left == 0 && others.any(|one| one.is_usable() && one.has_room()) {
            connections.retain(is_other);
        }
    }
}

/// What one request is sent on.
enum PooledConnection {
    Http2(StreamSlot),
    Http1(http1::SendRequest<RequestBody>),
}

impl Pool {
    /// A pool that has no connection yet.
    pub(super) fn new(connector: Connector) -> Self {
        Self(Arc::new(PoolInner {
            connector,
            connections: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            failures: Mutex::default(),
            http1: AtomicBool::new(false),
            tasks: DriverTasks::default(),
        }))
    }

    /// A stream on the first connection that has room, so that the later connections become empty and are closed.
    fn free_slot(&self) -> Option<StreamSlot> {
        let mut connections = lock(&self.0.connections);
        connections.retain(|one| one.is_usable());
        let connection = connections.iter().find(|one| one.has_room())?;
        Some(self.take_slot(connection))
    }

    /// The caller holds the lock on the connections.
    fn take_slot(&self, connection: &Arc<Http2Connection>) -> StreamSlot {
        connection.open.fetch_add(1, Ordering::Relaxed);
        StreamSlot {
            connection: Arc::clone(connection),
            pool: Arc::clone(&self.0),
        }
    }

    /// A stream on an open connection, or on a new one.
    async fn acquire(&self) -> Result<PooledConnection, ConnectError> {
        if let Some(slot) = self.free_slot() {
            return Ok(PooledConnection::Http2(slot));
        }
        if self.0.http1.load(Ordering::Relaxed) {
            return self.connect().await;
        }
        let failures_before = lock(&self.0.failures).count;
        let _connecting = self.0.connecting.lock().await;
        if let Some(slot) = self.free_slot() {
            return Ok(PooledConnection::Http2(slot));
        }
        if let Some(error) = self.failure_since(failures_before) {
            return Err(error);
        }
        self.connect().await
    }

    /// The latest error, if more attempts to connect have failed than `count`.
    fn failure_since(&self, count: u64) -> Option<ConnectError> {
        let failures = lock(&self.0.failures);
        failures.latest.clone().filter(|_| failures.count != count)
    }

    async fn connect(&self) -> Result<PooledConnection, ConnectError> {
        match self.0.connector.connect(&self.0.tasks).await {
            Ok(Connection::Http1(sender)) => {
                self.0.http1.store(true, Ordering::Relaxed);
                Ok(PooledConnection::Http1(sender))
            }
            Ok(Connection::Http2(sender, driver)) => {
                self.0.http1.store(false, Ordering::Relaxed);
                let limit = Arc::new(AtomicUsize::new(allowed_streams(&driver)));
                let connection = Arc::new(Http2Connection {
                    sender,
                    open: AtomicUsize::new(0),
                    limit: Arc::clone(&limit),
                    retired: AtomicBool::new(false),
                });
                self.0.tasks.run(drive(driver, limit));
                let mut connections = lock(&self.0.connections);
                connections.push(Arc::clone(&connection));
                Ok(PooledConnection::Http2(self.take_slot(&connection)))
            }
            Err(error) => {
                let mut failures = lock(&self.0.failures);
                failures.count += 1;
                failures.latest = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<PooledBody>, ConnectError> {
        let mut cause = String::new();
        for _ in 0..TRIES {
            match self.acquire().await? {
                PooledConnection::Http2(slot) => {
                    let mut sender = slot.connection.sender.clone();
                    match sender.try_send_request(request.clone().map(RequestBody::new)).await {
                        Ok(response) => {
                            return Ok(response.map(|body| PooledBody {
                                body,
                                _slot: Some(slot),
                            }));
                        }
                        Err(error) if error.message().is_some() => {
                            slot.connection.retired.store(true, Ordering::Relaxed);
                            cause = error_chain(error.error());
                        }
                        Err(error) => return Err(self.0.connector.failed(&error.into_error())),
                    }
                }
                PooledConnection::Http1(mut sender) => {
                    let request = origin_form(request, &self.0.connector.address());
                    let answer = sender.send_request(request.map(RequestBody::new)).await;
                    let response = answer.map_err(|error| self.0.connector.failed(&error))?;
                    return Ok(response.map(|body| PooledBody { body, _slot: None }));
                }
            }
        }
        Err(self.broken(cause))
    }

    fn broken(&self, cause: String) -> ConnectError {
        let address = self.0.connector.address();
        ConnectError::Broken { address, cause }
    }

    /// Streams open on each connection.
    #[cfg(test)]
    pub(super) fn load(&self) -> Vec<usize> {
        let connections = lock(&self.0.connections);
        connections.iter().map(|one| one.open.load(Ordering::Relaxed)).collect()
    }
}

fn allowed_streams(driver: &Http2Driver) -> usize {
    driver.current_max_send_streams().min(STREAMS)
}

/// Runs a connection to its end and updates `limit` whenever the server changes it.
async fn drive(mut driver: Http2Driver, limit: Arc<AtomicUsize>) {
    let end = std::future::poll_fn(|cx| {
        let state = driver.poll_unpin(cx);
        limit.store(allowed_streams(&driver), Ordering::Relaxed);
        state
    })
    .await;
    if let Err(error) = end {
        // The readers of its streams get the error too.
        tracing::debug!(error = %error_chain(&error), "a connection to the API server broke");
    }
}

/// The request as HTTP/1.1 requires it: only the path in the request line, and the host in a header.
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
    type Response = Response<PooledBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Always ready: the kube client never recovers from an error here.
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

/// The body of a response. It keeps its stream of the connection until it is dropped.
pub(super) struct PooledBody {
    body: Incoming,
    _slot: Option<StreamSlot>,
}

impl Body for PooledBody {
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
