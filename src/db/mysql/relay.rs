//! A way to hand the driver a connection that podlog has made.
//!
//! sqlx 0.9 makes its TCP connections itself: it tries the addresses of a name one after another without a deadline, and
//! leaves out `TCP_NODELAY`, so that statements wait 40 ms for each other. It offers no way to give it a socket. So it
//! connects to a Unix socket of this process, from which bytes are copied to the real connection and back. TLS stays
//! between the driver and the server. Nothing here reads what it copies, and no other process can use it.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_buf};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::sync::lock;

/// How long the driver may take to connect. It does so at once.
const ACCEPT: Duration = Duration::from_secs(5);

/// Bytes that are copied at once: a few records of TLS.
const BUFFER: usize = 64 << 10;

/// The relays of one database. They end when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Relays(Mutex<JoinSet<()>>);

impl Relays {
    /// Returns the path of a socket that leads to the server, once: to the first connection of this process.
    pub(super) fn relay(&self, server: TcpStream) -> io::Result<PathBuf> {
        let (listener, path) = listen()?;
        let mut tasks = lock(&self.0);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a connection to a database ended by a panic; another is made");
            }
        }
        tasks.spawn(async move {
            if let Ok(Ok(client)) = timeout(ACCEPT, accept(&listener)).await {
                drop(listener);
                copy(client, server).await;
            }
        });
        Ok(path)
    }
}

/// The first connection that comes from this process.
async fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (client, _) = listener.accept().await?;
        let is_own = |pid| u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
        if client.peer_cred()?.pid().is_some_and(is_own) {
            return Ok(client);
        }
    }
}

/// Copies both ways until one side has no more to send. Then both connections are closed.
async fn copy(client: UnixStream, server: TcpStream) {
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    tokio::select! {
        () = copy_one_way(client_in, server_out) => {}
        () = copy_one_way(server_in, client_out) => {}
    }
}

async fn copy_one_way(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut from = BufReader::with_capacity(BUFFER, from);
    // A side that breaks is closed, which the other side sees.
    if copy_buf(&mut from, &mut to).await.is_ok() {
        to.shutdown().await.ok();
    }
}

/// A socket without a file: a container may have no directory that can be written.
#[cfg(target_os = "linux")]
fn listen() -> io::Result<(UnixListener, PathBuf)> {
    use std::ffi::OsString;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener as StdListener};

    let name = format!("podlog-{:032x}", fastrand::u128(..));
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    listener.set_nonblocking(true)?;
    let path = OsString::from_vec([b"\0", name.as_bytes()].concat());
    Ok((UnixListener::from_std(listener)?, path.into()))
}

#[cfg(not(target_os = "linux"))]
fn listen() -> io::Result<(UnixListener, PathBuf)> {
    let path = std::env::temp_dir().join(format!("podlog-{:032x}", fastrand::u128(..)));
    Ok((UnixListener::bind(&path)?, path))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A relay to a server, and the server's end.
    async fn relayed(relays: &Relays) -> (UnixStream, TcpStream, PathBuf) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to_server = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let path = relays.relay(to_server).unwrap();
        (UnixStream::connect(&path).await.unwrap(), server, path)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_what_was_sent_before_the_end_arrives() {
        let relays = Relays::default();
        let (mut client, mut server, path) = relayed(&relays).await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
        let upload = sent.clone();
        let mut sender = JoinSet::new();
        sender.spawn(async move {
            client.write_all(&upload).await.unwrap();
            client.read_u8().await.unwrap();
        });
        let mut got = vec![0; sent.len()];
        server.read_exact(&mut got).await.unwrap();
        assert!(got == sent, "the bytes differ");
        server.write_all(b"x").await.unwrap();
        sender.join_next().await.unwrap().unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "the client has closed");
        assert!(UnixStream::connect(&path).await.is_err(), "it leads to the server once");
    }

    #[tokio::test]
    async fn a_server_that_closes_ends_the_clients_connection_and_so_does_the_end_of_the_database() {
        let relays = Relays::default();
        let (mut client, server, _) = relayed(&relays).await;
        drop(server);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        let (mut client, mut server, _) = relayed(&relays).await;
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.unwrap();
        drop(relays);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
