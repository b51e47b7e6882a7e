//! What the tests of sinks need: chunks made from few words, and a sink that follows a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::sink::{Sink, SinkError};
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
        restart: 2,
        labels: [("app".into(), "cart".into())].into(),
    })
}

/// A chunk of lines (time in nanoseconds, message), all of ordinal 0, at the beginning of the stream.
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

/// What a scripted sink does with one write.
#[derive(Debug)]
pub(crate) enum Act {
    /// Stores all.
    Store,
    /// Stores nothing and answers `Again` for every chunk.
    Again(Option<Duration>),
    /// Stores all and answers `Again`: the reply is lost.
    LoseReply,
    /// Answers these for the chunks in turn; stores those that are `Ok`.
    Answer(Vec<Result<(), SinkError>>),
    /// Never answers.
    Stall,
    /// Stores all once a permit is handed in.
    Gate,
}

/// A sink that follows a script, then stores everything.
#[derive(Debug)]
pub(crate) struct Scripted {
    script: Mutex<VecDeque<Act>>,
    /// Every request: the messages that came in, by chunk.
    pub(crate) requests: Mutex<Vec<Vec<String>>>,
    /// What was stored, in order.
    pub(crate) stored: Mutex<Vec<String>>,
    /// Lets gated writes go on.
    pub(crate) gate: Semaphore,
}

impl Scripted {
    pub(crate) fn new(script: impl IntoIterator<Item = Act>) -> Arc<Self> {
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
impl Sink for Arc<Scripted> {
    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        let texts: Vec<String> = chunks
            .iter()
            .map(|c| String::from_utf8_lossy(&c.text).into_owned())
            .collect();
        self.requests.lock().unwrap().push(texts.clone());
        let act = self.script.lock().unwrap().pop_front().unwrap_or(Act::Store);
        match act {
            Act::Store => {}
            Act::Again(after) => return vec![Err(again(after)); chunks.len()],
            Act::LoseReply => {
                self.store(&texts);
                return vec![Err(again(None)); chunks.len()];
            }
            Act::Answer(answers) => {
                let kept = texts.into_iter().zip(&answers).filter(|(_, a)| a.is_ok());
                self.store(&kept.map(|(t, _)| t).collect::<Vec<_>>());
                return answers;
            }
            Act::Stall => std::future::pending().await,
            Act::Gate => self.gate.acquire().await.unwrap().forget(),
        }
        self.store(&texts);
        vec![Ok(()); chunks.len()]
    }
}
