//! Log-ins to `MySQL` and `MariaDB` that change, are slow, or are of a kind that podlog cannot or must not use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use podlog::domain::BackendError;
use podlog::locks::{self, LockStore, LockUrl};
use podlog::sinks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::database_user::{User, replace};
use crate::locks::fixture::{LockFixture, holder, requests};
use crate::locks::mysql::execute;

async fn user(fixture: &LockFixture, how: &str) -> User {
    User::new(fixture.sql().await, fixture.server(), how).await
}

/// The URL of the store, as the user.
fn url(user: &User, change: impl FnOnce(&mut url::Url)) -> LockUrl {
    let mut url = user.url();
    change(&mut url);
    url.as_str().parse().unwrap()
}

/// Calls until the store answers. Returns what it said before.
async fn answers(store: &Arc<dyn LockStore>, within: Duration) -> Vec<BackendError> {
    let (begun, mut said) = (Instant::now(), Vec::new());
    loop {
        match store.table().await {
            Ok(_) => return said,
            Err(error) => said.push(error),
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {said:?}");
    }
}

pub(crate) async fn a_password_that_is_changed_is_read_from_its_file_again(fixture: &LockFixture) {
    let mut user = user(fixture, "IDENTIFIED BY 'first'").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    replace(&file, "first\n");
    let mut url = url(&user, |_| {});
    url.read_password_from("PODLOG_LOCK_PASSWORD_FILE", &file);
    let store = locks::open(&url, holder("here", "a")).await.unwrap();
    let alter = format!("ALTER USER '{}'@'%' IDENTIFIED BY 'second'", user.name);
    execute(&mut user.admin, &alter).await;
    assert_eq!(user.kill().await, 1);
    let refused = store.table().await.unwrap_err().to_string();
    assert!(
        refused.contains("the file that PODLOG_LOCK_PASSWORD_FILE names, which is read for each connection"),
        "{refused}"
    );
    assert!(!refused.contains("first"), "{refused}");
    replace(&file, "second\n");
    answers(&store, Duration::from_secs(5)).await;
    user.drop().await;
}

/// Lets each connection wait before it passes anything on, and counts them.
async fn slow_proxy(listener: TcpListener, server: String, delay: Duration, count: Arc<AtomicU32>) {
    let mut tasks = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::Relaxed);
        let server = server.clone();
        tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
        });
    }
}

/// A way to the server that counts its connections.
struct Proxy {
    port: u16,
    count: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn new(fixture: &LockFixture, delay: Duration) -> Self {
        let server = fixture.server();
        let server = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap_or(3306));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut tasks, count) = (JoinSet::new(), Arc::<AtomicU32>::default());
        tasks.spawn(slow_proxy(listener, server, delay, count.clone()));
        Self {
            port,
            count,
            _tasks: tasks,
        }
    }

    /// Lets a URL lead through it.
    fn lead(&self, url: &mut url::Url) {
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
    }
}

pub(crate) async fn a_refused_log_in_is_repeated_rarely_and_at_once_when_its_file_changes(fixture: &LockFixture) {
    let version: String = sqlx::query_scalar("SELECT VERSION()")
        .fetch_one(&mut fixture.sql().await)
        .await
        .unwrap();
    // MySQL can lock an account after some log-ins that it refused.
    let locks = if version.contains("MariaDB") {
        ""
    } else {
        "FAILED_LOGIN_ATTEMPTS 8 PASSWORD_LOCK_TIME 1"
    };
    let mut user = user(fixture, &format!("IDENTIFIED BY 'first' {locks}")).await;
    let proxy = Proxy::new(fixture, Duration::ZERO).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    replace(&file, "first\n");
    let mut url = url(&user, |url| proxy.lead(url));
    url.read_password_from("PODLOG_LOCK_PASSWORD_FILE", &file);
    let store = locks::open(&url, holder("here", "a")).await.unwrap();
    let alter = format!("ALTER USER '{}'@'%' IDENTIFIED BY 'second'", user.name);
    execute(&mut user.admin, &alter).await;
    assert_eq!(user.kill().await, 1);
    let (begun, before) = (Instant::now(), proxy.count.load(Ordering::Relaxed));
    while begun.elapsed() < Duration::from_secs(15) {
        let refused = store.table().await.unwrap_err().to_string();
        assert!(refused.contains("refused the log-in"), "{refused}");
    }
    let tried = proxy.count.load(Ordering::Relaxed) - before;
    println!("{tried} log-ins in {:?}", begun.elapsed());
    assert!((2..=5).contains(&tried), "{tried} log-ins in 15 s");
    replace(&file, "second\n");
    answers(&store, Duration::from_secs(5)).await;
    user.drop().await;
}

pub(crate) async fn a_log_in_that_takes_longer_than_a_call_succeeds(fixture: &LockFixture) {
    let mut user = user(fixture, "IDENTIFIED BY 'first'").await;
    // A call may take 3 s.
    let proxy = Proxy::new(fixture, Duration::from_secs(4)).await;
    let url = url(&user, |url| {
        proxy.lead(url);
        url.set_password(Some("first")).unwrap();
    });
    let store = locks::open(&url, holder("here", "a")).await.unwrap();
    assert_eq!(store.acquire(&requests(3)).await.unwrap().len(), 3);
    assert_eq!(user.kill().await, 1);
    let said = answers(&store, Duration::from_secs(15)).await;
    assert!(
        said[0].to_string().contains("connecting takes long, and goes on"),
        "{said:?}"
    );
    assert!(said.len() <= 2, "the attempt was begun anew: {said:?}");
    user.drop().await;
}

