//! Values that go to a database as JSON text.

use std::collections::BTreeMap;

use crate::domain::Origin;
use crate::sinks::dedup::StreamRow;

/// Rows as an array of arrays: id, fence, time, ordinal, hash, seq.
pub(super) fn positions(rows: &[StreamRow]) -> String {
    let values = rows.iter().map(|row| {
        let position = row.position;
        serde_json::json!([
            row.id,
            row.fence.0.cast_signed(),
            position.map(|p| p.time.0),
            position.map(|p| p.ordinal),
            position.map(|p| p.hash.cast_signed()),
            row.seq
        ])
    });
    serde_json::Value::Array(values.collect()).to_string()
}

/// The pod's labels as an object.
pub(super) fn labels(origin: &Origin) -> String {
    let labels: BTreeMap<&str, &str> = origin.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    // Maps of text always serialise.
    serde_json::to_string(&labels).unwrap_or_default()
}
