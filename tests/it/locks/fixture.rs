//! An empty table for each test, on each kind of store, and a way to let time pass for it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use podlog::clock::Clock;
use podlog::domain::{AcquireRequest, AfterRelease, Claim, Fence, LockKey, PodRef, Release, Renewal};
use podlog::lab::memory::MemoryTable;
use podlog::locks::{self, Holder, LockStore, LockUrl};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

/// The usual times: far longer than a test takes.
pub(crate) const TTL: Duration = Duration::from_mins(1);
pub(crate) const GRACE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Sqlite,
    MySql,
    MariaDb,
}

/// A table of its own.
pub(crate) struct LockFixture {
    backend: DatabaseKind,
    url: Option<LockUrl>,
}

enum DatabaseKind {
    Memory(MemoryTable),
    Sqlite(tempfile::TempDir),
    Server {
        admin: Box<MySqlConnectOptions>,
        server: url::Url,
        database: String,
    },
}

/// The URL of a server, if it is there.
pub(crate) fn server(kind: StoreKind) -> Option<String> {
    crate::servers::named(if kind == StoreKind::MySql {
        "PODLOG_TEST_MYSQL"
    } else {
        "PODLOG_TEST_MARIADB"
    })
}

/// Runs a test on a table of its own, and removes the table also when the test fails.
pub(crate) fn run(kind: StoreKind, name: &str, test: impl AsyncFnOnce(&LockFixture)) {
    run_empty(kind, name, async |fixture| {
        if let Some(url) = &fixture.url {
            locks::migrate(url).await.unwrap();
        }
        test(fixture).await;
    });
}

