//! The sinks under test, and reading what they stored without using the sink.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use podlog::clock::Clock;
use podlog::domain::Origin;
use podlog::metrics::Metrics;
use podlog::sinks::{Retention, Sink, SinkUrl, migrate, open};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A new and empty store for records.
pub(crate) struct SinkFixture {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    dir: TempDir,
    /// The server's URL and our database on it.
    database: Option<(String, String)>,
}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    pub(crate) time: i64,
    pub(crate) ordinal: u32,
    pub(crate) message: Vec<u8>,
    pub(crate) cut: i64,
}

/// A sink in use, as a replica uses it. Dropping it ends its driver.
pub(crate) struct OpenSink {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) retention: Option<Arc<dyn Retention>>,
    _driver: JoinSet<()>,
}

/// Runs a test on every kind of sink, one after another, each with an empty store.
pub(crate) async fn each(test: impl AsyncFn(&SinkFixture)) {
    run(&["file", "sqlite", "mysql", "mariadb"], test).await;
}

/// Runs a test on the sinks that store positions with the records.
pub(crate) async fn each_exact(test: impl AsyncFn(&SinkFixture)) {
    run(&["sqlite", "mysql", "mariadb"], test).await;
}

async fn run(names: &[&'static str], test: impl AsyncFn(&SinkFixture)) {
    for name in names {
        let Some(fixture) = SinkFixture::new(name).await else {
            continue;
        };
        println!("with {name}");
        let result = AssertUnwindSafe(test(&fixture)).catch_unwind().await;
        fixture.remove().await;
        if let Err(panic) = result {
            println!("failed with {name}");
            std::panic::resume_unwind(panic);
        }
    }
}

impl SinkFixture {
    pub(crate) async fn new(name: &'static str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let mut database = None;
        let url = match name {
            "file" => format!("file://{path}/logs?fsync=never"),
            "sqlite" => format!("sqlite://{path}/podlog.db"),
            _ => {
                let server = crate::servers::named(&format!("PODLOG_TEST_{}", name.to_uppercase()))?;
                let own = format!("podlog_sinks_{:016x}", fastrand::u64(..));
                let mut conn = MySqlConnection::connect(&server).await.unwrap();
                sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {own}")))
                    .execute(&mut conn)
                    .await
                    .unwrap();
                let (address, parameters) = server.split_once('?').unwrap_or((&server, ""));
                let (head, _) = address.rsplit_once('/').unwrap();
                let url = format!("{head}/{own}?{parameters}");
                database = Some((server, own));
                url
            }
        };
        let fixture = Self {
            name,
            url,
            dir,
            database,
        };
        migrate(&fixture.parsed()).await.unwrap();
        Some(fixture)
    }

    pub(crate) fn parsed(&self) -> SinkUrl {
        self.url.parse().unwrap()
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub(crate) async fn open(&self) -> OpenSink {
        self.open_at(&self.parsed()).await
    }

    /// Opens the sink by another URL.
    pub(crate) async fn open_at(&self, url: &SinkUrl) -> OpenSink {
        let attempt = Duration::from_secs(5);
        let opened = open(url, Clock::boottime(), &Metrics::default(), attempt)
            .await
            .unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(opened.driver.map(Result::unwrap));
        OpenSink {
            sink: opened.sink,
            retention: opened.retention,
            _driver: driver,
        }
    }

    async fn remove(&self) {
        if let Some((server, own)) = &self.database {
            let mut conn = MySqlConnection::connect(server).await.unwrap();
            sqlx::query(AssertSqlSafe(format!("DROP DATABASE {own}")))
                .execute(&mut conn)
                .await
                .unwrap();
        }
    }

    /// Runs a statement on the database behind the sink.
    pub(crate) async fn sql(&self, statement: &str) -> u64 {
        let statement = AssertSqlSafe(statement.to_owned());
        if self.database.is_some() {
            let mut conn = self.mysql().await;
            sqlx::query(statement).execute(&mut conn).await.unwrap().rows_affected()
        } else {
            let mut conn = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(statement).execute(&mut conn).await.unwrap().rows_affected()
        }
    }

    pub(crate) async fn mysql(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.url).await.unwrap()
    }

    /// The rows of a query, as text.
    pub(crate) async fn rows<const N: usize>(&self, columns: [&str; N], rest: &str) -> Vec<Vec<Option<String>>> {
        let columns: Vec<String> = columns.iter().map(|c| format!("CAST({c} AS CHAR)")).collect();
        let query = AssertSqlSafe(format!("SELECT {} {rest}", columns.join(", ")));
        if self.database.is_some() {
            let rows = sqlx::query(query).fetch_all(&mut self.mysql().await).await.unwrap();
            rows.iter().map(|row| (0..N).map(|at| row.get(at)).collect()).collect()
        } else {
            let mut conn = SqliteConnection::connect(&self.url).await.unwrap();
            let rows = sqlx::query(query).fetch_all(&mut conn).await.unwrap();
            rows.iter().map(|row| (0..N).map(|at| row.get(at)).collect()).collect()
        }
    }

    /// What is stored of a stream, in the stored order.
    pub(crate) async fn read(&self, origin: &Origin) -> Vec<StoredRecord> {
        let uid = origin.stream.uid.as_str();
        if self.name == "file" {
            return self
                .records(origin)
                .iter()
                .filter(|r| r.get("gap").is_none())
                .map(from_json)
                .collect();
        }
        let query = AssertSqlSafe(format!(
            "SELECT r.time_ns, r.ordinal, r.message, r.cut FROM log_record r \
             JOIN log_stream s ON s.id = r.stream WHERE s.uid = '{uid}' ORDER BY r.seq"
        ));
        if self.database.is_some() {
            let all: Vec<(i64, u32, Vec<u8>, i64)> =
                sqlx::query_as(query).fetch_all(&mut self.mysql().await).await.unwrap();
            all.into_iter().map(stored).collect()
        } else {
            let mut conn = SqliteConnection::connect(&self.url).await.unwrap();
            let all: Vec<(i64, u32, Vec<u8>, i64)> = sqlx::query_as(query).fetch_all(&mut conn).await.unwrap();
            all.into_iter().map(stored).collect()
        }
    }

    /// The gaps of a stream: before which record, and why.
    pub(crate) async fn gaps(&self, origin: &Origin) -> Vec<String> {
        if self.name == "file" {
            let records = self.records(origin);
            return records
                .iter()
                .filter_map(|r| r["gap"]["reason"].as_str())
                .map(str::to_owned)
                .collect();
        }
        let rest = format!("FROM log_gaps WHERE uid = '{}' ORDER BY before_seq", origin.stream.uid);
        self.rows(["reason"], &rest)
            .await
            .into_iter()
            .map(|mut row| row.remove(0).unwrap())
            .collect()
    }

    /// The JSON records of a stream: rotated files first, the oldest first.
    pub(crate) fn records(&self, origin: &Origin) -> Vec<Value> {
        let stream = format!("_{}/app", origin.stream.uid);
        let mut files: Vec<PathBuf> = find(&self.dir())
            .into_iter()
            .filter(|p| p.display().to_string().contains(&stream))
            .collect();
        let number = |path: &Path| {
            path.display()
                .to_string()
                .rsplit_once("jsonl.")
                .map_or(0, |(_, n)| n.parse().unwrap())
        };
        files.sort_by_key(|path| std::cmp::Reverse::<u32>(number(path)));
        let texts = files.iter().map(|path| std::fs::read_to_string(path).unwrap());
        texts
            .collect::<String>()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// All files below a directory.
pub(crate) fn find(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(find(&path));
        } else {
            all.push(path);
        }
    }
    all
}

fn stored((time, ordinal, message, cut): (i64, u32, Vec<u8>, i64)) -> StoredRecord {
    StoredRecord {
        time,
        ordinal,
        message,
        cut,
    }
}

fn from_json(record: &Value) -> StoredRecord {
    let id: Vec<&str> = record["id"].as_str().unwrap().rsplit('/').collect();
    StoredRecord {
        time: id[1].parse().unwrap(),
        ordinal: id[0].parse().unwrap(),
        message: record["message"].as_str().unwrap().as_bytes().to_vec(),
        cut: record["cut"].as_i64().unwrap_or(0),
    }
}

/// The stored records of lines that are stored unchanged.
pub(crate) fn unchanged(lines: &[crate::chunks::TestLine<'_>]) -> Vec<StoredRecord> {
    let one = |&(time, ordinal, message): &crate::chunks::TestLine<'_>| stored((time, ordinal, message.to_vec(), 0));
    lines.iter().map(one).collect()
}
