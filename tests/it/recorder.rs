//! A sink that remembers, for tests. It refuses nothing unless told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use podlog::domain::{Chunk, Fence, Gap, Origin, Position, StreamId};
use podlog::sinks::{Sink, SinkError};

/// What is stored of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) lines: Vec<(i64, u32, String)>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) restart: u32,
}

/// What the next write does instead of storing.
#[derive(Clone, Debug)]
pub(crate) enum Mishap {
    /// Takes this long, then stores.
    Slow(Duration),
    /// Refuses for good.
    Reject,
}

/// A sink in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<StreamId, Kept>,
    mishaps: VecDeque<Mishap>,
}

impl Recorder {
    pub(crate) fn streams(&self) -> BTreeMap<StreamId, Kept> {
        self.0.lock().unwrap().streams.clone()
    }

    /// The messages stored of all instances of a container, oldest instance first.
    pub(crate) fn messages(&self, container: &str) -> Vec<String> {
        let mut kept: Vec<Kept> = self
            .streams()
            .into_iter()
            .filter(|(id, _)| &*id.container == container)
            .map(|(_, k)| k)
            .collect();
        kept.sort_by_key(|k| k.restart);
        kept.into_iter()
            .flat_map(|k| k.lines)
            .map(|(_, _, message)| message)
            .collect()
    }

    pub(crate) fn gaps(&self) -> Vec<Gap> {
        self.streams().into_values().flat_map(|kept| kept.gaps).collect()
    }

    pub(crate) fn next(&self, mishap: Mishap) {
        self.0.lock().unwrap().mishaps.push_back(mishap);
    }

    fn store(&self, chunk: &Chunk) {
        let mut state = self.0.lock().unwrap();
        let kept = state.streams.entry(chunk.origin.stream.clone()).or_default();
        kept.restart = chunk.origin.restart;
        kept.gaps.extend(chunk.gap);
        for line in &chunk.lines {
            let message = String::from_utf8_lossy(chunk.message(line)).into_owned();
            kept.lines.push((line.time.0, line.ordinal, message));
        }
    }
}

#[async_trait]
impl Sink for Recorder {
    async fn open(&self, _: &Arc<Origin>, _: Fence) -> Result<Option<Position>, SinkError> {
        Ok(None)
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        let mut answers = Vec::new();
        for chunk in chunks {
            let mishap = self.0.lock().unwrap().mishaps.pop_front();
            match mishap {
                Some(Mishap::Reject) => {
                    answers.push(Err(SinkError::Rejected("told to".into())));
                    continue;
                }
                Some(Mishap::Slow(wait)) => tokio::time::sleep(wait).await,
                None => {}
            }
            self.store(chunk);
            answers.push(Ok(()));
        }
        answers
    }
}
