//! A gate between one replica and the API server. While it is closed, requests time out and open streams send nothing,
//! as in a network that drops every packet. It changes no request and no response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use tower::Service;

use kube_sim::{SimBody, SimService};

/// How long a request waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens and closes the gate of one replica.
#[derive(Clone, Debug)]
pub struct ApiGate(watch::Sender<bool>);

impl Default for ApiGate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl ApiGate {
    /// Opens or closes it.
    pub fn set(&self, open: bool) {
        self.0.send_replace(open);
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// The API server as the replica reaches it through the gate.
    pub(super) fn wrap(&self, server: SimService) -> GatedApi {
        GatedApi {
            server,
            open: self.0.subscribe(),
        }
    }
}

/// The API server behind a gate.
#[derive(Clone, Debug)]
pub(super) struct GatedApi {
    server: SimService,
    open: watch::Receiver<bool>,
}

/// Waits until the gate is open. Waits for ever if the [`ApiGate`] is dropped.
async fn wait_until_open(open: &mut watch::Receiver<bool>) {
    if open.wait_for(|open| *open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl<B> Service<Request<B>> for GatedApi
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<SimBody>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut open = self.open.clone();
        let answer = self.server.call(request);
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer from behind the closed gate");
            tokio::time::timeout(CONNECT_TIMEOUT, wait_until_open(&mut open))
                .await
                .map_err(late)?;
            let answer = answer.await?;
            Ok(answer.map(|body| gated_body(body, open)))
        })
    }
}

/// A body whose frames wait while the gate is closed. A complete response is not delayed.
fn gated_body(body: SimBody, open: watch::Receiver<bool>) -> SimBody {
    if body.size_hint().exact().is_some() {
        return body;
    }
    let frames = stream::unfold((body, open), |(mut body, mut open)| async move {
        let frame: Result<Frame<Bytes>, io::Error> = body.frame().await?;
        wait_until_open(&mut open).await;
        Some((frame, (body, open)))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
