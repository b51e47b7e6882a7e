//! Tests of the pool against real HTTP servers on loopback, over TLS with a certificate made for the test.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::StreamExt;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::connect::{KEEP_ALIVE, KeepAlive, Windows};
use super::*;

const WINDOWS: Windows = Windows {
    stream: 65_535,
    connection: 65_535 * 100,
    http1: Some(16_384),
};

/// A server whose streams send `hello` and then stay open, or send without end for `/flood`.
struct TestServer {
    address: SocketAddr,
    trust: Arc<rustls::ClientConfig>,
    connections: Arc<AtomicU32>,
    /// Every change makes every connection send GOAWAY.
    goaway: watch::Sender<u32>,
    /// The connections; aborting them closes their sockets.
    tasks: Arc<Mutex<JoinSet<()>>>,
    _accepting: JoinSet<()>,
}

fn certificate() -> (rustls::ServerConfig, rustls::ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let server = rustls::ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots);
    (server, client.with_no_client_auth())
}

type Endless = BoxBody<Bytes, Infallible>;

fn body(flood: bool) -> Endless {
    let frames = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"hello")))]);
    if flood {
        let block = Bytes::from(vec![b'x'; 8192]);
        let more = futures::stream::repeat_with(move || Ok(Frame::data(block.clone())));
        return BodyExt::boxed(StreamBody::new(frames.chain(more)));
    }
    BodyExt::boxed(StreamBody::new(frames.chain(futures::stream::pending())))
}

async fn serve(
    io: impl hyper::rt::Read + hyper::rt::Write + Unpin,
    is_http2: bool,
    streams: u32,
    mut goaway: watch::Receiver<u32>,
) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(Response::new(body(request.uri().path() == "/flood")))
    });
    if !is_http2 {
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        serving.await.unwrap_or_default();
        return;
    }
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut serving = std::pin::pin!(builder.max_concurrent_streams(streams).serve_connection(io, service));
    loop {
        tokio::select! {
            end = serving.as_mut() => return end.unwrap_or_default(),
            Ok(()) = goaway.changed() => serving.as_mut().graceful_shutdown(),
        }
    }
}

async fn server(alpn: &[&str], streams: u32) -> TestServer {
    let (mut config, mut trust) = certificate();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    trust.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (goaway, goaway_requests) = watch::channel(0);
    let (connections, tasks) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(JoinSet::new())));
    let (counted, owned) = (Arc::clone(&connections), Arc::clone(&tasks));
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let (acceptor, mut goaway_requests) = (acceptor.clone(), goaway_requests.clone());
            goaway_requests.mark_unchanged();
            owned.lock().unwrap().spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(TokioIo::new(tls), is_http2, streams, goaway_requests).await;
            });
        }
    });
    TestServer {
        address,
        trust: Arc::new(trust),
        connections,
        goaway,
        tasks,
        _accepting: accepting,
    }
}

impl TestServer {
    fn pool(&self) -> Pool {
        Pool::new(Connector {
            host: "127.0.0.1".into(),
            port: self.address.port(),
            tls: Some((Arc::clone(&self.trust), ServerName::try_from("localhost").unwrap())),
            windows: WINDOWS,
            keep_alive: KEEP_ALIVE,
        })
    }

