//! The API server behind a port: HTTP/1.1 and cleartext HTTP/2 on the same listener, told apart by the first bytes.
//! Every connection and every HTTP/2 stream is a task of the one set that [`serve`] owns; when it returns, none is left.

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

/// As a real API server: more streams than this need another connection.
const STREAMS_PER_CONNECTION: u32 = 100;

/// After a stop, a client that does not read is given this long to take what is under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// A refused `accept` (too many open files) is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where connections and HTTP/2 streams run.
#[derive(Debug, Default)]
struct Tasks(Mutex<JoinSet<()>>);

/// What a task may hold: it does not keep the set alive, so dropping the set ends them all.
#[derive(Debug, Clone)]
struct Spawner(Weak<Tasks>);

impl Tasks {
    fn with<T>(&self, act: impl FnOnce(&mut JoinSet<()>) -> T) -> T {
        act(&mut lock(&self.0))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.with(|tasks| {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        });
    }

    /// Waits until all have ended, or aborts them after [`PATIENCE`].
    async fn finish(&self) {
        let mut tasks = self.with(std::mem::take);
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
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

/// Answers on `listener` until `stop` is cancelled; then open streams end and connections are closed.
pub(super) async fn serve(service: &SimService, listener: TcpListener, stop: CancellationToken) {
    let tasks = Arc::new(Tasks::default());
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
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    // Connections go first; the HTTP/2 streams they have spawned meanwhile are collected by the second round.
    tasks.finish().await;
    tasks.finish().await;
}

async fn connection(service: SimService, stream: TcpStream, spawner: Spawner, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let ends = stop.clone();
    let service =
        ServiceExt::<Request<Incoming>>::map_response(service, move |response| ending(response, ends.clone()));
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

/// Lets a streaming answer end when the server stops; whole answers are left alone.
fn ending(response: Response<SimBody>, stop: CancellationToken) -> Response<SimBody> {
    response.map(|body| {
        if body.size_hint().exact().is_some() {
            return body;
        }
        let frames = BodyStream::new(body).take_until(stop.cancelled_owned());
        BodyExt::boxed_unsync(StreamBody::new(frames))
    })
}
