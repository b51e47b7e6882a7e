//! Reads what replicas stored in files: JSON records and SQLite databases.

use std::collections::BTreeMap;
use std::path::Path;

use kube_sim::audit::{LineDigest, StoredStream};
use serde_json::Value;
use sqlx::{Connection, Row, SqliteConnection};

use crate::audit::StoredStreams;

/// The records of all files below a folder: id and message, per pod, in the order in which they lie there.
pub(crate) fn records(folder: &Path) -> BTreeMap<String, Vec<(String, String)>> {
    let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for (pod, record) in records_of(&std::fs::read_to_string(path).unwrap()) {
                all.entry(pod).or_default().push(record);
            }
        }
    }
    all
}

/// The records of one file, each with its pod, without a last line that is half written.
pub(crate) fn records_of(text: &str) -> impl Iterator<Item = (String, (String, String))> {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(record.get("gap").is_none(), "{record}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pod = text(&record["kubernetes"]["uid"]);
        (pod, (text(&record["id"]), text(&record["message"])))
    })
}

/// What is stored in a file.
pub(crate) async fn stored(url: &str) -> StoredStreams {
    let mut conn = SqliteConnection::connect(url).await.unwrap();
    let mut all = BTreeMap::new();
    // One snapshot of all tables. Until the first replica has made them there are none.
    let mut tx = conn.begin().await.unwrap();
    let streams = "SELECT id, uid, container, container_id FROM log_stream";
    for row in sqlx::query(streams).fetch_all(&mut *tx).await.unwrap_or_default() {
        let key: (String, String, String) = (row.get(1), row.get(2), row.get(3));
        all.insert(row.get::<i64, _>(0), (key, StoredStream::default()));
    }
    if !all.is_empty() {
        let lines = "SELECT stream, time_ns, message FROM log_record ORDER BY stream, seq";
        for row in sqlx::query(lines).fetch_all(&mut *tx).await.unwrap() {
            let lines = &mut all.get_mut(&row.get::<i64, _>(0)).unwrap().1.lines;
            lines.push(LineDigest::new(row.get(1), &row.get::<Vec<u8>, _>(2)));
        }
        let gaps: Vec<i64> = sqlx::query_scalar("SELECT seq FROM log_gap")
            .fetch_all(&mut *tx)
            .await
            .unwrap();
        assert_eq!(gaps, [0; 0]);
    }
    all.into_values().collect()
}
