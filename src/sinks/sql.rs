//! What the two SQL sinks share: how rows are batched and how positions are written as JSON.
//! No statement is sent from here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use super::SinkError;
use super::dedup::{Record, Row};
use crate::domain::{Chunk, Origin, StreamId};

/// Rows of one insert are a power of two up to 2^9 = 512, so there are ten texts and not five hundred;
/// 512 rows of 6 values are far below the 32,766 values SQLite takes and the 65,535 MySQL takes.
const LARGEST: u32 = 9;

/// Texts that insert 1, 2, 4 … 512 rows of six values.
pub(super) fn inserts(head: &str) -> Vec<String> {
    let rows = |power| vec!["(?,?,?,?,?,?)"; 1_usize << power].join(",");
    (0..=LARGEST).map(|power| format!("{head}{}", rows(power))).collect()
}

/// Bytes of a row beside its message: five numbers, lengths, types.
const ROW_BYTES: usize = 64;

/// How many of the records fit into one statement of `limit` bytes, as a power of two; at least one.
pub(super) fn batch(records: &[Record<'_>], limit: usize) -> usize {
    let mut bytes = 0;
    let fit = records.iter().take(1 << LARGEST).take_while(|record| {
        bytes += record.message.len() + ROW_BYTES;
        bytes <= limit
    });
    fit.count().max(1).ilog2() as usize
}

/// The rows as a JSON array of arrays: id, fence, time, ordinal, hash, seq.
pub(super) fn positions(rows: &[Row]) -> String {
    let values = rows.iter().map(|row| {
        let at = row.position;
        serde_json::json!([
            row.id,
            row.fence.0.cast_signed(),
            at.map(|p| p.time.0),
            at.map(|p| p.ordinal),
            at.map(|p| p.hash.cast_signed()),
            row.seq
        ])
    });
    serde_json::Value::Array(values.collect()).to_string()
}

/// The pod's labels as a JSON object.
pub(super) fn labels(origin: &Origin) -> String {
    let labels: BTreeMap<&str, &str> = origin.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    // Maps of text always serialise.
    serde_json::to_string(&labels).unwrap_or_default()
}

/// Whether the failure is of one row, which the database can never take where it was to be put, and not of the
/// database: what is to be stored beside it may be stored without it.
pub(super) fn is_of_a_row(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| !matches!(error.kind(), sqlx::error::ErrorKind::Other))
}

/// Stores chunk by chunk what could not be stored together. What follows a chunk of its stream that could not be
/// stored is not tried, for it would be out of order.
pub(super) async fn one_by_one<'a>(
    ids: &'a [i64],
    chunks: &'a [Arc<Chunk>],
    store: impl Fn(&'a i64, &'a Arc<Chunk>) -> BoxFuture<'a, Result<(), SinkError>>,
) -> Vec<Result<(), SinkError>> {
    let mut failed: HashMap<&StreamId, SinkError> = HashMap::new();
    let mut answers = Vec::with_capacity(chunks.len());
    for (id, chunk) in ids.iter().zip(chunks) {
        let stream = &chunk.origin.stream;
        let answer = match failed.get(stream) {
            Some(error) => Err(error.clone()),
            None => store(id, chunk).await,
        };
        if let Err(error) = &answer {
            failed.insert(stream, error.clone());
        }
        answers.push(answer);
    }
    answers
}

/// The ids of streams' rows. An id is never used again, so what is remembered is true or its row is gone.
#[derive(Debug, Default)]
pub(super) struct Ids(Mutex<HashMap<StreamId, i64>>);

/// 65,536 streams of about 200 bytes are 13 MB. When more have come by, all are forgotten and looked up again.
const REMEMBERED: usize = 65_536;

impl Ids {
    pub(super) fn get(&self, stream: &StreamId) -> Option<i64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(stream)
            .copied()
    }

    pub(super) fn set(&self, stream: &StreamId, id: i64) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= REMEMBERED {
            ids.clear();
        }
        ids.insert(stream.clone(), id);
    }

    pub(super) fn forget(&self, stream: &StreamId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(sizes: &[usize]) -> Vec<Record<'static>> {
        const TEXT: [u8; 4096] = [b'x'; 4096];
        let record = |len: &usize| Record {
            stream: 1,
            seq: 1,
            time: 1,
            ordinal: 0,
            message: &(const { &TEXT })[..*len],
            cut: 0,
        };
        sizes.iter().map(record).collect()
    }

    #[test]
    fn a_batch_is_a_power_of_two_within_the_limit_and_never_empty() {
        assert_eq!(batch(&records(&[10; 3]), 1 << 20), 1);
        assert_eq!(batch(&records(&[10; 1000]), 1 << 20), 9);
        assert_eq!(batch(&records(&[4000; 100]), 4064 * 5), 2);
        assert_eq!(batch(&records(&[4000]), 10), 0);
    }
}
