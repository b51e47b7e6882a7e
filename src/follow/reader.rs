//! One instance being read: where it stands, and plain reads of what is there.
//!
//! A plain read begins a little before the stored line and seeks it. A line that is not there was rotated
//! away: a gap, once the file has shown that it begins later. Text without a timestamp is never delivered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::{LogError, LogStream};
use crate::domain::intake::{Intake, ResumeMode};
use crate::domain::resume::{ReadVerdict, ResumeState, is_same_breath};
use crate::domain::steps::{Source, has_ended, source_of};
use crate::domain::{Gap, GapReason, Instance, Pod, Time};

use super::delivery_delay::DeliveryDelay;
use super::follow_stream::{BEHIND, HELD_UP, IDLE};
use super::identity::Identity;
use super::read_end::ReadEnd;
use super::writer::{Writer, Written};
use super::{ContainerEnd, Context, Task};

/// A plain read that brings nothing for this long is broken.
const STALLED: Duration = Duration::from_secs(30);

/// One instance being read.
pub(super) struct Reader<'a> {
    pub(super) context: &'a Context,
    pub(super) task: &'a Task,
    instance: Instance,
    pub(super) source: Source,
    ended: bool,
    pub(super) writer: Writer<'a>,
    pub(super) intake: Intake,
    pub(super) resume: ResumeState,
    taken: u64,
    delay: DeliveryDelay,
    /// Whether what a read took was dropped, and no read since has come to its end: it was not this instance's or could
    /// not be made sure of.
    pub(super) dropped: bool,
    /// Whether a probe has shown something that the stream has not, and nothing has come since.
    pub(super) suspected: bool,
    /// The end of the log that made a stream count as mute, and was no new line.
    pub(super) tail: Option<(Time, u64)>,
    pub(super) identity: Identity,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        context: &'a Context,
        task: &'a Task,
        instance: Instance,
        source: Source,
        writer: Writer<'a>,
    ) -> Self {
        let intake = Intake::new(context.settings.max_line);
        Self {
            context,
            task,
            instance,
            source,
            ended: false,
            writer,
            intake,
            resume: ResumeState::default(),
            taken: 0,
            delay: DeliveryDelay::default(),
            dropped: false,
            suspected: false,
            tail: None,
            identity: Identity::default(),
        }
    }

    /// Lines taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes in what is known of the pod, and says whether the instance has ended.
    pub(super) fn hear_of_end(&mut self) -> bool {
        let pod = self.task.pod.borrow().clone();
        self.learn(&pod);
        self.ended
    }

    /// Whether a stream had shown everything a moment ago.
    pub(super) fn was_caught_up(&self) -> bool {
        self.resume.was_caught_up(self.context.clock.now())
    }

    /// Whether this was a moment ago.
    pub(super) fn is_same_breath(&self, at: Option<Duration>) -> bool {
        is_same_breath(at, self.context.clock.now())
    }

    /// When a stream ended of whose end has just been heard; a process that slept does not know, and one that
    /// ended in the middle of a line was not at its end. Nor does the end of an empty log tell what was rotated away before.
    pub(super) fn heard_end(&self) -> Option<Duration> {
        let context = self.context;
        let certain = !self.suspected
            && self.ends_with_a_line()
            && !self.resume.is_unsure()
            && context.stall_detector.ran_without_stall_for(IDLE);
        certain.then(|| context.clock.now())
    }

    /// Whether nothing of a line that has begun is still to come.
    pub(super) fn ends_with_a_line(&self) -> bool {
        self.intake.ends_with_a_line()
    }

    /// The latest plain read has shown that the log ended where it was read to, when it was asked for.
    pub(super) fn note_caught_up(&mut self) {
        self.resume.note_read();
    }

    /// Waits, unless the task is to stop or there is news of the pod.
    pub(super) async fn rest(&mut self, wait: Duration) -> Option<ContainerEnd> {
        let mut pod = self.task.pod.clone();
        let known = pod.borrow_and_update().clone();
        if !self.ended && self.ends(&known) {
            return None;
        }
        let news = async {
            while pod.changed().await.is_ok() {
                let now = pod.borrow_and_update().clone();
                if now.gone && !known.gone || !self.ended && self.ends(&now) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.task.stop.cancelled() => Some(ContainerEnd::Stopped),
            () = news => None,
            () = tokio::time::sleep(wait) => None,
        }
    }

    /// Whether a pod's status says that the instance has ended.
    fn ends(&self, pod: &Pod) -> bool {
        pod.container(&self.name())
            .is_some_and(|container| has_ended(container, &self.instance))
    }

    /// Marks the instance as read to its end, after reporting what could not be read.
    pub(super) async fn finish(&mut self, unread: Option<GapReason>) -> Option<ContainerEnd> {
        if let Some(reason) = unread {
            let from = self.writer.position().map(|p| p.time);
            self.writer.gap = Some(Gap { from, to: None, reason });
        }
        if self.writer.flush(|| {}).await == Written::Fenced {
            return Some(ContainerEnd::Fenced);
        }
        self.writer.finish();
        None
    }

    pub(super) fn name(&self) -> Arc<str> {
        self.writer.container()
    }

    /// Takes in what a pod's status says of the instance.
    pub(super) fn learn(&mut self, pod: &Pod) -> Option<Source> {
        let container = pod.container(&self.name())?;
        self.ended |= has_ended(container, &self.instance);
        let source = source_of(container, &self.instance)?;
        self.source = source;
        Some(source)
    }

    /// Reads what is there, from the stored position to the present end.
    pub(super) async fn catch_up(&mut self) -> ReadEnd {
        let ended = self.ended;
        let (mode, since) = self.begin();
        let mut stream = match self.open(false, since).await {
            Ok(stream) => Some(stream),
            Err(close) => return close,
        };
        let close = self.drain(&mut stream).await;
        let mut complete = true;
        if close == ReadEnd::End {
            complete = self
                .resume
                .is_complete(ended, self.intake.stats().lines, self.intake.remainder());
            self.intake.finish(ended && complete, &mut self.writer.batch);
            self.note_gap();
            if ended && complete && self.identity.vanished {
                self.note_caught_up();
            }
        }
        let unwritten = self.flush(&mut stream).await;
        self.count();
        match unwritten {
            Some(close) => close,
            None if close == ReadEnd::End => {
                self.dropped = false;
                match self.judge(mode) {
                    ReadEnd::End if !complete => ReadEnd::Misplaced,
                    judged => judged,
                }
            }
            None => close,
        }
    }

    /// What the plain read that has come to its end says about the place of the stored line.
    fn judge(&mut self, mode: ResumeMode) -> ReadEnd {
        match self.resume.judge(mode, self.intake.stats()) {
            ReadVerdict::Whole => ReadEnd::End,
            ReadVerdict::Empty => ReadEnd::Empty,
            ReadVerdict::Misplaced => ReadEnd::Misplaced,
            ReadVerdict::CutShort => ReadEnd::Broken,
            ReadVerdict::Refused => ReadEnd::Refused,
        }
    }

    /// Makes ready for the next read.
    pub(super) fn begin(&mut self) -> (ResumeMode, Option<Time>) {
        let (mode, since) = self.resume.mode(self.writer.position(), self.ended);
        self.intake.begin(mode);
        self.suspected = false;
        // Lines are taken only after the stored one, so that finding it is the proof.
        self.identity = Identity::new(matches!(
            mode,
            ResumeMode::After(_) | ResumeMode::AfterEqualStamp { .. }
        ));
        (mode, since)
    }

    /// Takes in everything a plain read brings.
    async fn drain(&mut self, stream: &mut Option<LogStream>) -> ReadEnd {
        while let Some(open) = stream {
            let frame = tokio::select! {
                biased;
                () = self.task.stop.cancelled() => return ReadEnd::Stopped,
                frame = tokio::time::timeout(STALLED, open.next()) => frame,
            };
            match frame {
                Ok(Ok(Some(bytes))) => self.feed(&bytes),
                Ok(Ok(None)) => return ReadEnd::End,
                Ok(Err(error)) => return self.broken(&error),
                Err(_) => return self.broken(&LogError::Unavailable("nothing came for 30 s".into())),
            }
            if self.writer.is_full()
                && let Some(close) = self.flush(stream).await
            {
                return close;
            }
        }
        ReadEnd::Late
    }

    pub(super) fn feed(&mut self, bytes: &Bytes) {
        self.take_in(bytes);
        self.note_lag();
    }

    /// The same for what a stream brings after a silence. False, and nothing of it is taken, when it comes so late that
    /// the kubelet may have skipped a file: what it read last before it did is that late too, and comes first. `None`
    /// when there is no line yet by which to tell.
    pub(super) fn feed_if_punctual(&mut self, bytes: &Bytes) -> Option<bool> {
        let (before, gap) = (self.writer.batch.lines.len(), self.writer.gap);
        // A line is stamped when it is begun, and may end long after.
        let begun = !self.ends_with_a_line();
        self.take_in(bytes);
        let first = self.writer.batch.lines.get(before + usize::from(begun))?.time;
        if self.delay.of(first, self.context.clock.now()) < BEHIND {
            self.note_lag();
            return Some(true);
        }
        self.writer.batch.truncate(before);
        self.writer.gap = gap;
        self.delay.forget();
        Some(false)
    }

    fn take_in(&mut self, bytes: &Bytes) {
        let first = self.intake.stats().taken == 0;
        self.intake.feed(bytes, &mut self.writer.batch);
        if first {
            self.note_gap();
        }
    }

    fn note_lag(&mut self) {
        if let Some(last) = self.writer.batch.lines.last() {
            self.delay.note(last.time, self.context.clock.now());
        }
    }

    /// Puts a gap before the first line that is taken from a file that no longer has the stored line.
    fn note_gap(&mut self) {
        let gap = self.resume.gap(self.writer.position(), self.intake.stats());
        self.writer.gap = gap.or(self.writer.gap.take());
    }

    /// Writes what has been taken; `Some` when reading cannot go on.
    pub(super) async fn flush(&mut self, stream: &mut Option<LogStream>) -> Option<ReadEnd> {
        let began = self.context.clock.now();
        if !self.writer.is_empty() {
            if let Err(close) = self.confirm().await {
                self.writer.discard();
                self.dropped = true;
                if matches!(close, ReadEnd::Moved | ReadEnd::Elsewhere | ReadEnd::Gone) {
                    // What another log has shown says nothing of this one.
                    self.resume.note_caught_up(None);
                }
                return Some(close);
            }
            self.take();
        }
        if self.context.clock.since(began) >= HELD_UP {
            *stream = None;
        }
        match self.writer.flush(|| *stream = None).await {
            Written::InTime => None,
            Written::Late => Some(ReadEnd::Late),
            Written::Fenced => Some(ReadEnd::Fenced),
        }
    }

    /// The lines about to be written are this instance's for certain.
    fn take(&mut self) {
        let lines = self.writer.batch.lines.len() as u64;
        self.taken += lines;
        if lines > 0 {
            self.resume.took();
            self.tail = None;
        }
    }

    pub(super) fn count(&self) {
        let stats = self.intake.stats();
        self.context.metrics.control_lines.inc_by(stats.control);
        self.context.metrics.lines_cut.inc_by(stats.cut);
    }
}
