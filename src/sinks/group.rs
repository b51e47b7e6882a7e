//! Grouping writers: those that come while a request is in flight share the next request.
//!
//! The chunks of one stream stay in order: a stream is in one request at a time. A chunk whose claim is no longer good,
//! or whose caller has gone away before its turn, is not written. Nothing is tried again here; that is
//! [`Retrying`](super::retry::Retrying)'s part.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::sink::{Sink, SinkError, WriteResults};
use crate::clock::Clock;
use crate::domain::{Chunk, Fence, Origin, Position, StreamId};

/// How much goes into one request, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    /// Records of one group. The chunks of one call always go together, however many they are.
    pub records: usize,
    /// Bytes of the records' text in one group.
    pub bytes: usize,
    /// Requests in flight at the same time.
    pub in_flight: usize,
    /// How long one attempt may take. A claim must be good for that long when the attempt begins, so
    /// `config/checks.rs` refuses more than what is always left of one, 7 s at the default times.
    pub attempt: Duration,
}

impl Default for GroupLimits {
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

/// Writes that wait for their turn, beyond the group that is gathered. When there are as many, further writers wait in
/// `write`. So this bounds what writers that went away leave behind: 256 chunks of 256 KiB are 64 MiB.
const MAX_WAITING: usize = 256;

/// The chunks of one call, and where their results go.
struct PendingWrite {
    chunks: Vec<Arc<Chunk>>,
    results: oneshot::Sender<WriteResults>,
}

/// A sink whose concurrent writers share requests.
#[derive(Clone, Debug)]
pub struct Grouped<S> {
    inner: Arc<S>,
    queue: mpsc::Sender<PendingWrite>,
}

/// A sink that groups its writers, and the future that does the writing. The caller must run the future; it ends when
/// the sink and its clones are dropped and every write has its results.
pub fn grouped<S: Sink + 'static>(
    inner: Arc<S>,
    limits: GroupLimits,
    clock: Clock,
) -> (Grouped<S>, impl Future<Output = ()> + Send + 'static) {
    let (sender, queue) = mpsc::channel(MAX_WAITING);
    let attempt = Attempt {
        inner: inner.clone(),
        timeout: limits.attempt,
        clock,
    };
    let driver = Driver {
        attempt,
        limits,
        queue,
        open: true,
        waiting: VecDeque::new(),
        busy: HashSet::new(),
    };
    (Grouped { inner, queue: sender }, driver.run())
}

