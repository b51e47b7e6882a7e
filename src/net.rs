//! Connections to a host by its name. Every address of the name is tried, and the first that answers is taken.
//!
//! An address that does not answer takes no time from the others, and what failed is said by step: the look-up of the
//! name, or the connection. Nothing here tries again; callers do.

use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

/// How long an address may take before the next one is tried beside it, as RFC 8305 recommends.
const HEAD_START: Duration = Duration::from_millis(250);

/// A peer that is gone is noticed after 20 s + 3 * 5 s = 35 s.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(20))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// The connection is closed when sent bytes are not acknowledged for this long.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why no connection was made. Any of these may pass by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    /// The name has no address, or no name server knows.
    #[error("{host} has no address ({cause})")]
    NoAddress { host: String, cause: io::Error },
    /// No name server answered in time.
    #[error("no name server has told the address of {host} within {} s", limit.as_secs())]
    LookUpTooSlow { host: String, limit: Duration },
    /// No address took the connection, or none let it start. This is what the last one said.
    #[error("{address}: {cause}")]
    Refused { address: SocketAddr, cause: io::Error },
    /// No address answered in time.
    #[error("{addresses} did not answer within {} s", limit.as_secs())]
    NoAnswer { addresses: String, limit: Duration },
}

impl NetError {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NoAddress { .. } => "correct the host in the URL, or wait until its name is in the DNS",
            Self::LookUpTooSlow { .. } => "check the DNS, and that network policies let podlog reach it",
            Self::Refused { .. } | Self::NoAnswer { .. } => {
                "check the address and the port, that the server runs, and that firewalls and network policies let podlog through"
            }
        }
    }
}

/// A host without the brackets in which URLs write an IPv6 address.
pub(crate) fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// Connects to a host within `limit`.
pub(crate) async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, NetError> {
    connect_and_start(host, port, limit, |tcp| ready(Ok(tcp)).boxed()).await
}

/// The same, where an address has answered only when `start` succeeds on the connection to it, such as a TLS handshake.
pub(crate) async fn connect_and_start<S>(
    host: &str,
    port: u16,
    limit: Duration,
    start: impl Fn(TcpStream) -> BoxFuture<'static, io::Result<S>>,
) -> Result<S, NetError> {
    let (host, deadline) = (bare(host), Instant::now() + limit);
    let no_address = |cause| NetError::NoAddress {
        host: host.into(),
        cause,
    };
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let found = found.map_err(|_| NetError::LookUpTooSlow {
        host: host.into(),
        limit,
    })?;
    let addresses: Vec<SocketAddr> = found.map_err(no_address)?.collect();
    let Ok(connected) = timeout_at(deadline, connect_any(&addresses, |address| dial(address, &start))).await else {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(" and ");
        return Err(NetError::NoAnswer { addresses, limit });
    };
    match connected {
        Ok((_, stream)) => Ok(stream),
        Err(Some((address, cause))) => Err(NetError::Refused { address, cause }),
        Err(None) => Err(no_address(io::ErrorKind::AddrNotAvailable.into())),
    }
}

/// Connects to one address.
async fn dial<S>(address: SocketAddr, start: impl Fn(TcpStream) -> BoxFuture<'static, io::Result<S>>) -> io::Result<S> {
    let tcp = TcpStream::connect(address).await?;
    set_options(&tcp)?;
    start(tcp).await
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// Dials all addresses, each a little after the one before, and returns the first connection. If there is none, the
/// error of the address that failed last.
async fn connect_any<S, F: Future<Output = io::Result<S>>>(
    addresses: &[SocketAddr],
    dial: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, S), Option<(SocketAddr, io::Error)>> {
    let attempt = async |address| (address, dial(address).await);
    let (mut waiting, mut attempts) = (addresses.iter().copied(), FuturesUnordered::new());
    let mut failed = None;
    loop {
        match waiting.next() {
            Some(address) => attempts.push(attempt(address)),
            None if attempts.is_empty() => return Err(failed),
            None => {}
        }
        tokio::select! {
            biased;
            // An address that refuses at once lets the next one begin.
            Some((address, result)) = attempts.next() => match result {
                Ok(connection) => return Ok((address, connection)),
                Err(error) => failed = Some((address, error)),
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect()
    }

    /// Port 1 never answers, port 2 refuses after a second, port 3 accepts after a second, port 4 refuses at once.
    async fn dial_port(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            1 => pending().await,
            4 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => {
                sleep(Duration::from_secs(1)).await;
                if port == 3 {
                    Ok(port)
                } else {
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_takes_no_time_from_the_others() {
        for (ports, millis) in [
            (&[3][..], 1000),
            (&[1, 3], 1250),
            (&[2, 1, 3], 1500),
            (&[3, 1], 1000),
            (&[4, 3], 1000),
        ] {
            let begun = Instant::now();
            let (address, _) = connect_any(&addresses(ports), dial_port).await.unwrap();
            assert_eq!((address.port(), begun.elapsed().as_millis()), (3, millis), "{ports:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_all_refuse_are_an_error_at_once_and_none_is_a_name_without_address() {
        let (address, cause) = connect_any(&addresses(&[2, 2]), dial_port).await.unwrap_err().unwrap();
        assert_eq!((address.port(), cause.kind()), (2, io::ErrorKind::ConnectionRefused));
        assert!(connect_any(&[], dial_port).await.unwrap_err().is_none());
    }

    #[tokio::test]
    async fn an_address_that_accepts_and_says_nothing_takes_no_time_from_the_others() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (silent, speaking) = tokio::join!(listen(), listen());
        let addresses = [&silent, &speaking].map(|listener| listener.local_addr().unwrap());
        let first_byte = |mut tcp: TcpStream| async move { tcp.read_u8().await }.boxed();
        let speak = async {
            let (mut client, _) = speaking.accept().await.unwrap();
            client.write_u8(7).await.unwrap();
            client
        };
        let (answered, _client) = tokio::join!(connect_any(&addresses, |address| dial(address, first_byte)), speak);
        assert_eq!(answered.unwrap(), (addresses[1], 7));
    }

    async fn listen() -> tokio::net::TcpListener {
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test]
    async fn what_failed_is_said_by_step() {
        let limit = Duration::from_secs(5);
        let unknown = connect("no-such-host.invalid", 1, limit).await.unwrap_err();
        assert!(matches!(unknown, NetError::NoAddress { .. }), "{unknown}");
        let free = listen().await;
        let port = free.local_addr().unwrap().port();
        assert!(connect("127.0.0.1", port, limit).await.is_ok());
        drop(free);
        let refused = connect("127.0.0.1", port, limit).await.unwrap_err();
        assert!(
            refused.to_string().starts_with(&format!("127.0.0.1:{port}: ")),
            "{refused}"
        );
    }

    #[test]
    fn an_address_of_ipv6_is_looked_up_without_its_brackets() {
        for (host, is) in [("[::1]", "::1"), ("::1", "::1"), ("db", "db"), ("[db", "[db")] {
            assert_eq!(bare(host), is);
        }
    }
}
