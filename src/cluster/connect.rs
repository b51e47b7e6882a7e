//! One connection to the API server: name, TCP, TLS, and the HTTP version both sides agree on.
//!
//! Nothing here chooses when to connect or which connection a request takes; that is the pool's.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::failure::Failure;
use super::tasks::Tasks;

/// From the name to the agreed protocol.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection is asked for a sign of life after 20 s of silence and is dead without an answer for
/// another 10 s: a frozen API server is noticed within 30 s.
pub(super) const PING: Ping = Ping {
    interval: Duration::from_secs(20),
    timeout: Duration::from_secs(10),
};

/// The signs of life asked of an HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    /// How often.
    pub(super) interval: Duration,
    /// How long the answer may take.
    pub(super) timeout: Duration,
}

/// The kernel's own probes, for HTTP/1.1 and for a peer that vanished: 20 s + 3 x 5 s.
const TCP_IDLE: Duration = Duration::from_secs(20);
const TCP_PROBE: Duration = Duration::from_secs(5);
const TCP_PROBES: u32 = 3;
/// Bytes that were sent and not acknowledged for this long end the connection.
#[cfg(target_os = "linux")]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the server's first SETTINGS are looked for; hyper tells nobody when they arrive.
const SETTINGS_TICK: Duration = Duration::from_millis(2);

/// The bodies of requests: all of it at once, mostly nothing.
pub(super) type Sent = Full<Bytes>;

/// How much the server may send before the reader has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    /// Bytes on one stream.
    pub(super) stream: u32,
    /// Bytes on one connection.
    pub(super) connection: u32,
    /// The read buffer of an HTTP/1.1 connection; `None` lets hyper grow it to 400 KB and keep it.
    pub(super) http1: Option<usize>,
}

/// Where to connect and how.
#[derive(Clone)]
pub(super) struct Dialer {
    /// The host, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// TLS with the name the certificate must bear; `None` is plain TCP.
    pub(super) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// Flow control.
    pub(super) windows: Windows,
    /// Signs of life.
    pub(super) ping: Ping,
}

/// A new connection.
pub(super) enum Dialled {
    /// HTTP/2 with the number of streams the server allows.
    Two(http2::SendRequest<Sent>, Peer),
    /// HTTP/1.1: one request at a time.
    One(http1::SendRequest<Sent>),
}

/// What drives an HTTP/2 connection; its owner polls it for the server's limits.
pub(super) type Peer = http2::Connection<TokioIo<Box<dyn Wire>>, Sent, super::tasks::Executor>;

/// A byte stream, encrypted or not.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Dialer {
    /// Connects within [`CONNECT_DEADLINE`].
    pub(super) async fn dial(&self, tasks: &Tasks) -> Result<Dialled, Failure> {
        tokio::time::timeout(CONNECT_DEADLINE, self.connect(tasks))
            .await
            .unwrap_or_else(|_| Err(Failure::Slow(self.address())))
    }

    /// `host:port`, for people.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }

    async fn connect(&self, tasks: &Tasks) -> Result<Dialled, Failure> {
        let tcp = self.tcp().await?;
        let Some((config, name)) = &self.tls else {
            // Without TLS nothing can be agreed on.
            return self.agree(Box::new(tcp), false, tasks).await;
        };
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(config))
            .connect(name.clone(), tcp)
            .await
            .map_err(|error| self.tls_failure(&error))?;
        let two = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        self.agree(Box::new(tls), two, tasks).await
    }

    async fn tcp(&self) -> Result<TcpStream, Failure> {
        let mut addresses = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| Failure::Name(self.host.clone(), error.to_string()))?
            .peekable();
        if addresses.peek().is_none() {
            return Err(Failure::Name(self.host.clone(), "no address".into()));
        }
        let mut last = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    tune(&stream).map_err(|error| Failure::Lost(self.address(), error.to_string()))?;
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => Failure::Refused(self.address()),
            Some(error) => Failure::Lost(self.address(), error.to_string()),
            None => Failure::Name(self.host.clone(), "no address".into()),
        })
    }

    fn tls_failure(&self, error: &io::Error) -> Failure {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Failure::Certificate(self.address(), why.to_string()),
            Some(other) => Failure::Tls(self.address(), other.to_string()),
            None => Failure::Lost(self.address(), error.to_string()),
        }
    }

    async fn agree(&self, wire: Box<dyn Wire>, two: bool, tasks: &Tasks) -> Result<Dialled, Failure> {
        let lost = |error: hyper::Error| Failure::Lost(self.address(), chain(&error));
        let io = TokioIo::new(wire);
        if !two {
            let mut builder = http1::Builder::new();
            if let Some(bytes) = self.windows.http1 {
                builder.max_buf_size(bytes);
            }
            let (sender, peer) = builder.handshake(io).await.map_err(lost)?;
            tasks.run(peer.map(|_| ()));
            return Ok(Dialled::One(sender));
        }
        let (sender, mut peer) = http2::Builder::new(tasks.executor())
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.windows.stream)
            .initial_connection_window_size(self.windows.connection)
            .max_frame_size(16_384)
            // Nothing is sent before the server has said how many streams it allows.
            .initial_max_send_streams(0)
            .keep_alive_interval(self.ping.interval)
            .keep_alive_timeout(self.ping.timeout)
            .keep_alive_while_idle(true)
            .handshake(io)
            .await
            .map_err(lost)?;
        settle(&mut peer).await.map_err(lost)?;
        Ok(Dialled::Two(sender, peer))
    }
}

/// Drives the connection until the server's SETTINGS are in.
async fn settle(peer: &mut Peer) -> Result<(), hyper::Error> {
    let mut tick = tokio::time::interval(SETTINGS_TICK);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(end) = peer.poll_unpin(cx) {
                // An end without an error is an end too: the first request finds it closed.
                return Poll::Ready(end);
            }
            if peer.current_max_send_streams() > 0 {
                return Poll::Ready(Ok(()));
            }
            if tick.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_IDLE)
        .with_interval(TCP_PROBE)
        .with_retries(TCP_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(())
}

/// An error and what caused it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text.replace(char::is_control, " ")
}
