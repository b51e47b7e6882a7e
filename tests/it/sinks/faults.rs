//! Faults of databases that tests can cause on a shared server.

use std::time::{Duration, Instant};

use podlog::clock::Clock;
use podlog::domain::{BackendError, Fence};
use podlog::metrics::Metrics;
use podlog::sinks::{DiagnoseOptions, diagnose, migrate, open};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, SqliteConnection};

use crate::chunks::{TestLine, chunk, origin};
use crate::database_user::{User, replace};
use crate::sinks::fixture::{each_exact, unchanged};

const LINES: [TestLine<'static>; 2] = [(1, 0, b"a"), (1, 1, b"b")];

/// Longer than a transaction waits for a lock (3 and 4 s), so that the first try fails.
const HELD: Duration = Duration::from_millis(4_500);

#[tokio::test]
async fn a_write_waits_for_a_lock_of_another_client_and_is_stored_once() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("held");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let chunks = [chunk(&stream, 1, None, &LINES)];
        let write = running.sink.write(&chunks);
        let hold = async |write: &mut std::pin::Pin<Box<_>>| {
            assert!(
                tokio::time::timeout(HELD, write).await.is_err(),
                "nothing can be written meanwhile"
            );
        };
        let mut write = Box::pin(write);
        if fixture.name == "sqlite" {
            let mut conn = SqliteConnection::connect(&fixture.url).await.unwrap();
            let tx = conn.begin_with("BEGIN IMMEDIATE").await.unwrap();
            hold(&mut write).await;
            tx.rollback().await.unwrap();
        } else {
            let mut conn = fixture.mysql().await;
            let mut tx = conn.begin().await.unwrap();
            tx.execute("SELECT id FROM log_stream WHERE uid = 'held' FOR UPDATE")
                .await
                .unwrap();
            hold(&mut write).await;
            tx.rollback().await.unwrap();
        }
        assert!(write.await[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
    })
    .await;
}

