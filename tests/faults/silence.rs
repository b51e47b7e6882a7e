//! Measures when replicas stop writing to their sink, in the database and at the proxy in front of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::MySqlConnection;

use crate::database::Claim;
use crate::fixture::{Fixture, PATIENCE};
use crate::replica::Replica;

/// How long nothing must be stored to count as silence.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// A connection that is closed says so in fewer bytes than this; a write has more.
const FAREWELL: u64 = 300;

/// How much later than it was begun a write may show on a busy machine.
pub(crate) const BUSY: Duration = Duration::from_millis(500);

/// How many records are stored of the pods that this replica holds in `claims`, under these claims.
async fn stored_under(sql: &mut MySqlConnection, claims: &BTreeMap<String, Claim>, replica: &Replica) -> i64 {
    let own = |(uid, claim): (&String, &Claim)| {
        let own = claim.holder.as_ref() == Some(&replica.name);
        own.then(|| format!("(uid = '{uid}' AND fence <= {})", claim.fence))
    };
    let own: Vec<String> = claims.iter().filter_map(own).collect();
    let sum = format!(
        "SELECT CAST(COALESCE(SUM(seq), -1) AS SIGNED) FROM log_stream WHERE {}",
        own.join(" OR ")
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(sum))
        .fetch_one(sql)
        .await
        .unwrap()
}

/// Waits until nothing is stored any more under the claims of a replica; returns how long it took until the last.
pub(crate) async fn falls_silent(
    fixture: &Fixture<'_>,
    claims: &BTreeMap<String, Claim>,
    replica: &Replica,
) -> Duration {
    writes_last(fixture, claims, replica, SILENCE).await
}

/// The same, and watches it for so long at least: a server that is busy may store nothing for a while.
pub(crate) async fn writes_last(
    fixture: &Fixture<'_>,
    claims: &BTreeMap<String, Claim>,
    replica: &Replica,
    least: Duration,
) -> Duration {
    let mut sql = fixture.records.sql().await;
    let begun = Instant::now();
    let (mut stored, mut since) = (stored_under(&mut sql, claims, replica).await, begun);
    while since.elapsed() < SILENCE || begun.elapsed() < least {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = stored_under(&mut sql, claims, replica).await;
        // Fewer, when somebody else has taken over one of the streams.
        if now > stored {
            since = Instant::now();
        }
        stored = now;
        assert!(begun.elapsed() < PATIENCE, "{} does not stop writing", replica.name);
    }
    since - begun
}

/// How many bytes each of these sends to its sink in so long.
pub(crate) async fn sent(replicas: &[&Replica], time: Duration) -> Vec<u64> {
    let before: Vec<u64> = replicas.iter().map(|replica| replica.sink.passed()).collect();
    tokio::time::sleep(time).await;
    let now = replicas.iter().map(|replica| replica.sink.passed());
    now.zip(before).map(|(now, before)| now - before).collect()
}

/// No replica writes to the sink, which is reachable: these replicas sent to it no more than the bytes that close a
/// connection.
pub(crate) fn assert_silent(sent: &[u64]) {
    assert!(sent.iter().all(|bytes| *bytes < FAREWELL), "they write: {sent:?}");
}
