//! The sink stores each line once although a proxy loses replies or connections are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use podlog::clock::Clock;
use podlog::domain::Fence;
use podlog::metrics::Metrics;
use podlog::sinks::open;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::chunks::{chunk, origin};
use crate::sinks::fixture::{each_exact, unchanged};

/// Forwards connections. When `replies` reaches 0, the connection of that reply stays open but gets no more replies;
/// its requests still arrive. A negative number loses nothing.
async fn relay(listener: TcpListener, server: String, replies: Arc<AtomicI64>) {
    let mut tasks = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let there = TcpStream::connect(&server).await.unwrap();
        client.set_nodelay(true).unwrap();
        there.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = there.into_split();
        let replies = replies.clone();
        tasks.spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) });
        tasks.spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            let mut dumb = false;
            loop {
                let read = from_server.read(&mut buffer).await?;
                if read == 0 {
                    return Ok(());
                }
                dumb |= replies.fetch_sub(1, Ordering::SeqCst) == 0;
                if !dumb {
                    to_client.write_all(&buffer[..read]).await?;
                }
            }
        });
    }
}

#[tokio::test]
async fn every_line_is_stored_once_and_in_order_when_any_reply_is_lost() {
    each_exact(async |fixture| {
        if fixture.name == "sqlite" {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (login, rest) = fixture.url.rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let replies = Arc::new(AtomicI64::new(-1));
        let mut tasks = JoinSet::new();
        tasks.spawn(relay(listener, server.to_owned(), replies.clone()));
        let url = format!("{login}@127.0.0.1:{port}/{database}").parse().unwrap();
        let attempt = Duration::from_millis(700);
        let opened = open(&url, Clock::boottime(), &Metrics::default(), attempt)
            .await
            .unwrap();
        tasks.spawn(opened.driver.map(Result::unwrap));
        let stream = origin("lost");
        let at = opened.sink.open(&stream, Fence(1)).await.unwrap();
        assert_eq!(at, None);
        let texts: Vec<Vec<u8>> = (0..60).map(|n| format!("line {n}").into_bytes()).collect();
        let lines: Vec<_> = texts
            .iter()
            .zip(0..)
            .map(|(text, n)| (n / 2, (n % 2) as u32, &text[..]))
            .collect();
        let mut at = at;
        // A write is about eight replies: ping, begin, lock, inserts, positions, commit, ping.
        for (part, lost) in lines.chunks(5).zip(0..) {
            replies.store(lost, Ordering::SeqCst);
            let next = chunk(&stream, 1, at, part);
            at = next.end;
            assert!(opened.sink.write(&[next]).await[0].is_ok());
            replies.store(-1, Ordering::SeqCst);
        }
        assert_eq!(fixture.read(&stream).await, unchanged(&lines));
    })
    .await;
}

#[tokio::test]
async fn connections_killed_at_any_moment_lose_and_repeat_no_line() {
    each_exact(async |fixture| {
        if fixture.name == "sqlite" {
            return;
        }
        let running = fixture.open().await;
        let stream = origin("killing");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let texts: Vec<Vec<u8>> = (0..3000).map(|n| format!("line {n}").into_bytes()).collect();
        let lines: Vec<_> = texts.iter().zip(0..).map(|(text, n)| (n, 0, &text[..])).collect();
        let write = async {
            let mut at = None;
            for part in lines.chunks(100) {
                let next = chunk(&stream, 1, at, part);
                at = next.end;
                assert!(running.sink.write(&[next]).await[0].is_ok());
            }
        };
        let kill = async {
            let mut conn = fixture.mysql().await;
            let find = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                WHERE db = DATABASE() AND id <> CONNECTION_ID()";
            let mut killed = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(1..40))).await;
                let found: Result<Vec<i64>, _> = sqlx::query_scalar(find).fetch_all(&mut conn).await;
                // MySQL cannot show the process list while it contains a statement with bytes that are not text.
                let ids = match found {
                    Err(error) if error.to_string().contains("Cannot convert string") => Vec::new(),
                    found => found.unwrap(),
                };
                for id in ids {
                    // It may have ended by itself.
                    killed += u32::from(
                        conn.execute(AssertSqlSafe(format!("KILL CONNECTION {id}")))
                            .await
                            .is_ok(),
                    );
                }
                if killed > 500 {
                    return killed;
                }
            }
        };
        tokio::select! {
            biased;
            () = write => {}
            killed = kill => panic!("{killed} connections were killed and the writes are not done"),
        }
        assert_eq!(fixture.read(&stream).await, unchanged(&lines));
        fixture.mysql().await.close().await.unwrap();
    })
    .await;
}
