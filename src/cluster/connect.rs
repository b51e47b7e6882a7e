//! Opens one connection to the API server: DNS lookup, TCP, TLS, and the HTTP version that both sides support.
//!
//! It never decides when to connect or which connection carries a request; the pool does.

use std::error::Error;
use std::fmt;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tasks::{DriverTasks, Executor};
use super::text::error_chain;
use crate::domain::Message;
use crate::net::{self, NetError};

/// The longest time from the DNS lookup to an HTTP connection.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// HTTP/2 pings: one after 20 s without traffic, and 10 s for its answer. A frozen API server is noticed within 30 s.
pub(super) const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(20),
    timeout: Duration::from_secs(10),
};

/// When an HTTP/2 connection is pinged.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepAlive {
    /// Time without traffic after which a ping is sent.
    pub(super) interval: Duration,
    /// Time within which it must be answered; otherwise the connection is closed.
    pub(super) timeout: Duration,
}

/// How often the server's first SETTINGS frame is checked for. hyper does not notify when it arrives.
const SETTINGS_TICK: Duration = Duration::from_millis(2);

/// The body of a request: complete in memory, and mostly empty.
pub(super) type RequestBody = Full<Bytes>;

/// How many bytes the server may send before the reader has read them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    /// Bytes on one stream.
    pub(super) stream: u32,
    /// Bytes on one connection.
    pub(super) connection: u32,
    /// The read buffer of an HTTP/1.1 connection; `None` lets hyper grow it to 400 KB and keep it.
    pub(super) http1: Option<usize>,
}

/// Why there is no connection, or no answer on it.
#[derive(Clone, Debug)]
pub(super) enum ConnectError {
    /// The DNS lookup of this host failed.
    Lookup { host: String, cause: String },
    /// Nothing listens at this address.
    Refused { address: String },
    /// No connection to this address within [`CONNECT_DEADLINE`].
    TimedOut { address: String },
    /// The server's certificate is not trusted.
    Certificate { address: String, cause: String },
    /// TLS failed for another reason.
    Tls { address: String, cause: String },
    /// The connection broke.
    Broken { address: String, cause: String },
}

impl ConnectError {
    /// Whether certificates or credentials that are read again may help.
    pub(super) fn is_about_trust(&self) -> bool {
        matches!(self, Self::Certificate { .. } | Self::Tls { .. })
    }

