//! The API server on a port, and a kubeconfig for it. HTTP/1.1 and HTTP/2 without TLS share the port; the first bytes of
//! a connection distinguish them. Every connection and every HTTP/2 stream is a task that [`serve`] owns. No task
//! outlives it.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::api::SimService;
use super::stream::SimBody;
use super::sync::lock;

/// The most HTTP/2 streams on one connection. A real API server has the same limit.
const STREAMS_PER_CONNECTION: u32 = 100;

/// How long a stop waits for clients to read what was already sent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Delay after a failed `accept`, for example because too many files are open.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The tasks of all connections and HTTP/2 streams.
#[derive(Debug, Default)]
struct ConnectionTasks(Mutex<JoinSet<()>>);

/// Starts tasks for a connection. It does not keep the set of tasks alive, so dropping the set ends all tasks.
#[derive(Debug, Clone)]
struct Spawner(Weak<ConnectionTasks>);

impl ConnectionTasks {
    fn with<T>(&self, act: impl FnOnce(&mut JoinSet<()>) -> T) -> T {
        act(&mut lock(&self.0))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.with(|tasks| {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        });
    }

    /// Waits until all have ended, or aborts them after [`SHUTDOWN_TIMEOUT`].
    async fn finish(&self) {
        let mut tasks = self.with(std::mem::take);
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.spawn(task);
        }
    }
}

/// Answers requests on `listener` until `stop` is cancelled. Then it ends open streams and closes connections.
pub(super) async fn serve(service: &SimService, listener: TcpListener, stop: CancellationToken) {
    let tasks = Arc::new(ConnectionTasks::default());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let spawner = Spawner(Arc::downgrade(&tasks));
                    let connection = connection(service.clone(), stream, spawner, stop.clone());
                    tasks.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulated API server cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
        }
    }
    drop(listener);
    // The first call waits for the connections, the second for the HTTP/2 streams that they have started meanwhile.
    tasks.finish().await;
    tasks.finish().await;
}

async fn connection(service: SimService, stream: TcpStream, spawner: Spawner, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let ends = stop.clone();
    let service =
        ServiceExt::<Request<Incoming>>::map_response(service, move |response| end_on_stop(response, ends.clone()));
    let service = TowerToHyperService::new(service);
    let mut builder = auto::Builder::new(spawner);
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    let result = loop {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            result = connection.as_mut() => break result,
        }
    };
    if let Err(error) = result {
        tracing::trace!(error, "a connection broke");
    }
}

/// Makes a streaming response end when the server stops. A complete response is not changed.
fn end_on_stop(response: Response<SimBody>, stop: CancellationToken) -> Response<SimBody> {
    response.map(|body| {
        if body.size_hint().exact().is_some() {
            return body;
        }
        let frames = BodyStream::new(body).take_until(stop.cancelled_owned());
        BodyExt::boxed_unsync(StreamBody::new(frames))
    })
}

/// The text of a kubeconfig for the server at `address`, such as `127.0.0.1:6443`. It contains no credentials, because
/// the server needs none.
#[must_use]
pub fn kubeconfig(address: impl fmt::Display) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: sim\n\
         clusters:\n- name: sim\n  cluster:\n    server: http://{address}\n\
         users:\n- name: sim\n  user: {{}}\n\
         contexts:\n- name: sim\n  context:\n    cluster: sim\n    user: sim\n"
    )
}
