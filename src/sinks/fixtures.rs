//! For the tests of sinks: chunks, and a sink that follows a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::sink::{Sink, SinkError, WriteResults};
use crate::domain::{Chunk, Deadline, Fence, Line, Origin, Position, StreamId, Time};

pub(crate) fn origin(uid: &str, container: &str) -> Arc<Origin> {
    Arc::new(Origin {
        stream: StreamId {
            uid: uid.into(),
            container: container.into(),
            container_id: "0123456789abcdef".into(),
        },
        namespace: "shop".into(),
        pod: "cart-0".into(),
        node: Some("n1".into()),
        restart_count: 2,
        labels: [("app".into(), "cart".into())].into(),
    })
}

/// A chunk of lines (time in nanoseconds, message), all of ordinal 0, at the begin of the stream.
pub(crate) fn chunk(origin: &Arc<Origin>, fence: u64, lines: &[(i64, &[u8])]) -> Chunk {
    let mut chunk = Chunk {
        origin: origin.clone(),
        fence: Fence(fence),
        deadline: Deadline::new(Duration::from_hours(48)),
        gap: None,
        text: Vec::new(),
        lines: Vec::new(),
        begin: None,
        end: None,
    };
    for &(time, message) in lines {
        let start = chunk.text.len() as u32;
        chunk.text.extend_from_slice(message);
        chunk.lines.push(Line {
            time: Time(time),
            ordinal: 0,
            start,
            len: message.len() as u32,
            cut: 0,
        });
        chunk.end = Some(Position {
            time: Time(time),
            ordinal: 0,
            hash: Position::hash(message),
        });
    }
    chunk
}

/// How a scripted sink reacts to one write.
#[derive(Debug)]
pub(crate) enum Reaction {
    /// Stores all.
    Store,
    /// Stores nothing and answers every chunk with `Again`.
    Again(Option<Duration>),
    /// Stores all and answers with `Again`: the reply is lost.
    LoseReply,
    /// Answers with these results; stores the chunks whose result is `Ok`.
    Answer(WriteResults),
    /// Never answers.
    Stall,
    /// Stores all when the gate has a permit.
    Gate,
}

/// A sink that follows a script, then stores everything.
#[derive(Debug)]
pub(crate) struct ScriptedSink {
    script: Mutex<VecDeque<Reaction>>,
    /// Every request: the text of each chunk.
    pub(crate) requests: Mutex<Vec<Vec<String>>>,
    /// What was stored, in order.
    pub(crate) stored: Mutex<Vec<String>>,
    /// Gated writes wait here for a permit.
    pub(crate) gate: Semaphore,
}

impl ScriptedSink {
    pub(crate) fn new(script: impl IntoIterator<Item = Reaction>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            requests: Mutex::default(),
            stored: Mutex::default(),
            gate: Semaphore::new(0),
        })
    }

    fn store(&self, texts: &[String]) {
        self.stored.lock().unwrap().extend_from_slice(texts);
    }
}

pub(crate) fn again(after: Option<Duration>) -> SinkError {
    let why = "by the script".into();
    SinkError::Again { after, why }
}

#[async_trait]
impl Sink for Arc<ScriptedSink> {
    async fn write(&self, chunks: &[Arc<Chunk>]) -> WriteResults {
        let texts: Vec<String> = chunks
            .iter()
            .map(|c| String::from_utf8_lossy(&c.text).into_owned())
            .collect();
        self.requests.lock().unwrap().push(texts.clone());
        let reaction = self.script.lock().unwrap().pop_front().unwrap_or(Reaction::Store);
        match reaction {
            Reaction::Store => {}
            Reaction::Again(after) => return vec![Err(again(after)); chunks.len()],
            Reaction::LoseReply => {
                self.store(&texts);
                return vec![Err(again(None)); chunks.len()];
            }
            Reaction::Answer(results) => {
                let kept = texts.into_iter().zip(&results).filter(|(_, a)| a.is_ok());
                self.store(&kept.map(|(t, _)| t).collect::<Vec<_>>());
                return results;
            }
            Reaction::Stall => std::future::pending().await,
            Reaction::Gate => self.gate.acquire().await.unwrap().forget(),
        }
        self.store(&texts);
        vec![Ok(()); chunks.len()]
    }
}