#[tokio::test]
async fn killed_connections_are_replaced() {
    each_exact(async |fixture| {
        if fixture.name == "sqlite" {
            return;
        }
        let running = fixture.open().await;
        let stream = origin("killed");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let first = chunk(&stream, 1, None, &LINES[..1]);
        assert!(running.sink.write(std::slice::from_ref(&first)).await[0].is_ok());
        let mut conn = fixture.mysql().await;
        let find = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
        let ids: Vec<i64> = sqlx::query_scalar(find).fetch_all(&mut conn).await.unwrap();
        assert!(!ids.is_empty());
        for id in ids {
            conn.execute(AssertSqlSafe(format!("KILL CONNECTION {id}"))).await.unwrap();
        }
        assert!(running.sink.write(&[chunk(&stream, 1, first.end, &LINES[1..])]).await[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
    })
    .await;
}

#[tokio::test]
async fn a_message_too_large_for_a_packet_or_column_is_truncated_and_marked() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("huge");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let huge = vec![b'x'; 17 << 20];
        assert!(running.sink.write(&[chunk(&stream, 1, None, &[(1, 0, &huge)])]).await[0].is_ok());
        let stored = fixture.read(&stream).await.remove(0);
        assert_eq!(stored.message.len() as i64 + stored.cut, 17 << 20);
        assert!(stored.message.len() > (1 << 24) - 5000, "{}", stored.message.len());
        // The position is of the line as it was read, so that it is recognised.
        assert!(running.sink.open(&stream, Fence(2)).await.unwrap().is_some());
        assert!(running.sink.write(&[chunk(&stream, 2, None, &[(1, 0, &huge)])]).await[0].is_ok());
        assert_eq!(fixture.read(&stream).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_connection_error_is_reported_once_and_in_plain_words() {
    each_exact(async |fixture| {
        if fixture.name == "sqlite" {
            return;
        }
        let refused = async |url: String| {
            let url = url.parse().unwrap();
            open(&url, Clock::boottime(), &Metrics::default(), Duration::from_secs(5))
                .await
                .unwrap_err()
        };
        let (login, rest) = fixture.url.rsplit_once('@').unwrap();
        let (_, password) = login.rsplit_once(':').unwrap();
        let wrong = refused(fixture.url.replace(&format!(":{password}@"), ":wrong-s3cret@")).await;
        assert!(
            matches!(&wrong, BackendError::Refused(why) if why.remedy.contains("check the user and the password")),
            "{wrong}"
        );
        assert!(!wrong.to_string().contains("s3cret"));
        let (server, _) = fixture.url.rsplit_once('/').unwrap();
        let unknown = refused(format!("{server}/no_such_database")).await;
        assert!(
            matches!(&unknown, BackendError::Refused(why) if why.remedy.contains("create the database")),
            "{unknown}"
        );
        let (host, _) = rest.split_once(':').unwrap();
        let nobody = refused(format!("mysql://u@{host}:1/d")).await;
        assert!(
            matches!(&nobody, BackendError::Unavailable(why) if why.to_string().contains("cannot be reached")),
            "{nobody}"
        );
    })
    .await;
}

/// The ids of the connections to the fixture's database, but for this one.
async fn connections(conn: &mut MySqlConnection) -> Vec<i64> {
    let find =
        "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    sqlx::query_scalar(find).fetch_all(conn).await.unwrap()
}

#[tokio::test]
async fn a_locked_table_takes_no_more_connections_than_the_sink_has_and_each_line_is_stored_once() {
    for (lock, name) in [
        ("LOCK TABLES log_stream READ LOCAL", "stream"),
        ("LOCK TABLES log_record WRITE", "record"),
    ] {
        each_exact(async |fixture| {
            if fixture.name == "sqlite" {
                return;
            }
            let running = fixture.open().await;
            let streams: Vec<_> = (0..8).map(|n| origin(&format!("{name}-{n}"))).collect();
            for stream in &streams {
                running.sink.open(stream, Fence(1)).await.unwrap();
            }
            let (mut locker, mut observer) = (fixture.mysql().await, fixture.mysql().await);
            locker.execute(lock).await.unwrap();
            let writes = futures::future::join_all(streams.iter().map(|stream| {
                let sink = running.sink.clone();
                async move { sink.write(&[chunk(stream, 1, None, &LINES)]).await.remove(0) }
            }));
            let observe = async {
                let (mut most, begun) = (0, Instant::now());
                // More than two attempts of 5 s.
                while begun.elapsed() < Duration::from_secs(11) {
                    most = most.max(connections(&mut observer).await.len());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                locker.execute("UNLOCK TABLES").await.unwrap();
                most
            };
            let (written, most) = tokio::join!(writes, observe);
            assert!(written.iter().all(Result::is_ok), "{written:?}");
            // Five of the sink, and the one that has locked the table.
            assert!((2..=6).contains(&most), "{most} connections at once");
            for stream in &streams {
                assert_eq!(fixture.read(stream).await, unchanged(&LINES));
            }
        })
        .await;
    }
}

#[tokio::test]
async fn views_of_an_older_version_get_the_rights_of_their_readers() {
    each_exact(async |fixture| {
        if fixture.name == "sqlite" {
            return;
        }
        let security = async || {
            let rest = "FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()";
            fixture.rows(["SECURITY_TYPE"], rest).await
        };
        let all = |word: &str| vec![vec![Some(word.to_owned())]; 2];
        assert_eq!(security().await, all("INVOKER"));
        for (view, table) in [("log_line", "log_record"), ("log_gaps", "log_gap")] {
            fixture
                .sql(&format!("CREATE OR REPLACE VIEW {view} AS SELECT * FROM {table}"))
                .await;
        }
        assert_eq!(security().await, all("DEFINER"));
        let options = DiagnoseOptions {
            migrates: true,
            retains: false,
            max_line: 1000,
        };
        let findings = diagnose(&fixture.parsed(), options).await;
        let warned = findings.iter().find(|finding| finding.subject == "views").unwrap();
        assert!(
            warned.message.text.starts_with("log_gaps and log_line")
                || warned.message.text.starts_with("log_line and log_gaps"),
            "{warned:?}"
        );
        migrate(&fixture.parsed()).await.unwrap();
        assert_eq!(security().await, all("INVOKER"));
        let columns = fixture.rows(
            ["COUNT(*)"],
            "FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'log_line'",
        );
        assert_eq!(columns.await, [[Some("12".to_owned())]]);
        let findings = diagnose(&fixture.parsed(), options).await;
        assert!(
            findings.iter().all(|finding| finding.subject != "views"),
            "{findings:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_sink_continues_when_its_password_is_changed_and_then_the_file_and_each_line_is_stored_once() {
    each_exact(async |fixture| {
        if fixture.name == "sqlite" {
            return;
        }
        let server = url::Url::parse(&fixture.url).unwrap();
        let mut user = User::new(fixture.mysql().await, server, "IDENTIFIED BY 'first'").await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        replace(&file, "first\n");
        let mut url: podlog::sinks::SinkUrl = user.url().as_str().parse().unwrap();
        url.read_password_from("PODLOG_SINK_PASSWORD_FILE", &file);
        let running = fixture.open_at(&url).await;
        let stream = origin("rotated");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let first = chunk(&stream, 1, None, &LINES[..1]);
        assert!(running.sink.write(std::slice::from_ref(&first)).await[0].is_ok());
        let alter = format!("ALTER USER '{}'@'%' IDENTIFIED BY 'second'", user.name);
        user.admin.execute(AssertSqlSafe(alter)).await.unwrap();
        assert!(user.kill().await > 0);
        let chunks = [chunk(&stream, 1, first.end, &LINES[1..])];
        let mut write = std::pin::pin!(running.sink.write(&chunks));
        let early = tokio::time::timeout(Duration::from_secs(4), &mut write).await;
        assert!(early.is_err(), "it is written with the old password");
        replace(&file, "second\n");
        let written = tokio::time::timeout(Duration::from_secs(20), write).await;
        assert!(written.unwrap()[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
        user.drop().await;
    })
    .await;
}