    /// What failed, and what to do about it.
    pub(super) fn message(&self) -> Message {
        match self {
            Self::Lookup { host, cause } => Message::new(
                format!("cannot resolve the API server's name {host}: {cause}"),
                "check the server address in the kubeconfig and the DNS of this machine",
            ),
            Self::Refused { address } => Message::new(
                format!("cannot reach the API server at {address}: connection refused"),
                "check that it runs and that the address in the kubeconfig is right",
            ),
            Self::TimedOut { address } => Message::new(
                format!("cannot reach the API server at {address}: no connection within 5 s"),
                "check the address, the network and firewalls in between",
            ),
            Self::Certificate { address, cause } => Message::new(
                format!("the certificate of the API server at {address} is not trusted: {cause}"),
                "set the cluster's CA (certificate-authority in the kubeconfig)",
            ),
            Self::Tls { address, cause } => Message::new(
                format!("TLS with the API server at {address} failed: {cause}"),
                "check that the address is an https one and that the client certificate is valid",
            ),
            Self::Broken { address, cause } => Message::new(
                format!("the connection to the API server at {address} broke: {cause}"),
                "check the network if that happens again",
            ),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

impl Error for ConnectError {}

/// The settings of TLS, and the name that the certificate must have.
type Tls = (Arc<rustls::ClientConfig>, ServerName<'static>);

/// Where to connect and how.
#[derive(Clone)]
pub(super) struct Connector {
    /// The host, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// `None` is plain TCP.
    pub(super) tls: Option<Tls>,
    /// Flow control.
    pub(super) windows: Windows,
    /// Pings of HTTP/2.
    pub(super) keep_alive: KeepAlive,
}

/// A new connection.
pub(super) enum Connection {
    /// HTTP/2: many requests at a time, as many as the server allows.
    Http2(http2::SendRequest<RequestBody>, Http2Driver),
    /// HTTP/1.1: one request at a time.
    Http1(http1::SendRequest<RequestBody>),
}

/// The future that runs an HTTP/2 connection. Its owner also reads the server's limit of streams from it.
pub(super) type Http2Driver = http2::Connection<TokioIo<Box<dyn ByteStream>>, RequestBody, Executor>;

/// A byte stream, encrypted or not.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

impl Connector {
    /// Connects within [`CONNECT_DEADLINE`].
    pub(super) async fn connect(&self, tasks: &DriverTasks) -> Result<Connection, ConnectError> {
        let address = self.address();
        tokio::time::timeout(CONNECT_DEADLINE, self.connect_tls(tasks))
            .await
            .unwrap_or(Err(ConnectError::TimedOut { address }))
    }

    /// `host:port`, as messages show it.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }

    async fn connect_tls(&self, tasks: &DriverTasks) -> Result<Connection, ConnectError> {
        let tls = self.tls.clone();
        // An address that accepts a connection and does not answer in TLS takes no time from the others.
        let start = move |tcp| start_tls(tcp, tls.clone()).boxed();
        let started = net::connect_and_start(&self.host, self.port, CONNECT_DEADLINE, start).await;
        let (stream, is_http2) = started.map_err(|error| self.not_connected(error))?;
        self.start_http(stream, is_http2, tasks).await
    }

    fn broken(&self, cause: String) -> ConnectError {
        let address = self.address();
        ConnectError::Broken { address, cause }
    }

    fn not_connected(&self, error: NetError) -> ConnectError {
        let (host, address) = (self.host.clone(), self.address());
        match error {
            NetError::NoAddress { cause, .. } => {
                let cause = cause.to_string();
                ConnectError::Lookup { host, cause }
            }
            NetError::LookUpTooSlow { .. } => {
                let cause = error.to_string();
                ConnectError::Lookup { host, cause }
            }
            NetError::Refused { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused => {
                ConnectError::Refused { address }
            }
            NetError::Refused { cause, .. } => self.failed(&cause),
            NetError::NoAnswer { .. } => ConnectError::TimedOut { address },
        }
    }

    /// The error of a connection. With TLS 1.3 a server refuses a client's certificate only after the handshake, so that over
    /// HTTP/1.1 the error comes from the first request.
    pub(super) fn failed(&self, error: &(dyn Error + 'static)) -> ConnectError {
        let address = self.address();
        match rustls_error(error) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                let cause = reason.to_string();
                ConnectError::Certificate { address, cause }
            }
            Some(other) => {
                let cause = other.to_string();
                ConnectError::Tls { address, cause }
            }
            None => self.broken(error_chain(error)),
        }
    }

    /// Performs the handshake of HTTP/2 or HTTP/1.1.
    async fn start_http(
        &self,
        stream: Box<dyn ByteStream>,
        is_http2: bool,
        tasks: &DriverTasks,
    ) -> Result<Connection, ConnectError> {
        let failed = |error: hyper::Error| self.failed(&error);
        let io = TokioIo::new(stream);
        if !is_http2 {
            let mut builder = http1::Builder::new();
            if let Some(bytes) = self.windows.http1 {
                builder.max_buf_size(bytes);
            }
            let (sender, driver) = builder.handshake(io).await.map_err(failed)?;
            tasks.run(driver.map(|_| ()));
            return Ok(Connection::Http1(sender));
        }
        let (sender, mut driver) = http2::Builder::new(tasks.executor())
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.windows.stream)
            .initial_connection_window_size(self.windows.connection)
            .max_frame_size(16_384)
            // No request is sent before the server has said how many streams it allows.
            .initial_max_send_streams(0)
            .keep_alive_interval(self.keep_alive.interval)
            .keep_alive_timeout(self.keep_alive.timeout)
            .keep_alive_while_idle(true)
            .handshake(io)
            .await
            .map_err(failed)?;
        // With TLS 1.3 a server refuses a client's certificate only here. hyper repeats just the text of that refusal.
        let (address, settings) = (self.address(), wait_for_settings(&mut driver).await);
        settings.map_err(|cause| ConnectError::Tls { address, cause })?;
        Ok(Connection::Http2(sender, driver))
    }
}

/// Encrypts a connection, if it is to be encrypted. Returns whether it is for HTTP/2: that is negotiated by TLS, so without
/// TLS it is for HTTP/1.1.
async fn start_tls(tcp: TcpStream, tls: Option<Tls>) -> io::Result<(Box<dyn ByteStream>, bool)> {
    let Some((config, name)) = tls else {
        return Ok((Box::new(tcp), false));
    };
    let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(tls), is_http2))
}

/// The error of TLS that is the cause of this one.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let found = io.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    found.or_else(|| error.source().and_then(rustls_error))
}

/// Runs the connection until the server's SETTINGS frame is there. Returns why it ended before.
async fn wait_for_settings(driver: &mut Http2Driver) -> Result<(), String> {
    let mut tick = tokio::time::interval(SETTINGS_TICK);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(end) = driver.poll_unpin(cx) {
                let cause = end.map_or_else(
                    |error| error_chain(&error),
                    |()| "the server closed the connection".into(),
                );
                return Poll::Ready(Err(cause));
            }
            if driver.current_max_send_streams() > 0 {
                return Poll::Ready(Ok(()));
            }
            if tick.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}
