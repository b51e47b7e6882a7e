//! A stream as a container would write it: chunks that know where they begin and end.

use std::sync::Arc;
use std::time::Duration;

use podlog::domain::{Chunk, Deadline, Fence, Gap, Line, Origin, Position, StreamId, Time};

/// A line: its timestamp in nanoseconds, its ordinal, its bytes.
pub(crate) type TestLine<'a> = (i64, u32, &'a [u8]);

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
        labels: [("app".into(), "cart \"x\"".into())].into(),
    })
}

pub(crate) fn position(said: &TestLine<'_>) -> Position {
    Position {
        time: Time(said.0),
        ordinal: said.1,
        hash: Position::hash(said.2),
    }
}

/// Lines that follow `begin`.
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

pub(crate) fn with_gap(mut chunk: Arc<Chunk>, gap: Gap) -> Arc<Chunk> {
    Arc::make_mut(&mut chunk).gap = Some(gap);
    chunk
}
