//! One instance being read: where it stands, and plain reads of what is there.
//!
//! A plain read begins a little before the stored line and seeks it. A line that is not there was rotated
//! away: a gap, once the file has shown that it begins later. Text without a timestamp is never delivered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::{LogError, LogStream};
use crate::domain::intake::{Intake, Stance};
use crate::domain::steps::{Source, has_ended, source_of};
use crate::domain::{Gap, GapReason, Instance, Pod, Time};

use super::close::Close;
use super::identity::Identity;
use super::writer::{Writer, Written};
use super::{End, Site, Task};

/// How far before the stored line a read begins. The API cuts to whole seconds, and a container's
/// two streams are stamped by two writers, so a line may carry an earlier stamp than the one before it.
const MARGIN: i64 = 2_000_000_000;

/// A plain read that brings nothing for this long is broken.
const STALLED: Duration = Duration::from_secs(30);

/// How long after a quiet stream ended, or after its silence was broken, its place need not be found
/// again: too short for the file to be filled and rotated by lines that nobody saw.
const SAME_BREATH: Duration = Duration::from_secs(2);

/// How often the search for the stored line may fail before later timestamps decide.
const SEARCHES: u32 = 5;

/// How the next plain read seeks the stored line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    Usual,
    Twin(u32),
    NewFile,
    LaterStamps,
}

