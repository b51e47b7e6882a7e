//! The statements on the rows of streams, records and gaps, with their values. They run on a connection that is in a
//! transaction.
//!
//! Nothing here decides what is stored.

use std::collections::BTreeMap;

use sqlx::Error;

use super::batch;
use super::dialect::SqlDialect;
use crate::db::statement::Value;
use crate::domain::{Fence, Origin, StreamId};
use crate::sinks::dedup::{NewGap, NewRecord, StreamRow};

/// The stream's row, locked until the transaction ends.
pub(super) async fn find<DB: SqlDialect>(
    conn: &mut DB::Connection,
    stream: &StreamId,
) -> Result<Option<StreamRow>, Error> {
    let values = DB::arguments(names(stream))?;
    let rows = DB::stream_rows(conn, DB::STATEMENTS.find, values).await?;
    Ok(rows.first().map(StreamRow::from))
}

/// Creates the stream's row and returns its id.
pub(super) async fn create<DB: SqlDialect>(
    conn: &mut DB::Connection,
    origin: &Origin,
    fence: Fence,
) -> Result<i64, Error> {
    let labels = labels(origin);
    let [uid, container, container_id] = names(&origin.stream);
    let values = DB::arguments([
        fence.0.cast_signed().into(),
        labels.as_str().into(),
        Value::Text(origin.node.as_deref()),
        uid,
        container,
        container_id,
        (&*origin.namespace).into(),
        (&*origin.pod).into(),
        i64::from(origin.restart_count).into(),
    ])?;
    DB::create(conn, values).await
}

/// Sets the row's fence, and its labels and node as they are now.
pub(super) async fn reopen<DB: SqlDialect>(
    conn: &mut DB::Connection,
    id: i64,
    origin: &Origin,
    fence: Fence,
) -> Result<(), Error> {
    let labels = labels(origin);
    let values = DB::arguments([
        fence.0.cast_signed().into(),
        labels.as_str().into(),
        Value::Text(origin.node.as_deref()),
        id.into(),
    ])?;
    DB::execute(conn, DB::STATEMENTS.reopen, values).await.map(drop)
}

/// Inserts records, in statements of at most `limit` bytes.
pub(super) async fn insert<DB: SqlDialect>(
    conn: &mut DB::Connection,
    mut records: &[NewRecord<'_>],
    limit: usize,
) -> Result<(), Error> {
    while !records.is_empty() {
        let (some, rest) = records.split_at(batch::size(records, limit));
        let text = &DB::inserts()[some.len().ilog2() as usize];
        let values = DB::arguments(some.iter().flat_map(record))?;
        DB::execute(conn, text, values).await?;
        records = rest;
    }
    Ok(())
}

/// Inserts a gap, or replaces the end and the reason of the gap that is already there.
pub(super) async fn insert_gap<DB: SqlDialect>(conn: &mut DB::Connection, row: &NewGap) -> Result<(), Error> {
    let values = DB::arguments([
        row.stream.into(),
        row.seq.into(),
        Value::Number(row.gap.from.map(|time| time.0)),
        Value::Number(row.gap.to.map(|time| time.0)),
        row.gap.reason.as_str().into(),
    ])?;
    DB::execute(conn, DB::STATEMENTS.insert_gap, values).await.map(drop)
}

/// Stores fence, position and seq of these rows.
pub(super) async fn advance<DB: SqlDialect>(conn: &mut DB::Connection, rows: &[StreamRow]) -> Result<(), Error> {
    let positions = positions(rows);
    let values = DB::arguments([positions.as_str().into()])?;
    DB::execute(conn, DB::STATEMENTS.advance, values).await.map(drop)
}

/// What names a stream.
fn names(stream: &StreamId) -> [Value<'_>; 3] {
    [
        Value::Name(stream.uid.as_str()),
        Value::Name(&stream.container),
        Value::Name(stream.container_id.as_str()),
    ]
}

fn record<'a>(record: &NewRecord<'a>) -> [Value<'a>; batch::VALUES] {
    [
        record.stream.into(),
        record.seq.into(),
        record.time.into(),
        i64::from(record.ordinal).into(),
        Value::Bytes(record.message),
        record.cut.cast_signed().into(),
    ]
}

/// Rows as an array of arrays: id, fence, time, ordinal, hash, seq.
fn positions(rows: &[StreamRow]) -> String {
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
fn labels(origin: &Origin) -> String {
    let labels: BTreeMap<&str, &str> = origin.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    // Maps of text always serialise.
    serde_json::to_string(&labels).unwrap_or_default()
}