/// Runs a test on a database of its own without tables, and removes it also when the test fails.
pub(crate) fn run_empty(kind: StoreKind, name: &str, test: impl AsyncFnOnce(&LockFixture)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(kind == StoreKind::Memory)
        .build()
        .unwrap();
    runtime.block_on(async {
        let Some(fixture) = LockFixture::new(kind, name).await else {
            return;
        };
        let outcome = AssertUnwindSafe(test(&fixture)).catch_unwind().await;
        fixture.remove().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

impl LockFixture {
    /// An empty database, without tables.
    pub(crate) async fn new(kind: StoreKind, name: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (backend, url) = match kind {
            StoreKind::Memory => (DatabaseKind::Memory(MemoryTable::new(Clock::tokio())), None),
            StoreKind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", folder.path().join("podlog.db").display());
                (DatabaseKind::Sqlite(folder), Some(url))
            }
            StoreKind::MySql | StoreKind::MariaDb => {
                let mut url = url::Url::parse(&server(kind)?).unwrap();
                let admin = Box::new(MySqlConnectOptions::from_str(url.as_str()).unwrap());
                let count = COUNT.fetch_add(1, Ordering::Relaxed);
                let short: String = name.chars().take(30).collect();
                let database = format!("podlog_locks_{}_{count}_{short}", std::process::id());
                let mut conn = admin.connect().await.unwrap();
                conn.execute(AssertSqlSafe(format!("CREATE DATABASE {database}")))
                    .await
                    .unwrap();
                url.set_path(&database);
                let text = url.to_string();
                (
                    DatabaseKind::Server {
                        admin,
                        server: url,
                        database,
                    },
                    Some(text),
                )
            }
        };
        Some(Self {
            backend,
            url: url.map(|url| url.parse().unwrap()),
        })
    }

    /// The URL of a store that has one.
    pub(crate) fn url(&self) -> &LockUrl {
        self.url.as_ref().expect("a table in memory has no URL")
    }

    pub(crate) async fn remove(self) {
        if let DatabaseKind::Server { admin, database, .. } = self.backend {
            let mut conn = admin.connect().await.unwrap();
            conn.execute(AssertSqlSafe(format!("DROP DATABASE {database}")))
                .await
                .unwrap();
            conn.close().await.unwrap();
        }
    }

    /// A holder with the usual times.
    pub(crate) async fn holder(&self, replica: &str) -> Arc<dyn LockStore> {
        self.holder_in("here", replica).await
    }

    pub(crate) async fn holder_in(&self, cluster: &str, replica: &str) -> Arc<dyn LockStore> {
        let holder = holder(cluster, replica);
        match &self.backend {
            DatabaseKind::Memory(table) => Arc::new(table.holder(holder)),
            _ => locks::open(self.url(), holder).await.unwrap(),
        }
    }

    /// Lets time pass for all claims: by the clock, or by moving every expiry back.
    pub(crate) async fn pass(&self, time: Duration) {
        let micros = time.as_micros();
        match &self.backend {
            DatabaseKind::Memory(_) => tokio::time::advance(time).await,
            DatabaseKind::Sqlite(_) => {
                let mut conn = SqliteConnectOptions::new()
                    .filename(self.file())
                    .connect()
                    .await
                    .unwrap();
                let sql = format!("UPDATE distributed_lock SET expires_at = expires_at - {micros}");
                conn.execute(AssertSqlSafe(sql)).await.unwrap();
            }
            DatabaseKind::Server { .. } => {
                let sql =
                    format!("UPDATE distributed_lock SET expires_at = expires_at - INTERVAL {micros} MICROSECOND");
                self.sql().await.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        }
    }

    /// The file of an `SQLite` store.
    pub(crate) fn file(&self) -> PathBuf {
        match &self.backend {
            DatabaseKind::Sqlite(folder) => folder.path().join("podlog.db"),
            _ => panic!("not a file"),
        }
    }

    /// A connection of another client to the database of a server.
    pub(crate) async fn sql(&self) -> MySqlConnection {
        match &self.backend {
            DatabaseKind::Server { admin, database, .. } => {
                admin.as_ref().clone().database(database).connect().await.unwrap()
            }
            _ => panic!("not a server"),
        }
    }

    /// The URL as it is in the environment, with its password, but for the database.
    pub(crate) fn server(&self) -> url::Url {
        match &self.backend {
            DatabaseKind::Server { server, .. } => server.clone(),
            _ => panic!("not a server"),
        }
    }

    /// The name of the database on a server.
    pub(crate) fn database(&self) -> &str {
        match &self.backend {
            DatabaseKind::Server { database, .. } => database,
            _ => panic!("not a server"),
        }
    }
}

pub(crate) fn holder(cluster: &str, replica: &str) -> Holder {
    Holder {
        replica: replica.into(),
        cluster: cluster.into(),
        ttl: TTL,
        takeover_grace: GRACE,
    }
}

pub(crate) fn pod(uid: impl std::fmt::Display) -> LockKey {
    LockKey::Pod(format!("{uid}").into())
}

pub(crate) fn request(key: &LockKey) -> AcquireRequest {
    AcquireRequest {
        key: key.clone(),
        pod_ref: PodRef {
            namespace: "shop".into(),
            pod: "cart-0".into(),
            node: "n1".into(),
        },
    }
}

pub(crate) fn requests(n: usize) -> Vec<AcquireRequest> {
    (0..n).map(|i| request(&pod(format!("uid-{i:05}")))).collect()
}

pub(crate) async fn acquire(store: &Arc<dyn LockStore>, key: &LockKey) -> Option<Claim> {
    store.acquire(&[request(key)]).await.unwrap().pop()
}

pub(crate) fn renewal(key: &LockKey, fence: Fence, checkpoint: Option<&[u8]>) -> Renewal {
    Renewal {
        key: key.clone(),
        fence,
        checkpoint: checkpoint.map(<[u8]>::to_vec),
    }
}

pub(crate) async fn renew(
    store: &Arc<dyn LockStore>,
    claim: &Claim,
    checkpoint: Option<&[u8]>,
) -> podlog::domain::RenewalOutcome {
    store
        .renew(&[renewal(&claim.key, claim.fence, checkpoint)])
        .await
        .unwrap()[0]
}

pub(crate) async fn release(store: &Arc<dyn LockStore>, claim: Claim, checkpoint: Option<&[u8]>, after: AfterRelease) {
    let release = Release {
        claim,
        checkpoint: checkpoint.map(<[u8]>::to_vec),
        after,
    };
    store.release(&[release]).await.unwrap();
}