pub(crate) async fn a_log_in_that_works_without_tls_only_for_a_while_is_refused(fixture: &LockFixture) {
    let is_mariadb: String = sqlx::query_scalar("SELECT VERSION()")
        .fetch_one(&mut fixture.sql().await)
        .await
        .unwrap();
    let is_mariadb = is_mariadb.contains("MariaDB");
    let how = if is_mariadb {
        "IDENTIFIED BY 'first'"
    } else {
        "IDENTIFIED WITH caching_sha2_password BY 'first'"
    };
    let user = user(fixture, how).await;
    let open = async |mode: &str| {
        let url = url(&user, |url| {
            url.set_password(Some("first")).unwrap();
            url.set_query(Some(&format!("ssl-mode={mode}")));
        });
        locks::open(&url, holder("here", "a")).await.map(drop)
    };
    if is_mariadb {
        // Its default way to log in needs no TLS.
        assert_eq!(open("DISABLED").await, Ok(()));
    } else {
        let cold = open("DISABLED").await;
        assert_eq!(open("REQUIRED").await, Ok(()));
        let warm = open("DISABLED").await;
        for refused in [cold, warm] {
            let error = refused.unwrap_err();
            assert!(matches!(error, BackendError::Refused(_)), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("caching_sha2_password") && text.ends_with("set ssl-mode=REQUIRED in the URL"),
                "{text}"
            );
        }
    }
    user.drop().await;
}

/// Passes everything on to a server, but for the name of the function by which migrations keep each other out.
async fn without_get_lock(listener: TcpListener, server: String) {
    let mut tasks = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (mut answers, mut server) = TcpStream::connect(&server).await.unwrap().into_split();
        let (mut asks, mut client) = client.into_split();
        tasks.spawn(async move { tokio::io::copy(&mut answers, &mut client).await.map(drop) });
        tasks.spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            loop {
                let n = asks.read(&mut bytes).await?;
                let sent = &mut bytes[..n];
                if let Some(at) = sent.windows(9).position(|part| part == b"GET_LOCK(") {
                    sent[at..at + 9].copy_from_slice(b"NOT_LOCK(");
                }
                server.write_all(sent).await?;
                if n == 0 {
                    return Ok(());
                }
            }
        });
    }
}

pub(crate) async fn a_server_without_get_lock_matters_only_where_there_is_something_to_migrate(fixture: &LockFixture) {
    let direct = fixture.server();
    let address = format!("{}:{}", direct.host_str().unwrap(), direct.port().unwrap_or(3306));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut through = direct.clone();
    through.set_host(Some("127.0.0.1")).unwrap();
    through.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    through.set_query(Some("ssl-mode=DISABLED"));
    let mut tasks = JoinSet::new();
    tasks.spawn(without_get_lock(listener, address));
    let (through, direct) = (through.as_str(), direct.as_str());
    let both = [
        locks::migrate(&through.parse().unwrap()).await,
        sinks::migrate(&through.parse().unwrap()).await,
    ];
    for refused in both {
        let error = refused.unwrap_err();
        let text = error.to_string();
        if text.contains("caching_sha2_password") {
            // Without TLS nothing can be read on the way, and with TLS this user of MySQL cannot log in.
            return;
        }
        assert!(matches!(error, BackendError::Refused(_)), "{text}");
        assert!(
            text.contains("refuses GET_LOCK") && text.contains("pxc_strict_mode=PERMISSIVE"),
            "{text}"
        );
    }
    locks::migrate(&direct.parse().unwrap()).await.unwrap();
    sinks::migrate(&direct.parse().unwrap()).await.unwrap();
    locks::migrate(&through.parse().unwrap()).await.unwrap();
    sinks::migrate(&through.parse().unwrap()).await.unwrap();
}

/// A packet of a server.
fn packet(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    [&length[..3], &[number], bytes].concat()
}

/// Greets each client as MariaDB does, and then demands this way to log in.
async fn demands(listener: TcpListener, plugin: &'static str) {
    let greeting = [
        &[10][..],
        b"5.5.5-10.11.6-MariaDB\0",
        // The connection's number, the first part of the challenge, and the end of it.
        &[1, 0, 0, 0],
        b"12345678\0",
        // Capabilities: protocol 4.1, secure connection, plug-ins, a database. utf8mb4, status.
        &[0x08, 0x82, 45, 2, 0, 0x08, 0, 21],
        &[0; 10],
        b"123456789012\0mysql_native_password\0",
    ]
    .concat();
    let switch = [&[0xfe][..], plugin.as_bytes(), b"\0", &[b'x'; 32]].concat();
    while let Ok((mut client, _)) = listener.accept().await {
        client.write_all(&packet(0, &greeting)).await.unwrap();
        let answer = client.read(&mut [0; 4096]).await.unwrap();
        assert!(answer > 0, "the client has closed");
        client.write_all(&packet(2, &switch)).await.unwrap();
        // Until it closes.
        let (mut rest, mut nowhere) = (client, tokio::io::sink());
        tokio::io::copy(&mut rest, &mut nowhere).await.ok();
    }
}

#[tokio::test]
async fn a_user_who_logs_in_by_an_unknown_plug_in_is_refused_at_once_and_the_plug_in_is_named() {
    for plugin in [
        "client_ed25519",
        "auth_gssapi_client",
        "parsec",
        "dialog",
        "mysql_old_password",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(demands(listener, plugin));
        let url = format!("mysql://u:secret@127.0.0.1:{port}/d?ssl-mode=DISABLED");
        let begun = Instant::now();
        let error = locks::open(&url.parse().unwrap(), holder("here", "a"))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, BackendError::Refused(_)), "{text}");
        assert!(
            text.contains(plugin)
                && text.contains("let the user log in by mysql_native_password")
                && !text.contains("secret"),
            "{text}"
        );
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