#[async_trait]
impl<S: Sink> Sink for Grouped<S> {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        self.inner.open(origin, fence).await
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> WriteResults {
        let (sender, results) = oneshot::channel();
        let write = PendingWrite {
            chunks: chunks.to_vec(),
            results: sender,
        };
        if self.queue.send(write).await.is_ok()
            && let Ok(results) = results.await
        {
            return results;
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

/// Gathers groups and runs their attempts.
struct Driver<S> {
    attempt: Attempt<S>,
    limits: GroupLimits,
    queue: mpsc::Receiver<PendingWrite>,
    /// Whether a sink is left that can send writes.
    open: bool,
    /// Writes that were received and not yet sent, in order.
    waiting: VecDeque<PendingWrite>,
    /// Streams of the requests in flight.
    busy: HashSet<StreamId>,
}

impl<S: Sink + 'static> Driver<S> {
    async fn run(mut self) {
        let mut in_flight = FuturesUnordered::<BoxFuture<'static, Vec<StreamId>>>::new();
        loop {
            while in_flight.len() < self.limits.in_flight.max(1) {
                self.receive_all();
                let group = self.gather();
                if group.is_empty() {
                    break;
                }
                in_flight.push(Box::pin(self.attempt.clone().run(group)));
            }
            if !self.open && self.waiting.is_empty() && in_flight.is_empty() {
                return;
            }
            let room = in_flight.len() < self.limits.in_flight.max(1) && self.waiting.len() < MAX_WAITING;
            tokio::select! {
                biased;
                Some(streams) = in_flight.next(), if !in_flight.is_empty() => {
                    for stream in streams {
                        self.busy.remove(&stream);
                    }
                }
                write = self.queue.recv(), if self.open && room => match write {
                    Some(write) => self.waiting.push_back(write),
                    None => self.open = false,
                },
            }
        }
    }

    /// Takes the writes out of the queue.
    fn receive_all(&mut self) {
        while self.waiting.len() < MAX_WAITING
            && let Ok(write) = self.queue.try_recv()
        {
            self.waiting.push_back(write);
        }
    }

    /// The next group: the writes that have waited longest, within the limits, without streams that are in flight.
    fn gather(&mut self) -> Vec<PendingWrite> {
        let mut group = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        let mut later = VecDeque::new();
        let mut full = false;
        let mut seen = HashSet::new();
        for write in self.waiting.drain(..) {
            if write.results.is_closed() {
                continue;
            }
            let more_records = records + write.chunks.iter().map(|c| c.lines.len()).sum::<usize>();
            let more_bytes = bytes + write.chunks.iter().map(|c| c.text.len()).sum::<usize>();
            full |= !group.is_empty() && (more_records > self.limits.records || more_bytes > self.limits.bytes);
            let mut streams = write.chunks.iter().map(|c| &c.origin.stream);
            let wait = full || streams.any(|s| self.busy.contains(s) || seen.contains(s));
            // A write that waits keeps later ones of its streams behind it.
            seen.extend(write.chunks.iter().map(|c| c.origin.stream.clone()));
            if wait {
                later.push_back(write);
            } else {
                (records, bytes) = (more_records, more_bytes);
                group.push(write);
            }
        }
        self.waiting = later;
        let streams = group.iter().flat_map(|write| &write.chunks);
        self.busy.extend(streams.map(|c| c.origin.stream.clone()));
        group
    }
}

/// Sends a group to the sink, once.
struct Attempt<S> {
    inner: Arc<S>,
    timeout: Duration,
    clock: Clock,
}

impl<S> Clone for Attempt<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            timeout: self.timeout,
            clock: self.clock,
        }
    }
}

impl<S: Sink> Attempt<S> {
    /// Writes a group and sends the results to its writers. Returns the streams of the group.
    async fn run(self, group: Vec<PendingWrite>) -> Vec<StreamId> {
        let now = self.clock.now();
        let mut streams = Vec::new();
        let mut batch = Vec::new();
        let mut writers = Vec::new();
        for write in group {
            let mut allowed = Vec::with_capacity(write.chunks.len());
            for chunk in write.chunks {
                streams.push(chunk.origin.stream.clone());
                let good = chunk.deadline.allows(now, self.timeout);
                allowed.push(good);
                if good {
                    batch.push(chunk);
                }
            }
            writers.push((allowed, write.results));
        }
        let mut results = self.write(&batch).await.into_iter();
        // Before the results are sent, so that a writer that has them owns its chunk alone again.
        drop(batch);
        for (allowed, writer) in writers {
            let results = allowed.into_iter().map(|good| {
                let missing = || again("the sink returned no result for this chunk");
                if good {
                    results.next().unwrap_or_else(missing)
                } else {
                    Err(SinkError::Fenced)
                }
            });
            // A writer that has gone away does not need its results.
            writer.send(results.collect()).ok();
        }
        streams
    }

    async fn write(&self, batch: &[Arc<Chunk>]) -> WriteResults {
        if batch.is_empty() {
            return Vec::new();
        }
        let results = tokio::time::timeout(self.timeout, self.inner.write(batch)).await;
        results.unwrap_or_else(|_| {
            let why = format!(
                "the sink did not answer within {:?}; it is too slow or unreachable",
                self.timeout
            );
            vec![again(why); batch.len()]
        })
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
