//! A TCP proxy that behaves like a bad network: delay, silence, refusal, and a connection that ends just before a
//! request arrives or just after it took effect. It does not interpret the bytes that pass through it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Whether data passes the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyMode {
    Open,
    /// Connections stay open and new ones are accepted, but no data passes. Data that waits passes when the proxy is
    /// open again.
    Frozen,
    /// Connections break and none can be made.
    Refused,
}

/// Where a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// A request is swallowed: the server never sees it.
    Request,
    /// A reply is swallowed: the server has done what was asked.
    Reply,
}

#[derive(Debug)]
struct ProxyState {
    way: watch::Sender<ProxyMode>,
    /// Connections of an earlier age end.
    age: watch::Sender<u64>,
    delay_ms: AtomicU64,
    fuse: Mutex<Option<Direction>>,
    /// How many more may pass before the fuse blows.
    left: AtomicI64,
    blown: AtomicBool,
    /// Bytes that came from clients and were passed on.
    passed: AtomicU64,
}

/// The proxy; ends when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<ProxyState>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy to `server`, an address with its port.
    pub(crate) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(ProxyState {
            way: watch::channel(ProxyMode::Open).0,
            age: watch::channel(0).0,
            delay_ms: AtomicU64::new(0),
            fuse: Mutex::default(),
            left: AtomicI64::new(0),
            blown: AtomicBool::new(false),
            passed: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server.to_owned(), state.clone()));
        Self {
            port,
            state,
            _tasks: tasks,
        }
    }

    pub(crate) fn set(&self, way: ProxyMode) {
        self.state.way.send_replace(way);
        if way == ProxyMode::Refused {
            self.cut();
        }
    }

    /// How long each piece of data takes, each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.state.age.send_modify(|age| *age += 1);
    }

    /// Lets `passing` more pieces through and ends the connection at the next one.
    pub(crate) fn cut_at(&self, point: Direction, passing: i64) {
        self.state.blown.store(false, Ordering::SeqCst);
        self.state.left.store(passing, Ordering::SeqCst);
        *self.state.fuse.lock().unwrap() = Some(point);
    }

    /// Whether the end that was asked for has come. It will not come any more.
    pub(crate) fn was_cut(&self) -> bool {
        *self.state.fuse.lock().unwrap() = None;
        self.state.blown.load(Ordering::SeqCst)
    }

    /// Bytes that have been passed on to the server so far.
    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }
}

async fn accept(first: TcpListener, server: String, state: Arc<ProxyState>) {
    let port = first.local_addr().unwrap().port();
    let mut listener = Some(first);
    let mut way = state.way.subscribe();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        if *way.borrow_and_update() == ProxyMode::Refused {
            listener = None;
            way.changed().await.unwrap();
            continue;
        }
        if listener.is_none() {
            listener = TcpListener::bind(("127.0.0.1", port)).await.ok();
        }
        let Some(open) = &listener else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        tokio::select! {
            biased;
            _ = way.changed() => {}
            client = open.accept() => {
                if let Ok((client, _)) = client {
                    tasks.spawn(connection(client, server.clone(), state.clone()));
                }
            }
        }
    }
}

async fn connection(client: TcpStream, server: String, state: Arc<ProxyState>) {
    let mut age = state.age.subscribe();
    let pass = async {
        open(&state).await;
        let Ok(there) = TcpStream::connect(&server).await else {
            return;
        };
        client.set_nodelay(true).unwrap();
        there.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = there.into_split();
        tokio::select! {
            biased;
            () = pump(&mut from_client, &mut to_server, Direction::Request, &state) => {}
            () = pump(&mut from_server, &mut to_client, Direction::Reply, &state) => {}
        }
    };
    tokio::select! {
        biased;
        _ = age.changed() => {}
        () = pass => {}
    }
}

/// Waits while nothing passes.
async fn open(state: &ProxyState) {
    let mut way = state.way.subscribe();
    way.wait_for(|way| *way == ProxyMode::Open).await.unwrap();
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    point: Direction,
    state: &ProxyState,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read) = from.read(&mut buffer).await {
        open(state).await;
        let delay = state.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            open(state).await;
        }
        let armed = *state.fuse.lock().unwrap() == Some(point);
        if armed && read > 0 && state.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            state.blown.store(true, Ordering::SeqCst);
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if point == Direction::Request {
            state.passed.fetch_add(read as u64, Ordering::SeqCst);
        }
    }
}
