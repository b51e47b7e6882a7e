//! Writes the lines of one stream to the sink, and moves the stream's position after the sink has stored them.
//!
//! `Writer::flush` is the only place where a line is handed to the sink and where a position moves. The new position
//! goes into the checkpoint of the pod, which the renewer stores. This file never opens a log, but it says when an open
//! log must be closed because a write takes too long.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::defect::{self, Defect};
use crate::domain::line_decoder::Batch;
use crate::domain::{Chunk, ContainerProgress, Gap, Origin, Position, Time};
use crate::sinks::SinkError;

use super::assignment::PodAssignment;
use super::context::Context;

/// Time after which a write closes the stream, because the kubelet skips whole files for a client that does not read.
const SLOW_WRITE: Duration = Duration::from_secs(2);

/// Largest number of lines in a chunk. With the shortest lines, the descriptions of the lines of 1 000 streams then
/// take less than 16 MiB (512 x 32 B x 1 000).
const CHUNK_LINES: usize = 512;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// Stored, or refused for good and counted.
    InTime,
    /// The same, but it took so long that the stream must be closed.
    Slow,
    /// Not stored: the claim is no longer valid.
    Fenced,
}

/// Holds the lines of one stream until they are written, and the stream's position.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    context: &'a Context,
    assignment: &'a PodAssignment,
    origin: Arc<Origin>,
    /// When the instance started, as the pod's status says.
    started: Option<Time>,
    /// Lines that are not written yet.
    pub(super) batch: Batch,
    /// A gap before them that is not written yet.
    pub(super) gap: Option<Gap>,
    /// The last line that is stored.
    position: Option<Position>,
}

impl<'a> Writer<'a> {
    /// The writer of the stream of one instance. `started`: when the instance started. `position`: the last line that
    /// is stored.
    pub(super) fn new(
        context: &'a Context,
        assignment: &'a PodAssignment,
        origin: Arc<Origin>,
        started: Option<Time>,
        position: Option<Position>,
    ) -> Self {
        Self {
            context,
            assignment,
            origin,
            started,
            batch: Batch::default(),
            gap: None,
            position,
        }
    }

    /// The last line that is stored.
    pub(super) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Whether the lines should be written before more are read.
    pub(super) fn is_full(&self) -> bool {
        self.batch.text.len() >= self.context.settings.chunk_bytes || self.batch.lines.len() >= CHUNK_LINES
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.lines.is_empty() && self.gap.is_none()
    }

    /// Drops the lines and the gap that wait to be written.
    pub(super) fn discard(&mut self) {
        self.batch = Batch::default();
        self.gap = None;
    }

    /// Has the sink store the lines and the gap that wait, and moves the position after that. Calls `close` when the write
    /// takes too long, and goes on waiting for it.
    pub(super) async fn flush(&mut self, close: impl FnOnce()) -> WriteOutcome {
        if self.is_empty() {
            return WriteOutcome::InTime;
        }
        let chunks = [Arc::new(self.take_chunk())];
        if defect::on(Defect::CheckpointBeforeWrite) {
            self.move_position(chunks[0].end);
        }
        let began = self.context.clock.now();
        let waits = self.context.metrics.unstored.begin();
        let (answers, written) = self.write(&chunks, close).await;
        drop(waits);
        self.context
            .metrics
            .write_seconds
            .observe(self.context.clock.since(began).as_secs_f64());
        let [chunk] = chunks;
        match answers.into_iter().next() {
            Some(Ok(())) => self.record_delivered(&chunk),
            Some(Err(SinkError::Rejected(why))) => self.record_rejected(&chunk, &why),
            // `Retrying` returns `Again` only when it gives up, which it does when the claim ends.
            Some(Err(SinkError::Fenced | SinkError::Again { .. })) | None => return WriteOutcome::Fenced,
        }
        // The lines are stored, or refused for good: only now the position moves.
        self.move_position(chunk.end);
        self.reuse_buffers(chunk);
        written
    }

    async fn write(&self, chunks: &[Arc<Chunk>], close: impl FnOnce()) -> (Vec<Result<(), SinkError>>, WriteOutcome) {
        let mut write = self.context.sink.write(chunks);
        if let Ok(answers) = tokio::time::timeout(SLOW_WRITE, &mut write).await {
            return (answers, WriteOutcome::InTime);
        }
        close();
        (write.await, WriteOutcome::Slow)
    }

    /// Moves the position of the stream, also in the checkpoint of the pod.
    fn move_position(&mut self, end: Option<Position>) {
        self.position = end;
        self.update_checkpoint(false);
    }

    /// Records in the checkpoint that the stream is being read.
    pub(super) fn mark_begun(&self) {
        self.update_checkpoint(false);
    }

    /// Records in the checkpoint that the stream has been read to its end.
    pub(super) fn mark_finished(&self) {
        self.update_checkpoint(true);
    }

    fn take_chunk(&mut self) -> Chunk {
        let batch = std::mem::take(&mut self.batch);
        Chunk {
            origin: self.origin.clone(),
            fence: self.assignment.grant.fence,
            deadline: self.assignment.grant.deadline.clone(),
            gap: self.gap.take(),
            begin: self.position,
            end: batch.end().or(self.position),
            text: batch.text,
            lines: batch.lines,
        }
    }

    fn record_delivered(&self, chunk: &Chunk) {
        let metrics = &self.context.metrics;
        metrics.lines_delivered.inc_by(chunk.lines.len() as u64);
        metrics.bytes_delivered.inc_by(chunk.text.len() as u64);
        if let Some(line) = chunk.lines.first() {
            let age = clock::wall().0.saturating_sub(line.time.0).max(0).unsigned_abs();
            metrics
                .line_age_seconds
                .observe(Duration::from_nanos(age).as_secs_f64());
        }
        if let Some(gap) = chunk.gap {
            self.report_gap(gap);
        }
    }

    fn report_gap(&self, gap: Gap) {
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
            "lines may be missing in this range, because the API no longer serves it; a gap record is in the sink"
        );
    }

    fn record_rejected(&self, chunk: &Chunk, why: &str) {
        self.context.metrics.lines_rejected.inc_by(chunk.lines.len() as u64);
        tracing::error!(
            container = %self.origin.stream.container,
            lines = chunk.lines.len(),
            why,
            "the sink refuses these lines for good; they are skipped"
        );
        if let Some(gap) = chunk.gap {
            self.report_gap(gap);
        }
    }

    /// Gives the buffers of a large chunk to the next chunk. A quiet stream keeps no buffers.
    fn reuse_buffers(&mut self, chunk: Arc<Chunk>) {
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

    fn update_checkpoint(&self, finished: bool) {
        let progress = ContainerProgress {
            container_id: self.origin.stream.container_id.clone(),
            restart_count: self.origin.restart_count,
            started: self.started,
            position: self.position,
            finished,
        };
        let name = self.origin.stream.container.clone();
        self.assignment.progress.send_modify(|checkpoint| {
            checkpoint.containers.insert(name, progress);
        });
    }
}