    fn accepted(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn open(pool: &Pool, path: &str) -> Result<Response<PooledBody>, ConnectError> {
    let request = Request::get(format!("https://localhost{path}"))
        .body(Bytes::new())
        .unwrap();
    tokio::time::timeout(Duration::from_secs(10), pool.send(request))
        .await
        .expect("a stream opens or fails within 10 s")
}

async fn open_streams(pool: &Pool, count: usize) -> Vec<Response<PooledBody>> {
    let mut streams = futures::future::join_all((0..count).map(|_| open(pool, "/"))).await;
    for stream in &mut streams {
        let stream = stream.as_mut().expect("every stream opens");
        let first = stream.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "hello");
    }
    streams.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn the_101st_stream_opens_a_second_connection() {
    let server = server(&["h2"], 250).await;
    let pool = server.pool();
    let first = open_streams(&pool, 100).await;
    assert_eq!((first[0].version(), server.accepted()), (http::Version::HTTP_2, 1));
    let one_more = open_streams(&pool, 1).await;
    assert_eq!((server.accepted(), pool.load()), (2, vec![100, 1]));
    drop(one_more);
    drop(first);
    assert_eq!(
        pool.load(),
        vec![0],
        "a connection without streams closes when there is another"
    );
}

#[tokio::test]
async fn a_smaller_limit_of_the_server_applies_from_the_first_stream() {
    let server = server(&["h2"], 10).await;
    let pool = server.pool();
    let _streams = open_streams(&pool, 35).await;
    assert_eq!((server.accepted(), pool.load()), (4, vec![10, 10, 10, 5]));
}

#[tokio::test]
async fn dropping_a_stream_frees_its_place_on_the_connection() {
    let server = server(&["h2"], 10).await;
    let pool = server.pool();
    for _ in 0..10 {
        drop(open_streams(&pool, 10).await);
    }
    assert_eq!((server.accepted(), pool.load()), (1, vec![0]));
}

#[tokio::test]
async fn a_dead_connection_is_replaced() {
    let server = server(&["h2"], 100).await;
    let pool = server.pool();
    let mut streams = open_streams(&pool, 3).await;
    server.tasks.lock().unwrap().abort_all();
    for stream in &mut streams {
        let end = tokio::time::timeout(Duration::from_secs(10), stream.body_mut().frame());
        assert!(
            !matches!(end.await, Ok(Some(Ok(_))) | Err(_)),
            "the stream ends with its connection"
        );
    }
    open_streams(&pool, 1).await;
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn after_goaway_open_streams_continue_and_new_ones_use_another_connection() {
    let server = server(&["h2"], 100).await;
    let pool = server.pool();
    let old = open(&pool, "/flood").await.unwrap();
    server.goaway.send_modify(|count| *count += 1);
    let mut old = old.into_body();
    let mut read = 0;
    while read < 1 << 20 {
        read += old.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    let _new = open_streams(&pool, 2).await;
    assert_eq!(server.accepted(), 2);
    assert!(old.frame().await.unwrap().is_ok());
}

#[tokio::test]
async fn unread_streams_do_not_stall_another_stream() {
    let server = server(&["h2"], 100).await;
    let pool = server.pool();
    let unread = futures::future::join_all((0..99).map(|_| open(&pool, "/flood"))).await;
    assert!(unread.iter().all(Result::is_ok));
    let mut read = open(&pool, "/flood").await.unwrap().into_body();
    assert_eq!(pool.load(), vec![100]);
    let mut bytes = 0;
    // More than the sum of all windows of the connection.
    while bytes < 65_535 * 150 {
        let frame = tokio::time::timeout(Duration::from_secs(10), read.frame());
        let frame = frame.await.expect("the stream continues").unwrap().unwrap();
        bytes += frame.into_data().unwrap().len();
    }
}

#[tokio::test]
async fn without_http2_every_stream_has_its_own_connection() {
    let server = server(&["http/1.1"], 100).await;
    let pool = server.pool();
    let streams = open_streams(&pool, 5).await;
    assert_eq!((streams[0].version(), server.accepted()), (http::Version::HTTP_11, 5));
    assert!(pool.load().is_empty());
}

#[tokio::test]
async fn each_connection_failure_has_its_own_error() {
    let server = server(&["h2"], 100).await;
    let mut pool = server.pool();
    let connector = &mut Arc::get_mut(&mut pool.0).unwrap().connector;
    connector.tls.as_mut().unwrap().0 = Arc::new(certificate().1);
    assert!(matches!(open(&pool, "/").await, Err(ConnectError::Certificate { .. })));
    let mut pool = server.pool();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    Arc::get_mut(&mut pool.0).unwrap().connector.port = closed.port();
    assert!(matches!(open(&pool, "/").await, Err(ConnectError::Refused { .. })));
    Arc::get_mut(&mut pool.0).unwrap().connector.host = "nowhere.invalid".into();
    assert!(matches!(open(&pool, "/").await, Err(ConnectError::Lookup { .. })));
}

/// A proxy that forwards bytes until `frozen` changes. Then it keeps both sockets open and sends nothing.
async fn freezing_proxy(target: SocketAddr, mut frozen: watch::Receiver<bool>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = frozen.changed() => {}
        }
        std::future::pending::<()>().await;
    });
    (address, tasks)
}

#[tokio::test]
async fn a_frozen_server_ends_its_streams() {
    let server = server(&["h2"], 100).await;
    let (freeze, frozen) = watch::channel(false);
    let (address, _tasks) = freezing_proxy(server.address, frozen).await;
    let mut pool = server.pool();
    let connector = &mut Arc::get_mut(&mut pool.0).unwrap().connector;
    connector.port = address.port();
    let interval = Duration::from_millis(200);
    connector.keep_alive = KeepAlive {
        interval,
        timeout: interval,
    };
    let mut stream = open_streams(&pool, 1).await.remove(0);
    // The stream stays open for many intervals, because the server answers the pings.
    let quiet = tokio::time::timeout(interval * 8, stream.body_mut().frame()).await;
    assert!(quiet.is_err(), "a quiet stream stays open");
    freeze.send_replace(true);
    let end = tokio::time::timeout(Duration::from_secs(10), stream.body_mut().frame()).await;
    assert!(
        matches!(end, Ok(Some(Err(_)))),
        "the stream ends although no socket was closed"
    );
}
