//! Log-ins to `MySQL` and `MariaDB` that change, are slow, or are of a kind that podlog cannot or must not use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use podlog::domain::BackendError;
use podlog::locks::{self, LockStore, LockUrl};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::locks::fixture::{LockFixture, holder, requests};
use crate::locks::mysql::execute;

/// A user of the fixture's database, who is dropped at the end of the test.
struct User<'a> {
    fixture: &'a LockFixture,
    name: String,
    admin: MySqlConnection,
}

impl<'a> User<'a> {
    /// `how`: how the user logs in, such as `IDENTIFIED BY 'first'`.
    async fn new(fixture: &'a LockFixture, how: &str) -> Self {
        let mut admin = fixture.sql().await;
        let name = format!("u{:08x}", fastrand::u32(..));
        execute(&mut admin, &format!("CREATE USER '{name}'@'%' {how}")).await;
        // The tests' user may not grant, so it writes what GRANT would write.
        let row = format!(
            "REPLACE INTO mysql.db (Host, Db, User, Select_priv, Insert_priv, Update_priv, Delete_priv) \
             VALUES ('%', '{}', '{name}', 'Y', 'Y', 'Y', 'Y')",
            fixture.database()
        );
        execute(&mut admin, &row).await;
        execute(&mut admin, "FLUSH PRIVILEGES").await;
        Self { fixture, name, admin }
    }

    fn url(&self, change: impl FnOnce(&mut url::Url)) -> LockUrl {
        let mut url = self.fixture.server();
        url.set_username(&self.name).unwrap();
        url.set_password(None).unwrap();
        change(&mut url);
        url.as_str().parse().unwrap()
    }

    /// Ends all connections of the user. Returns how many there were.
    async fn kill(&mut self) -> usize {
        let sql = format!(
            "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = '{}'",
            self.name
        );
        let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_all(&mut self.admin)
            .await
            .unwrap();
        for id in &ids {
            // It may have ended by itself.
            self.admin
                .execute(AssertSqlSafe(format!("KILL CONNECTION {id}")))
                .await
                .ok();
        }
        ids.len()
    }

    async fn drop(mut self) {
        execute(&mut self.admin, &format!("DROP USER '{}'@'%'", self.name)).await;
    }
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
    let mut user = User::new(fixture, "IDENTIFIED BY 'first'").await;
    let folder = tempfile::tempdir().unwrap();
    // As the kubelet mounts a Secret: a link to a file, which is replaced as a whole.
    let (link, name) = (folder.path().join("password"), |n: u32| {
        folder.path().join(format!("password-{n}"))
    });
    std::fs::write(name(1), "first\n").unwrap();
    std::os::unix::fs::symlink(name(1), &link).unwrap();
    let mut url = user.url(|_| {});
    url.read_password_from("PODLOG_LOCK_PASSWORD_FILE", &link);
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
    std::fs::write(name(2), "second\n").unwrap();
    std::os::unix::fs::symlink(name(2), folder.path().join("new")).unwrap();
    std::fs::rename(folder.path().join("new"), &link).unwrap();
    answers(&store, Duration::from_secs(5)).await;
    user.drop().await;
}

/// Lets each connection wait before it passes anything on.
async fn slow_proxy(listener: TcpListener, server: String, delay: Duration) {
    let mut tasks = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let server = server.clone();
        tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
        });
    }
}

pub(crate) async fn a_log_in_that_takes_longer_than_a_call_succeeds(fixture: &LockFixture) {
    let mut user = User::new(fixture, "IDENTIFIED BY 'first'").await;
    let server = fixture.server();
    let server = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap_or(3306));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    // A call may take 3 s.
    tasks.spawn(slow_proxy(listener, server, Duration::from_secs(4)));
    let url = user.url(|url| {
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
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
    let user = User::new(fixture, how).await;
    let open = async |mode: &str| {
        let url = user.url(|url| {
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
