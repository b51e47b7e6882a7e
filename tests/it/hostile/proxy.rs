//! A server of raw bytes between a replica and the simulated cluster. A request that no rule answers is passed on. It
//! parses HTTP only up to the blank line after the head, so that it can send any bytes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is sent in place of an answer.
#[derive(Clone, Debug)]
pub(crate) enum RawAnswer {
    /// These bytes, and the connection is closed.
    Bytes(Vec<u8>),
    /// These bytes, then the piece again and again, this many bytes in all or until the client has enough.
    Endless { head: Vec<u8>, piece: Vec<u8>, bytes: u64 },
    /// The same, with an end: after so many pieces, and not before the proxy may end it.
    Long {
        head: Vec<u8>,
        piece: Vec<u8>,
        times: u64,
        tail: Vec<u8>,
    },
}

/// Says what is sent to a request, of which it gets the head.
type AnswerRule = dyn Fn(&str) -> Option<RawAnswer> + Send + Sync;

/// The server.
#[derive(Clone)]
pub(crate) struct HostileProxy(Arc<ProxyState>);

struct ProxyState {
    port: u16,
    rule: Mutex<Option<Arc<AnswerRule>>>,
    heads: Mutex<Vec<String>>,
    matched: AtomicU64,
    sent: AtomicU64,
    goes_on: AtomicBool,
}

impl HostileProxy {
    /// Listens, and passes on to this port; to none if it is 0.
    pub(crate) async fn start(behind: u16, tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self(Arc::new(ProxyState {
            port: listener.local_addr().unwrap().port(),
            rule: Mutex::default(),
            heads: Mutex::default(),
            matched: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            goes_on: AtomicBool::new(false),
        }));
        let here = proxy.clone();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let here = here.clone();
                open.spawn(async move { here.serve(client, behind).await.ok() });
                while open.try_join_next().is_some() {}
            }
        });
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// From now on this rule decides.
    pub(crate) fn rule(&self, rule: impl Fn(&str) -> Option<RawAnswer> + Send + Sync + 'static) {
        *self.0.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    /// From now on everything is passed on.
    pub(crate) fn pass_everything_on(&self) {
        *self.0.rule.lock().unwrap() = None;
    }

    /// How often a rule has answered.
    pub(crate) fn matched(&self) -> u64 {
        self.0.matched.load(Ordering::Relaxed)
    }

    /// Bytes sent by rules.
    pub(crate) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// With `true`, long answers go on until this is called with `false`, however fast they are.
    pub(crate) fn go_on(&self, goes_on: bool) {
        self.0.goes_on.store(goes_on, Ordering::SeqCst);
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.0.heads.lock().unwrap().clone()
    }

    async fn serve(&self, mut client: TcpStream, behind: u16) -> std::io::Result<()> {
        let mut seen = Vec::new();
        let end = loop {
            if client.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
            if let Some(end) = memchr::memmem::find(&seen, b"\r\n\r\n") {
                break end;
            }
        };
        let head = String::from_utf8_lossy(&seen[..end]).into_owned();
        let rule = self.0.rule.lock().unwrap().clone();
        let answer = rule.and_then(|rule| rule(&head));
        self.0.heads.lock().unwrap().push(head);
        let Some(answer) = answer else {
            let mut server = TcpStream::connect(("127.0.0.1", behind)).await?;
            server.write_all(&seen).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        };
        self.0.matched.fetch_add(1, Ordering::Relaxed);
        self.say(&mut client, answer).await?;
        client.shutdown().await?;
        // A reset would take with it what the client has not read yet.
        tokio::time::timeout(Duration::from_secs(1), client.read_buf(&mut seen))
            .await
            .ok();
        Ok(())
    }

    async fn say(&self, client: &mut TcpStream, answer: RawAnswer) -> std::io::Result<()> {
        let long = matches!(answer, RawAnswer::Long { .. });
        let (head, piece, times, tail) = match answer {
            RawAnswer::Bytes(bytes) => (bytes, Vec::new(), 0, Vec::new()),
            RawAnswer::Endless { head, piece, bytes } => {
                let times = bytes / piece.len() as u64;
                (head, piece, times, Vec::new())
            }
            RawAnswer::Long {
                head,
                piece,
                times,
                tail,
            } => (head, piece, times, tail),
        };
        client.write_all(&head).await?;
        let goes_on = |n: u64| n < times || long && self.0.goes_on.load(Ordering::SeqCst);
        for _ in (0..).take_while(|n| goes_on(*n)) {
            client.write_all(&piece).await?;
            self.0.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        client.write_all(&tail).await
    }
}

/// An answer with status 200 whose body goes on until the connection is closed.
pub(crate) const OPEN_END: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n";

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> RawAnswer {
    let length = body.len();
    RawAnswer::Bytes(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes())
}
