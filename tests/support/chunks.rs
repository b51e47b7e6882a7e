//! Chunks of one stream, made from lines as `follow` makes them. Nothing here writes them anywhere.

use std::sync::Arc;
use std::time::Duration;

use podlog::domain::{Chunk, Deadline, Fence, Gap, Line, Origin, Position, StreamId, Time};

/// A line: its timestamp in nanoseconds, its ordinal among lines with that timestamp, its bytes.
pub(crate) type TestLine<'a> = (i64, u32, &'a [u8]);

/// A stream of the pod with this UID.
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
        restart_count: 0,
        labels: [("app".into(), "cart \"x\"".into())].into(),
    })
}

pub(crate) fn position(line: &TestLine<'_>) -> Position {
    Position {
        time: Time(line.0),
        ordinal: line.1,
        hash: Position::hash(line.2),
    }
}

/// A chunk with lines that follow the position `begin`.
pub(crate) fn chunk(origin: &Arc<Origin>, fence: u64, begin: Option<Position>, lines: &[TestLine<'_>]) -> Arc<Chunk> {
    let mut text = Vec::new();
    let mut all = Vec::new();
    for (time, ordinal, message) in lines {
        all.push(Line {
            time: Time(*time),
            ordinal: *ordinal,
            start: text.len() as u32,
            len: message.len() as u32,
            cut: 0,
        });
        text.extend_from_slice(message);
    }
    Arc::new(Chunk {
        origin: origin.clone(),
        fence: Fence(fence),
        deadline: Deadline::new(Duration::from_hours(1_000_000)),
        gap: None,
        text,
        lines: all,
        begin,
        end: lines.last().map(position).or(begin),
    })
}

/// The same chunk with a gap before its lines.
pub(crate) fn with_gap(mut chunk: Arc<Chunk>, gap: Gap) -> Arc<Chunk> {
    Arc::make_mut(&mut chunk).gap = Some(gap);
    chunk
}
