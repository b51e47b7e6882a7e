//! Chunks of one stream as `follow` makes them, and what became of them in the database.

use std::sync::Arc;
use std::time::Duration;

use podlog::domain::{Chunk, Deadline, Fence, Line, Origin, Position, StreamId, Time};
use sqlx::AssertSqlSafe;

use crate::database::Database;

pub(crate) fn origin(uid: &str) -> Arc<Origin> {
    Arc::new(Origin {
        stream: StreamId {
            uid: uid.into(),
            container: "app".into(),
            container_id: "0123456789abcdef0123".into(),
        },
        namespace: "shop".into(),
        pod: "cart-0".into(),
        node: Some("n1".into()),
        restart: 0,
        labels: [].into(),
    })
}

/// Lines that follow `begin`; the first is the stream's line number `first`, which is also its time.
pub(crate) fn chunk(
    origin: &Arc<Origin>,
    fence: Fence,
    begin: Option<Position>,
    first: usize,
    lines: &[String],
) -> Arc<Chunk> {
    let mut text = Vec::new();
    let mut all = Vec::new();
    let mut end = begin;
    for (line, number) in lines.iter().zip(first..) {
        let time = Time(number as i64);
        all.push(Line {
            time,
            ordinal: 0,
            start: text.len() as u32,
            len: line.len() as u32,
            cut: 0,
        });
        text.extend_from_slice(line.as_bytes());
        let hash = Position::hash(line.as_bytes());
        end = Some(Position { time, ordinal: 0, hash });
    }
    Arc::new(Chunk {
        origin: origin.clone(),
        fence,
        deadline: Deadline::new(Duration::from_hours(1_000_000)),
        gap: None,
        text,
        lines: all,
        begin,
        end,
    })
}

/// The messages stored of a stream, in the stored order.
pub(crate) async fn messages(database: &Database, uid: &str) -> Vec<String> {
    let query = format!(
        "SELECT CONVERT(r.message USING utf8mb4) FROM log_record r JOIN log_stream s ON s.id = r.stream \
         WHERE s.uid = '{uid}' ORDER BY r.seq"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(query));
    query.fetch_all(&mut database.sql().await).await.unwrap()
}
