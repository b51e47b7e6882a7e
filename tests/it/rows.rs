//! Rows of the two tables that podlog reads back, with any value in any column. A row is read or refused, and the next
//! row is not affected. On `SQLite`, with podlog's own tables.

use std::time::Duration;

use podlog::clock::Clock;
use podlog::domain::{Checkpoint, Fence, LockKey};
use podlog::locks::{self, Holder};
use podlog::metrics::Metrics;
use podlog::sinks;
use proptest::collection::vec;
use proptest::prelude::*;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::chunks::{chunk, origin};
use crate::locks::fixture::{GRACE, TTL, request};
use crate::models;
use crate::properties::cases;

/// Numbers, the ends of their ranges among them, as SQL.
fn number() -> impl Strategy<Value = String> {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, 2, 1 << 32, i64::MAX - 1, i64::MAX];
    // The least number cannot be written as a negative literal.
    prop_oneof![prop::sample::select(ends.to_vec()), any::<i64>()].prop_map(|n| {
        n.checked_add(1)
            .map_or_else(|| n.to_string(), |above| format!("({above} - 1)"))
    })
}

/// Bytes as text, which need not be UTF-8.
fn text() -> impl Strategy<Value = String> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| format!("CAST(x'{}' AS TEXT)", hex(&bytes)))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// A column of one of these, and a value for it.
fn change(
    numbers: &'static [&'static str],
    texts: &'static [&'static str],
) -> impl Strategy<Value = (&'static str, String)> {
    prop_oneof![
        (prop::sample::select(numbers), number()),
        (prop::sample::select(texts), text())
    ]
}

/// A database in a file of its own.
struct MigratedFile {
    folder: TempDir,
    runtime: Runtime,
}

impl MigratedFile {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            folder: tempfile::tempdir().unwrap(),
            runtime: runtime.unwrap(),
        }
    }

    fn url(&self) -> String {
        format!("sqlite://{}/podlog.db", self.folder.path().display())
    }

    async fn sql(&self, statement: String) {
        let mut conn = SqliteConnection::connect(&self.url()).await.unwrap();
        sqlx::query(AssertSqlSafe(statement)).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }
}

#[test]
fn a_claim_row_with_any_values_is_read_or_skipped_and_the_next_row_can_be_claimed() {
    let base = MigratedFile::new();
    let url = base.url().parse().unwrap();
    let holder = Holder {
        replica: "a".into(),
        cluster: "default".into(),
        ttl: TTL,
        takeover_grace: GRACE,
    };
    let store = base.runtime.block_on(async {
        locks::migrate(&url).await.unwrap();
        locks::open(&url, holder).await.unwrap()
    });
    let numbers = &["fence", "expires_at", "state", "acquired_at", "updated_at"];
    let texts = &["owner", "wanted_by", "namespace", "pod", "node"];
    let checkpoint = vec(any::<u8>(), 0..60);
    let key = prop_oneof![Just("'pod/bad'".to_owned()), text()];
    let input = (key, vec(change(numbers, texts), 1..4), checkpoint);
    proptest!(cases(150), |((key, changes, checkpoint) in input)| {
        base.runtime.block_on(async {
            base.sql("DELETE FROM distributed_lock".into()).await;
            let insert = "INSERT INTO distributed_lock (cluster, id, fence, expires_at, checkpoint) VALUES";
            base.sql(format!("{insert} ('default', {key}, 7, 0, x'{}')", hex(&checkpoint))).await;
            for (column, value) in &changes {
                base.sql(format!("UPDATE distributed_lock SET {column} = {value}")).await;
            }
            let table = store.table().await.unwrap();
            for (key, row) in &table.rows {
                // Whatever is shown of it.
                drop(format!("{key} {row:?}"));
            }
            let (bad, good) = (LockKey::Pod("bad".into()), LockKey::Pod("good".into()));
            let rows: Vec<_> = table.rows.iter().map(|(key, row)| (key.clone(), row.fence)).collect();
            store.request_handover(&rows).await.unwrap();
            let claims = store.acquire(&[request(&bad), request(&good)]).await.unwrap();
            assert!(claims.iter().any(|claim| claim.key == good), "{claims:?}");
            for claim in &claims {
                drop(Checkpoint::decode(&claim.checkpoint));
                models::check_stored(&claim.checkpoint, &models::running());
            }
            store.delete_rows(&[bad, good.clone()]).await.unwrap();
            assert!(store.table().await.unwrap().rows.contains_key(&good), "it is held");
        });
    });
}

#[test]
fn a_stream_row_with_any_values_is_opened_or_refused_and_the_next_stream_is_stored() {
    let base = MigratedFile::new();
    let url = base.url().parse().unwrap();
    let mut driver = JoinSet::new();
    let sink = base.runtime.block_on(async {
        sinks::migrate(&url).await.unwrap();
        let opened = sinks::open(&url, Clock::boottime(), &Metrics::default(), Duration::from_secs(5)).await;
        let opened = opened.unwrap();
        driver.spawn(opened.driver);
        opened.sink
    });
    let numbers = &[
        "fence",
        "seq",
        "time_ns",
        "ordinal",
        "hash",
        "restart",
        "created_at",
        "updated_at",
    ];
    let texts = &["labels", "node", "namespace", "pod"];
    let input = vec(change(numbers, texts), 1..5);
    let mut round = 0_u32;
    let round = std::cell::Cell::from_mut(&mut round);
    proptest!(cases(150), |(changes in input)| {
        round.set(round.get() + 1);
        let (bad, good) = (origin(&format!("bad-{}", round.get())), origin(&format!("good-{}", round.get())));
        base.runtime.block_on(async {
            for stream in [&bad, &good] {
                sink.open(stream, Fence(7)).await.unwrap();
            }
            for (column, value) in &changes {
                let uid = &bad.stream.uid;
                base.sql(format!("UPDATE log_stream SET {column} = {value} WHERE uid = '{uid}'")).await;
            }
            let lines: [(i64, u32, &[u8]); 2] = [(1, 0, b"a"), (2, 0, b"b")];
            let begin = sink.open(&bad, Fence(7)).await.ok().flatten();
            if let Some(position) = begin {
                models::check_begin(position);
            }
            // A stream that cannot be stored is tried again until the claim ends, beside the others.
            let chunks = [chunk(&bad, 7, begin, &lines), chunk(&good, 7, None, &lines)];
            let [bad_chunk, good_chunk] = chunks;
            let beside = [good_chunk];
            let (_, answers) = tokio::join!(
                tokio::time::timeout(Duration::from_millis(200), sink.write(std::slice::from_ref(&bad_chunk))),
                sink.write(&beside),
            );
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            let again = sink.open(&good, Fence(7)).await.unwrap();
            assert_eq!(again.map(|position| position.time.0), Some(2));
        });
    });
}
