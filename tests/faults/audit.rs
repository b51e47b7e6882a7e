//! Compares what the simulated containers wrote with what is stored. It reads the tables with its own SQL statements.

use std::collections::BTreeMap;

use kube_sim::SimCluster;
use kube_sim::audit::{Audit, Discrepancy, LineDigest, StoredStream, find_discrepancies};
use sqlx::{MySqlConnection, Row};

/// A container instance: pod UID, container, container ID.
pub(crate) type StreamKey = (String, String, String);

pub(crate) type StoredStreams = BTreeMap<StreamKey, StoredStream>;

/// What the containers wrote.
pub(crate) fn written(sim: &SimCluster) -> BTreeMap<StreamKey, Vec<LineDigest>> {
    let stream = |truth: kube_sim::WrittenLog| {
        let id = truth.instance.container_id.rsplit("://").next().unwrap().to_owned();
        let entries = truth.lines.iter().map(|line| LineDigest::new(line.time, &line.message));
        let key = (truth.instance.uid.clone(), truth.instance.container.clone(), id);
        (key, entries.collect())
    };
    sim.written().into_iter().map(stream).collect()
}

/// What is stored in MySQL.
pub(crate) async fn stored(sql: &mut MySqlConnection) -> StoredStreams {
    let mut by_id: BTreeMap<i64, (StreamKey, StoredStream)> = BTreeMap::new();
    let streams = "SELECT id, CONVERT(uid USING utf8mb4) AS uid, CONVERT(container USING utf8mb4) AS container, \
         CONVERT(container_id USING utf8mb4) AS container_id FROM log_stream";
    // Until the first replica has made the tables there are none.
    for row in sqlx::query(streams).fetch_all(&mut *sql).await.unwrap_or_default() {
        let key = (row.get("uid"), row.get("container"), row.get("container_id"));
        by_id.insert(row.get("id"), (key, StoredStream::default()));
    }
    if by_id.is_empty() {
        return StoredStreams::new();
    }
    // Streams that were opened in the meantime are read the next time.
    let lines = "SELECT stream, time_ns, message FROM log_record ORDER BY stream, seq";
    for row in sqlx::query(lines).fetch_all(&mut *sql).await.unwrap() {
        if let Some((_, stored)) = by_id.get_mut(&row.get("stream")) {
            stored
                .lines
                .push(LineDigest::new(row.get("time_ns"), &row.get::<Vec<u8>, _>("message")));
        }
    }
    for row in sqlx::query("SELECT stream, seq FROM log_gap")
        .fetch_all(sql)
        .await
        .unwrap()
    {
        if let Some((_, stored)) = by_id.get_mut(&row.get("stream")) {
            stored.gaps.push(usize::try_from(row.get::<i64, _>("seq")).unwrap());
        }
    }
    by_id.into_values().collect()
}

/// The audit, and the first of what is wrong.
pub(crate) fn audit(written: &BTreeMap<StreamKey, Vec<LineDigest>>, stored: &StoredStreams) -> (Audit, Vec<String>) {
    let (sum, findings) = find_discrepancies(written, stored);
    let show = |(stream, finding): &(&StreamKey, Discrepancy)| format!("{}: {finding:?}", stream.0);
    (sum, findings.iter().take(8).map(show).collect())
}
