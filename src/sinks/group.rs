//! Group commit: writers that come while a request is under way share the next one.
//!
//! The chunks of one stream keep their order whatever the callers do: a stream that is in a request
//! is in no other one. A chunk whose claim is no longer good, or whose caller has gone away before
//! its turn, is not written. Nothing is tried twice here; that is [`Retrying`](super::retry::Retrying)'s part.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::sink::{Sink, SinkError};
use crate::clock::Clock;
use crate::domain::{Chunk, Fence, Origin, Position, StreamId};

/// How much goes into one request, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records of one group. A single writer's chunks always go together, however many they are.
    pub records: usize,
    /// Bytes of the records' text in one group.
    pub bytes: usize,
    /// Requests under way at the same time.
    pub in_flight: usize,
    /// How long one attempt may take. A claim must be good for that long when the attempt begins, so
    /// `config/checks.rs` refuses more than what is always left of one, 7 s at the default times.
    pub attempt: Duration,
}

impl Default for Limits {
    /// 10,000 records of 400 bytes: a tenth of a second of work for a database.
    fn default() -> Self {
        Self {
            records: 10_000,
            bytes: 4 << 20,
            in_flight: 1,
            attempt: Duration::from_secs(5),
        }
    }
}

/// Writers that wait for their turn beyond the group that gathers. Those that find it full wait at
/// the door, so this bounds what abandoned writers leave behind (256 chunks of 256 KiB are 64 MiB).
const WAITING: usize = 256;

type Answers = Vec<Result<(), SinkError>>;

/// One writer's chunks and where their answers go.
struct Job {
    chunks: Vec<Arc<Chunk>>,
    answers: oneshot::Sender<Answers>,
}

/// The handle: a sink whose concurrent writers share requests.
#[derive(Clone, Debug)]
pub struct Grouped<S> {
    inner: Arc<S>,
    jobs: mpsc::Sender<Job>,
}

/// A handle, and the future that does the writing. Whoever composes runs it; it ends when all
/// handles are dropped and everything that was handed in is answered.
pub fn grouped<S: Sink + 'static>(
    inner: Arc<S>,
    limits: Limits,
    clock: Clock,
) -> (Grouped<S>, impl Future<Output = ()> + Send + 'static) {
    let (sender, jobs) = mpsc::channel(WAITING);
    let attempt = Attempt {
        inner: inner.clone(),
        limit: limits.attempt,
        clock,
    };
    let driver = Driver {
        attempt,
        limits,
        jobs,
        open: true,
        held: VecDeque::new(),
        busy: HashSet::new(),
    };
    (Grouped { inner, jobs: sender }, driver.run())
}

#[async_trait]
impl<S: Sink> Sink for Grouped<S> {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        self.inner.open(origin, fence).await
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> Answers {
        let (answers, answered) = oneshot::channel();
        let job = Job {
            chunks: chunks.to_vec(),
            answers,
        };
        if self.jobs.send(job).await.is_ok()
            && let Ok(answers) = answered.await
        {
            return answers;
        }
        vec![again("the sink is shutting down"); chunks.len()]
    }
}

fn again(why: impl Into<Arc<str>>) -> Result<(), SinkError> {
    Err(SinkError::Again {
        after: None,
        why: why.into(),
    })
}

struct Driver<S> {
    attempt: Attempt<S>,
    limits: Limits,
    jobs: mpsc::Receiver<Job>,
    /// Whether handles are left.
    open: bool,
    /// Jobs taken from the channel that could not go yet, in order.
    held: VecDeque<Job>,
    /// Streams in a request that is under way.
    busy: HashSet<StreamId>,
}

