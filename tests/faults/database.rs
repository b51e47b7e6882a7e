//! A database for one test on a real server, dropped afterwards, and the claims in it. It uses none of podlog's code:
//! it sees what any SQL client sees.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::time::{Duration, Instant};

use futures::FutureExt;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};
use tokio::sync::Mutex;
use url::Url;

use crate::servers;

/// A database on a server.
pub(crate) struct Database {
    /// With its password, not through any proxy.
    pub(crate) url: Url,
    pub(crate) name: String,
    admin: Box<MySqlConnectOptions>,
    watch: Mutex<Option<MySqlConnection>>,
}

/// What a pod's row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The readable part of the holder's identity, if it is held and has not expired.
    pub(crate) holder: Option<String>,
    pub(crate) fence: u64,
}

/// Runs a test on MySQL and on MariaDB at the same time, each in a database of its own.
pub(crate) fn on_both(test: impl AsyncFn(&Database)) {
    let mysql = servers::named("PODLOG_TEST_MYSQL");
    let mariadb = servers::named("PODLOG_TEST_MARIADB");
    runtime().block_on(async {
        let one = async |server: Option<String>| match server {
            Some(server) => within(&server, &test).await.err().map(|panic| (server, panic)),
            None => None,
        };
        let (first, second) = tokio::join!(one(mysql), one(mariadb));
        for (server, panic) in [first, second].into_iter().flatten() {
            let port = Url::parse(&server).unwrap().port();
            println!("failed on the server at port {port:?}");
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Runs a test in a database of its own on this server.
pub(crate) async fn within(
    server: &str,
    test: impl AsyncFnOnce(&Database),
) -> Result<(), Box<dyn std::any::Any + Send>> {
    let database = Database::new(server).await;
    let outcome = AssertUnwindSafe(test(&database)).catch_unwind().await;
    let drop = format!("DROP DATABASE {}", database.name);
    database.sql().await.execute(AssertSqlSafe(drop)).await.unwrap();
    outcome
}

impl Database {
    /// A new one on this server.
    pub(crate) async fn new(server: &str) -> Self {
        let mut url = Url::parse(server).unwrap();
        let admin = Box::new(MySqlConnectOptions::from_str(server).unwrap());
        let name = format!("podlog_faults_{:016x}", fastrand::u64(..));
        let create = format!("CREATE DATABASE {name}");
        admin
            .connect()
            .await
            .unwrap()
            .execute(AssertSqlSafe(create))
            .await
            .unwrap();
        url.set_path(&name);
        let watch = Mutex::default();
        Self {
            url,
            name,
            admin,
            watch,
        }
    }

    /// No database at all, for replicas that keep everything in files.
    pub(crate) fn nowhere() -> Self {
        Self {
            url: Url::parse("mysql://nobody@127.0.0.1:1/nothing").unwrap(),
            name: String::new(),
            admin: Box::new(MySqlConnectOptions::new()),
            watch: Mutex::default(),
        }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap(), self.url.port().unwrap_or(3306))
    }

    /// The URL of the same database by way of a proxy at this port.
    pub(crate) fn through(&self, port: u16) -> String {
        let mut url = self.url.clone();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
        url.into()
    }

    /// A connection of another client to it.
    pub(crate) async fn sql(&self) -> MySqlConnection {
        let options = self.admin.as_ref().clone().database(&self.name);
        let connect = || options.connect();
        until("a connection to the database", Duration::from_secs(30), async || {
            connect().await.map_err(|error| error.to_string())
        })
        .await
    }

    pub(crate) async fn execute(&self, statement: &str) {
        execute(&mut self.sql().await, statement).await;
    }

    /// The rows of a query, over one connection that is kept. None while there are no tables yet.
    pub(crate) async fn rows(&self, query: &str) -> Vec<MySqlRow> {
        let mut watch = self.watch.lock().await;
        loop {
            let mut sql = match watch.take() {
                Some(sql) => sql,
                None => self.sql().await,
            };
            match sql.fetch_all(AssertSqlSafe(query.to_owned())).await {
                Ok(rows) => {
                    *watch = Some(sql);
                    return rows;
                }
                Err(sqlx::Error::Database(_)) => return Vec::new(),
                // The server has gone and come back.
                Err(_) => {}
            }
        }
    }

    /// What every pod's row says, by UID.
    pub(crate) async fn claims(&self) -> BTreeMap<String, Claim> {
        let query = "SELECT CONVERT(SUBSTRING(id, 5) USING utf8mb4) AS uid, CONVERT(owner USING utf8mb4) AS owner, fence, \
             CAST(expires_at > UTC_TIMESTAMP(6) AS SIGNED) AS good FROM distributed_lock WHERE id LIKE 'pod/%'";
        let claim = |row: &MySqlRow| {
            let owner: Option<String> = row.get("owner");
            let good = row.get::<Option<i64>, _>("good") == Some(1);
            let name = |owner: String| owner.split('#').next().unwrap().to_owned();
            let holder = owner.filter(|_| good).map(name);
            let fence = row.get("fence");
            (row.get("uid"), Claim { holder, fence })
        };
        self.rows(query).await.iter().map(claim).collect()
    }

    /// How many replicas count as alive.
    pub(crate) async fn replicas(&self) -> usize {
        let alive = "SELECT id FROM distributed_lock WHERE id LIKE 'replica/%' AND expires_at > UTC_TIMESTAMP(6)";
        self.rows(alive).await.len()
    }

    /// How many records are stored of each stream; by pod and container ID.
    pub(crate) async fn stored(&self) -> BTreeMap<(String, String), i64> {
        let query = "SELECT CONVERT(uid USING utf8mb4), CONVERT(container_id USING utf8mb4), CAST(seq AS SIGNED) FROM log_stream";
        let rows = self.rows(query).await;
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
    }

    /// How many pods each replica holds.
    pub(crate) async fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for claim in self.claims().await.into_values() {
            if let Some(holder) = claim.holder {
                *shares.entry(holder).or_default() += 1;
            }
        }
        shares
    }
}

pub(crate) async fn execute(conn: &mut MySqlConnection, statement: &str) {
    conn.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
}

/// Tries until it succeeds; fails after `limit` with the last reason. Returns what came out.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < end, "not within {limit:?}: {what}; {why}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
