//! From a batch to the sink: makes the chunk, writes it, and moves the position on.
//!
//! This is the only place where a position moves. It never opens a stream, but it says when one
//! must be closed because writing takes too long.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::defect::{self, Defect};
use crate::domain::intake::Batch;
use crate::domain::{Chunk, Gap, Mark, Origin, Position, Time};
use crate::sinks::SinkError;

use super::{Context, Task};

/// A write that takes longer than this closes the stream: the kubelet skips whole files for a
/// follower that does not read.
const SLOW_WRITE: Duration = Duration::from_secs(2);

/// Lines per chunk at most; with the shortest lines this stays below 16 MiB of line descriptions
/// for 1 000 streams (512 x 32 B x 1 000).
const CHUNK_LINES: usize = 512;

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Stored, or refused for good and counted.
    InTime,
    /// The same, but it took so long that the stream must be closed.
    Late,
    /// Not stored: the claim is no longer good.
    Fenced,
}

/// Collects the lines of one stream and writes them.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    context: &'a Context,
    task: &'a Task,
    origin: Arc<Origin>,
    started: Option<Time>,
    /// Lines not written yet.
    pub(super) batch: Batch,
    /// A gap to be written before them.
    pub(super) gap: Option<Gap>,
    /// Where the stream stands: after the last line written.
    position: Option<Position>,
}

impl<'a> Writer<'a> {
    /// A writer of the instance that `origin` names and that started then, beginning at a position.
    pub(super) fn new(
        context: &'a Context,
        task: &'a Task,
        (origin, started): (Arc<Origin>, Option<Time>),
        position: Option<Position>,
    ) -> Self {
        Self {
            context,
            task,
            origin,
            started,
            batch: Batch::default(),
            gap: None,
            position,
        }
    }

    /// Where the stream stands: after the last line written.
    pub(super) fn position(&self) -> Option<Position> {
        self.position
    }

    /// The container's name.
    pub(super) fn container(&self) -> Arc<str> {
        self.origin.stream.container.clone()
    }

    /// Whether the batch should be written before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.batch.text.len() >= self.context.settings.chunk_bytes || self.batch.lines.len() >= CHUNK_LINES
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.lines.is_empty() && self.gap.is_none()
    }

    /// Drops what waits: it is not this instance's.
    pub(super) fn discard(&mut self) {
        self.batch = Batch::default();
        self.gap = None;
    }

    /// Writes what waits. Calls `close` when the write has taken too long, and waits on.
    pub(super) async fn flush(&mut self, close: impl FnOnce()) -> Written {
        if self.is_empty() {
            return Written::InTime;
        }
        let chunks = [Arc::new(self.chunk())];
        if defect::on(Defect::CheckpointBeforeWrite) {
            self.position = chunks[0].end;
            self.mark(false);
        }
        let started = self.context.clock.now();
        let (answers, written) = self.write(&chunks, close).await;
        self.context
            .metrics
            .write_seconds
            .observe(self.context.clock.since(started).as_secs_f64());
        let [chunk] = chunks;
        match answers.into_iter().next() {
            Some(Ok(())) => self.delivered(&chunk),
            Some(Err(SinkError::Rejected(why))) => self.rejected(&chunk, &why),
            // `Retrying` answers Again only when it gives up, which it does when the claim ends.
            Some(Err(SinkError::Fenced | SinkError::Again { .. })) | None => return Written::Fenced,
        }
        self.position = chunk.end;
        self.mark(false);
        self.reuse(chunk);
        written
    }

    async fn write(&self, chunks: &[Arc<Chunk>], close: impl FnOnce()) -> (Vec<Result<(), SinkError>>, Written) {
        let mut write = self.context.sink.write(chunks);
        if let Ok(answers) = tokio::time::timeout(SLOW_WRITE, &mut write).await {
            return (answers, Written::InTime);
        }
        close();
        (write.await, Written::Late)
    }

    /// Notes in the checkpoint that the stream is being read.
    pub(super) fn begin(&self) {
        self.mark(false);
    }

    /// Notes in the checkpoint that the stream has been read to its end.
    pub(super) fn finish(&self) {
        self.mark(true);
    }

    fn chunk(&mut self) -> Chunk {
        let batch = std::mem::take(&mut self.batch);
        Chunk {
            origin: self.origin.clone(),
            fence: self.task.grant.fence,
            good_until: self.task.grant.good_until.clone(),
            gap: self.gap.take(),
            begin: self.position,
            end: batch.end().or(self.position),
            text: batch.text,
            lines: batch.lines,
        }
    }

    fn delivered(&self, chunk: &Chunk) {
        let metrics = &self.context.metrics;
        metrics.lines_delivered.inc_by(chunk.lines.len() as u64);
        metrics.bytes_delivered.inc_by(chunk.text.len() as u64);
        if let Some(line) = chunk.lines.last() {
            let lag = clock::wall().0.saturating_sub(line.time.0).max(0).unsigned_abs();
            metrics.lag_seconds.observe(Duration::from_nanos(lag).as_secs_f64());
        }
        if let Some(gap) = chunk.gap {
            self.report(gap);
        }
    }

    fn report(&self, gap: Gap) {
        let reason = gap.reason.as_str();
        self.context
            .metrics
            .gaps
            .get_or_create(&crate::metrics::Reason { reason })
            .inc();
        tracing::warn!(
            container = %self.origin.stream.container,
            container_id = self.origin.stream.container_id.short(),
            from = gap.from.map(tracing::field::display),
            to = gap.to.map(tracing::field::display),
            reason,
            "lines of this range can no longer be had from the API; their gap record is with the sink"
        );
    }

    fn rejected(&self, chunk: &Chunk, why: &str) {
        self.context.metrics.lines_rejected.inc_by(chunk.lines.len() as u64);
        tracing::error!(
            container = %self.origin.stream.container,
            lines = chunk.lines.len(),
            why,
            "the sink refuses these lines for good; they are passed over"
        );
        if let Some(gap) = chunk.gap {
            self.report(gap);
        }
    }

    /// Gives the buffers of a large chunk to the next one. A quiet stream keeps none.
    fn reuse(&mut self, chunk: Arc<Chunk>) {
        // A sink that still has the chunk keeps its buffers.
        let Some(chunk) = Arc::into_inner(chunk) else { return };
        let (mut text, mut lines) = (chunk.text, chunk.lines);
        if text.len() >= self.context.settings.chunk_bytes / 2
            && text.capacity() <= 4 * self.context.settings.chunk_bytes
        {
            text.clear();
            lines.clear();
            self.batch = Batch { text, lines };
        }
    }

    fn mark(&self, finished: bool) {
        let mark = Mark {
            container_id: self.origin.stream.container_id.clone(),
            restart: self.origin.restart,
            started: self.started,
            position: self.position,
            finished,
        };
        let name = self.origin.stream.container.clone();
        self.task.progress.send_modify(|checkpoint| {
            checkpoint.containers.insert(name, mark);
        });
    }
}