impl<S: Sink + 'static> Driver<S> {
    async fn run(mut self) {
        let mut flying = FuturesUnordered::<BoxFuture<'static, Vec<StreamId>>>::new();
        loop {
            while flying.len() < self.limits.in_flight.max(1) {
                self.fill();
                let group = self.gather();
                if group.is_empty() {
                    break;
                }
                flying.push(Box::pin(self.attempt.clone().run(group)));
            }
            if !self.open && self.held.is_empty() && flying.is_empty() {
                return;
            }
            let room = flying.len() < self.limits.in_flight.max(1) && self.held.len() < WAITING;
            tokio::select! {
                biased;
                Some(streams) = flying.next(), if !flying.is_empty() => {
                    for stream in streams {
                        self.busy.remove(&stream);
                    }
                }
                job = self.jobs.recv(), if self.open && room => match job {
                    Some(job) => self.held.push_back(job),
                    None => self.open = false,
                },
            }
        }
    }

    /// Takes what waits in the channel.
    fn fill(&mut self) {
        while self.held.len() < WAITING
            && let Ok(job) = self.jobs.try_recv()
        {
            self.held.push_back(job);
        }
    }

    /// The next group: what has waited longest, without streams that are under way, within the limits.
    fn gather(&mut self) -> Vec<Job> {
        let mut group = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        let mut later = VecDeque::new();
        let mut full = false;
        let mut taken = HashSet::new();
        for job in self.held.drain(..) {
            if job.answers.is_closed() {
                continue;
            }
            let more_records = records + job.chunks.iter().map(|c| c.lines.len()).sum::<usize>();
            let more_bytes = bytes + job.chunks.iter().map(|c| c.text.len()).sum::<usize>();
            full |= !group.is_empty() && (more_records > self.limits.records || more_bytes > self.limits.bytes);
            let mut streams = job.chunks.iter().map(|c| &c.origin.stream);
            let wait = full || streams.any(|s| self.busy.contains(s) || taken.contains(s));
            // A job that waits keeps later ones of its streams behind it.
            taken.extend(job.chunks.iter().map(|c| c.origin.stream.clone()));
            if wait {
                later.push_back(job);
            } else {
                (records, bytes) = (more_records, more_bytes);
                group.push(job);
            }
        }
        self.held = later;
        let streams = group.iter().flat_map(|job| &job.chunks);
        self.busy.extend(streams.map(|c| c.origin.stream.clone()));
        group
    }
}

/// What one request needs.
struct Attempt<S> {
    inner: Arc<S>,
    limit: Duration,
    clock: Clock,
}

impl<S> Clone for Attempt<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            limit: self.limit,
            clock: self.clock,
        }
    }
}

impl<S: Sink> Attempt<S> {
    /// Writes a group and answers its writers. Returns the streams that were in it.
    async fn run(self, group: Vec<Job>) -> Vec<StreamId> {
        let now = self.clock.now();
        let mut streams = Vec::new();
        let mut batch = Vec::new();
        let mut writers = Vec::new();
        for job in group {
            let mut allowed = Vec::with_capacity(job.chunks.len());
            for chunk in job.chunks {
                streams.push(chunk.origin.stream.clone());
                let good = chunk.deadline.allows(now, self.limit);
                allowed.push(good);
                if good {
                    batch.push(chunk);
                }
            }
            writers.push((allowed, job.answers));
        }
        let mut answers = self.write(&batch).await.into_iter();
        // Before the answers, so that a writer that has its answer is the only owner of its chunk again.
        drop(batch);
        for (allowed, writer) in writers {
            let answers = allowed.into_iter().map(|good| {
                let missing = || again("the sink did not answer for this chunk");
                if good {
                    answers.next().unwrap_or_else(missing)
                } else {
                    Err(SinkError::Fenced)
                }
            });
            // A writer that has gone away does not want its answer.
            writer.send(answers.collect()).ok();
        }
        streams
    }

    async fn write(&self, batch: &[Arc<Chunk>]) -> Answers {
        if batch.is_empty() {
            return Vec::new();
        }
        let answers = tokio::time::timeout(self.limit, self.inner.write(batch)).await;
        answers.unwrap_or_else(|_| {
            let why = format!(
                "the sink did not answer within {:?}; it is too slow or unreachable",
                self.limit
            );
            vec![again(why); batch.len()]
        })
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
