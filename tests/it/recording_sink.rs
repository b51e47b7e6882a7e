//! A sink in memory that records what it gets. It fails only if a test asks for a fault.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use podlog::domain::{Chunk, Fence, Gap, Origin, Position, StreamId};
use podlog::sinks::{Sink, SinkError};

/// What is stored of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordedStream {
    pub(crate) lines: Vec<(i64, u32, String)>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) restart_count: u32,
}

/// What the next write does instead of storing the chunk.
#[derive(Clone, Debug)]
pub(crate) enum SinkFault {
    /// Takes this long, then stores.
    Slow(Duration),
    /// Refuses for good.
    Reject,
}

/// A sink in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordingSink(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    streams: BTreeMap<StreamId, RecordedStream>,
    /// How long the next opening takes.
    slow_open: Option<Duration>,
    faults: VecDeque<SinkFault>,
}

impl RecordingSink {
    pub(crate) fn streams(&self) -> BTreeMap<StreamId, RecordedStream> {
        self.0.lock().unwrap().streams.clone()
    }

    /// The messages stored of all instances of a container, oldest instance first.
    pub(crate) fn messages(&self, container: &str) -> Vec<String> {
        let mut recorded: Vec<RecordedStream> = self
            .streams()
            .into_iter()
            .filter(|(id, _)| &*id.container == container)
            .map(|(_, k)| k)
            .collect();
        recorded.sort_by_key(|k| k.restart_count);
        recorded
            .into_iter()
            .flat_map(|k| k.lines)
            .map(|(_, _, message)| message)
            .collect()
    }

    pub(crate) fn gaps(&self) -> Vec<Gap> {
        self.streams()
            .into_values()
            .flat_map(|recorded| recorded.gaps)
            .collect()
    }

    pub(crate) fn next(&self, fault: SinkFault) {
        self.0.lock().unwrap().faults.push_back(fault);
    }

    /// The next opening of a stream takes this long.
    pub(crate) fn next_open_takes(&self, wait: Duration) {
        self.0.lock().unwrap().slow_open = Some(wait);
    }

    fn store(&self, chunk: &Chunk) {
        let mut state = self.0.lock().unwrap();
        let recorded = state.streams.entry(chunk.origin.stream.clone()).or_default();
        recorded.restart_count = chunk.origin.restart_count;
        recorded.gaps.extend(chunk.gap);
        for line in &chunk.lines {
            let message = String::from_utf8_lossy(chunk.message(line)).into_owned();
            recorded.lines.push((line.time.0, line.ordinal, message));
        }
    }
}

#[async_trait]
impl Sink for RecordingSink {
    async fn open(&self, _: &Arc<Origin>, _: Fence) -> Result<Option<Position>, SinkError> {
        let wait = self.0.lock().unwrap().slow_open.take();
        tokio::time::sleep(wait.unwrap_or_default()).await;
        Ok(None)
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        let mut answers = Vec::new();
        for chunk in chunks {
            let fault = self.0.lock().unwrap().faults.pop_front();
            match fault {
                Some(SinkFault::Reject) => {
                    answers.push(Err(SinkError::Rejected("told to".into())));
                    continue;
                }
                Some(SinkFault::Slow(wait)) => tokio::time::sleep(wait).await,
                None => {}
            }
            self.store(chunk);
            answers.push(Ok(()));
        }
        answers
    }
}