/// One instance being read.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a doubt of its own; no two make a state"
)]
pub(super) struct Reading<'a> {
    pub(super) site: &'a Site,
    pub(super) task: &'a Task,
    instance: Instance,
    pub(super) source: Source,
    ended: bool,
    pub(super) writer: Writer<'a>,
    pub(super) intake: Intake,
    search: Search,
    searches: u32,
    taken: u64,
    /// Whether the latest read took new lines.
    pub(super) fresh: bool,
    /// When the latest plain read began.
    begun: Duration,
    /// When all of the log had been read for certain.
    pub(super) caught_up: Option<Duration>,
    pub(super) identity: Identity,
    /// What remained without a line end when the log was read last.
    rest: Option<u64>,
    /// How often in a row the log was empty although lines of it are stored.
    empties: u32,
    /// A stream has missed lines that are there: the next read asks for the whole log, because after a
    /// step of the node's clock new lines may carry stamps far before the stored one.
    pub(super) doubtful: bool,
    /// The log was empty although lines of it are stored, and nobody watched meanwhile.
    unsure: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(site: &'a Site, task: &'a Task, instance: Instance, source: Source, writer: Writer<'a>) -> Self {
        let intake = Intake::new(site.settings.max_line);
        Self {
            site,
            task,
            instance,
            source,
            ended: false,
            writer,
            intake,
            search: Search::Usual,
            searches: 0,
            taken: 0,
            fresh: false,
            begun: Duration::ZERO,
            caught_up: None,
            identity: Identity::default(),
            rest: None,
            empties: 0,
            doubtful: false,
            unsure: false,
        }
    }

    /// Lines taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the instance is known to have ended.
    pub(super) fn has_ended(&mut self) -> bool {
        let pod = self.task.pod.borrow().clone();
        self.learn(&pod);
        self.ended
    }

    /// Whether a stream had shown everything a moment ago.
    pub(super) fn was_caught_up(&self) -> bool {
        !self.unsure && self.is_same_breath(self.caught_up)
    }

    /// Whether this was a moment ago.
    pub(super) fn is_same_breath(&self, at: Option<Duration>) -> bool {
        at.is_some_and(|at| self.site.clock.now() < at + SAME_BREATH)
    }

    /// When a stream ended of whose end has just been heard; a process that slept does not know.
    pub(super) fn heard_end(&self) -> Option<Duration> {
        let site = self.site;
        site.pulse.was_awake_for(SAME_BREATH).then(|| site.clock.now())
    }

    /// The latest plain read has shown that the log ended where it was read to, when that read began.
    pub(super) fn note_caught_up(&mut self) {
        self.caught_up = Some(self.begun);
    }

    /// Waits, unless the task is to stop or there is news of the pod.
    pub(super) async fn rest(&mut self, wait: Duration) -> Option<End> {
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
            () = self.task.stop.cancelled() => Some(End::Stopped),
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
    pub(super) async fn finish(&mut self, unread: Option<GapReason>) -> Option<End> {
        if let Some(reason) = unread {
            let from = self.writer.position().map(|p| p.time);
            self.writer.gap = Some(Gap { from, to: None, reason });
        }
        if self.writer.flush(|| {}).await == Written::Fenced {
            return Some(End::Fenced);
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
        let source = source_of(container, &self.instance)?;
        self.ended |= has_ended(container, &self.instance);
        self.source = source;
        Some(source)
    }

    /// Reads what is there, from the stored position to the present end.
    pub(super) async fn catch_up(&mut self) -> Close {
        let ended = self.ended;
        self.begun = self.site.clock.now();
        let (stance, since) = self.begin();
        let mut stream = match self.open(false, since).await {
            Ok(stream) => Some(stream),
            Err(close) => return close,
        };
        let close = self.drain(&mut stream).await;
        let mut complete = true;
        if close == Close::End {
            // A read may be cut short in mid-line, so the rest counts when two reads agree on it.
            let rest = self.intake.remainder();
            complete = !ended || rest == self.rest;
            self.rest = rest;
            self.intake.finish(ended && complete, &mut self.writer.batch);
            self.note_gap();
            if ended && complete && self.identity.vanished {
                self.note_caught_up();
            }
        }
        self.count();
        match self.flush(&mut stream).await {
            Some(close) => close,
            None if close == Close::End => match self.judge(stance) {
                Close::End if !complete => Close::Misplaced,
                judged => judged,
            },
            None => close,
        }
    }

    /// What the plain read that has come to its end says about the place of the stored line.
    fn judge(&mut self, stance: Stance) -> Close {
        let seen = self.intake.seen();
        // The kubelet's words at the end of a log say why there is no more of it.
        if seen.ends_in_control {
            return Close::Refused;
        }
        let sought = matches!(stance, Stance::After(_) | Stance::AllSince(_));
        if sought && seen.lines == 0 {
            return self.empty();
        }
        if matches!(stance, Stance::Later(_)) && seen.taken == 0 {
            return self.sought(Search::LaterStamps, Close::Refused);
        }
        let found = seen.taking || matches!(stance, Stance::Later(_));
        if found {
            self.unsure = false;
            self.searches = 0;
            self.empties = 0;
            return self.sought(Search::Usual, Close::End);
        }
        if let Stance::After(_) = stance {
            let again = if seen.twins > 0 {
                Search::Twin(seen.twins)
            } else {
                Search::NewFile
            };
            return self.sought(again, Close::Misplaced);
        }
        self.searches += 1;
        let next = if self.searches < SEARCHES {
            Search::Usual
        } else {
            Search::LaterStamps
        };
        self.sought(next, Close::Broken)
    }

    /// Nothing of what is stored is there, so whatever comes now is new. A follow stream that sought the
    /// stored line would pass it all over, and it may be rotated away before another read finds it.
    /// One empty answer may have been cut short, so it is believed the second time.
    fn empty(&mut self) -> Close {
        self.empties += 1;
        if self.empties == 1 {
            return self.sought(Search::Usual, Close::Misplaced);
        }
        self.unsure |= !self.was_caught_up();
        self.sought(Search::NewFile, Close::Empty)
    }

    fn sought(&mut self, next: Search, close: Close) -> Close {
        self.search = next;
        close
    }

    /// Makes ready for the next read.
    pub(super) fn begin(&mut self) -> (Stance, Option<Time>) {
        let (stance, since) = self.stance();
        self.intake.begin(stance);
        // Lines are taken only after the stored one, so that finding it is the proof.
        self.identity = Identity::new(matches!(stance, Stance::After(_) | Stance::AfterTwin { .. }));
        (stance, since)
    }

    /// How the next read treats lines, and from when it asks for them.
    fn stance(&self) -> (Stance, Option<Time>) {
        let Some(position) = self.writer.position() else {
            return (Stance::All, None);
        };
        // An ended instance is read whole, once or twice, for the same reason as after doubts.
        let since = (!self.ended && !self.doubtful).then(|| position.time.plus_nanos(-MARGIN));
        match self.search {
            Search::Usual => (Stance::After(position), since),
            Search::Twin(nth) => (Stance::AfterTwin { position, nth }, since),
            Search::NewFile => (Stance::AllSince(position), None),
            Search::LaterStamps => (Stance::Later(position), since),
        }
    }

    /// Takes in everything a plain read brings.
    async fn drain(&mut self, stream: &mut Option<LogStream>) -> Close {
        while let Some(open) = stream {
            let frame = tokio::select! {
                biased;
                () = self.task.stop.cancelled() => return Close::Stopped,
                frame = tokio::time::timeout(STALLED, open.next()) => frame,
            };
            match frame {
                Ok(Ok(Some(bytes))) => self.feed(&bytes),
                Ok(Ok(None)) => return Close::End,
                Ok(Err(error)) => return self.broken(&error),
                Err(_) => return self.broken(&LogError::Unavailable("nothing came for 30 s".into())),
            }
            if self.writer.is_full()
                && let Some(close) = self.flush(stream).await
            {
                return close;
            }
        }
        Close::Late
    }

    pub(super) fn feed(&mut self, bytes: &Bytes) {
        self.intake.feed(bytes, &mut self.writer.batch);
        self.note_gap();
    }

    /// Puts a gap before the first line that is taken from a file that no longer has the stored line.
    fn note_gap(&mut self) {
        let sought = match self.search {
            Search::NewFile | Search::LaterStamps => self.writer.position(),
            Search::Usual | Search::Twin(_) => None,
        };
        let seen = self.intake.seen();
        let (Some(position), Some(first)) = (sought, seen.first_taken) else {
            return;
        };
        // Once, with the first lines of this read: afterwards the position is in this file.
        let new = seen.taken == self.writer.batch.lines.len() as u64;
        let unbroken = self.search == Search::NewFile && self.was_caught_up();
        if new && !unbroken {
            self.writer.gap = Some(Gap {
                from: Some(position.time),
                to: Some(first),
                reason: GapReason::Rotated,
            });
        }
    }

    /// Writes what has been taken; `Some` when reading cannot go on.
    pub(super) async fn flush(&mut self, stream: &mut Option<LogStream>) -> Option<Close> {
        if !self.writer.is_empty()
            && let Err(close) = self.confirm().await
        {
            self.writer.discard();
            return Some(close);
        }
        match self.writer.flush(|| *stream = None).await {
            Written::InTime => None,
            Written::Late => Some(Close::Late),
            Written::Fenced => Some(Close::Lost),
        }
    }

    pub(super) fn count(&mut self) {
        let seen = self.intake.seen();
        self.taken += seen.taken;
        self.fresh = seen.taken > 0;
        if seen.taken > 0 {
            // Whatever had to be sought is behind the lines taken.
            self.search = Search::Usual;
            self.searches = 0;
            self.unsure = false;
            self.empties = 0;
        }
        self.site.metrics.control_lines.inc_by(seen.control);
        self.site.metrics.lines_cut.inc_by(seen.cut);
    }
}
