//! One instance, in rounds: first what is there already, without `follow`; then, while the
//! container runs, a follow stream. Every round begins at the stored position.
//!
//! A clean end of a read proves nothing. An instance is finished only when its end is known from
//! the pod's status and one more plain read, begun after that, brings nothing new. Only a new line
//! makes the waits between rounds short again.

use std::time::Duration;

use crate::defect::{self, Defect};
use crate::domain::GapReason;
use crate::domain::backoff::Backoff;

use super::ContainerEnd;
use super::read_end::ReadEnd;
use super::reader::Reader;

/// The first wait after a round that brought no new line, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long to wait for a status that is behind what the API server has just said.
const STALE_STATUS: Duration = Duration::from_secs(2);

/// How often the kubelet may say that it has not got the log of an ended instance before its rest
/// is given up: with waits of 250 ms doubling to 30 s, of which chance takes up to half, 46 to 92 s.
const ATTEMPTS: u32 = 10;

/// How often the log of an ended instance must be found empty although lines of it are stored,
/// before it is believed: one answer may have been cut short.
const EMPTY_ANSWERS: u32 = 2;

/// The rounds of reading one instance.
pub(super) struct InstanceReader<'a> {
    reader: Box<Reader<'a>>,
    backoff: Backoff,
    refusals: u32,
    empty: u32,
    /// When the latest stream ended, if in order.
    clean: Option<Duration>,
}

/// What to do after a read.
enum Next {
    Again,
    AgainAfter(Duration),
    /// The instance is finished, or somebody else must decide.
    Leave(Option<ContainerEnd>),
}

impl<'a> InstanceReader<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Self {
        Self {
            reader: Box::new(reader),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            refusals: 0,
            empty: 0,
            clean: None,
        }
    }

    /// Reads the instance until it is finished (`None`), cannot be found any more (`None`, and the
    /// pod's status says more), or the task must end.
    pub(super) async fn run(&mut self) -> Option<ContainerEnd> {
        loop {
            let next = self.round().await;
            match next {
                Next::Leave(end) => return end,
                Next::Again => {}
                Next::AgainAfter(wait) => {
                    if let Some(end) = self.reader.rest(wait).await {
                        return Some(end);
                    }
                }
            }
        }
    }

    /// What is done for moments is boxed, so that the hours of following do not hold room for it.
    async fn round(&mut self) -> Next {
        let before = self.reader.taken();
        let ended = self.reader.hear_of_end();
        let mut close = Box::pin(self.reader.catch_up()).await;
        if close == ReadEnd::End
            && self.clean.is_some()
            && self.reader.taken() == before
            && self.reader.ends_with_a_line()
        {
            // Two ends in order, of a stream and of a read after it, with nothing new.
            self.reader.note_caught_up();
        }
        if matches!(close, ReadEnd::End | ReadEnd::Empty) && !ended {
            close = self.reader.follow().await;
            self.clean = match close {
                ReadEnd::End => self.reader.heard_end(),
                // That the pod is gone says nothing of how its stream ended before.
                ReadEnd::Gone => self.clean,
                _ => None,
            };
        }
        let brought = self.reader.taken() > before;
        if brought {
            self.backoff.reset();
            self.refusals = 0;
        }
        if brought || !matches!(close, ReadEnd::Empty) {
            self.empty = 0;
        }
        Box::pin(self.after(close, ended, brought)).await
    }

    async fn after(&mut self, close: ReadEnd, ended: bool, brought: bool) -> Next {
        tracing::debug!(container = %self.reader.name(), ?close, ended, brought, "a round of reading is over");
        match close {
            ReadEnd::Stopped => Next::Leave(Some(ContainerEnd::Stopped)),
            ReadEnd::Fenced => Next::Leave(Some(ContainerEnd::Fenced)),
            // A stream may be cut short in order too, so that its end counts only if the pod was gone right after it.
            ReadEnd::Gone
                if !self.reader.dropped && (self.reader.is_same_breath(self.clean) || self.reader.was_caught_up()) =>
            {
                self.finish(None).await
            }
            ReadEnd::Gone => self.finish(Some(GapReason::Deleted)).await,
            ReadEnd::Elsewhere => {
                // The status is about to change; let the next step be decided on it.
                let end = self.reader.rest(STALE_STATUS).await;
                Next::Leave(end)
            }
            ReadEnd::End if ended && !brought || defect::on(Defect::CleanEndProves) => self.finish(None).await,
            ReadEnd::Empty if ended => self.nothing_left().await,
            ReadEnd::Refused => self.refused(ended).await,
            ReadEnd::Late | ReadEnd::Behind | ReadEnd::Reopen | ReadEnd::Mute => Next::Again,
            ReadEnd::Poll(wait) => Next::AgainAfter(wait),
            ReadEnd::End | ReadEnd::Misplaced | ReadEnd::Moved if brought => Next::Again,
            ReadEnd::Wait(least) => Next::AgainAfter(least.max(self.pause())),
            ReadEnd::End | ReadEnd::Empty | ReadEnd::Broken | ReadEnd::Misplaced | ReadEnd::Moved => {
                Next::AgainAfter(self.pause())
            }
        }
    }

    /// Lines of an ended instance are stored, yet its log is empty: it was rotated at the end.
    async fn nothing_left(&mut self) -> Next {
        self.empty += 1;
        if !self.reader.resume.is_unsure() {
            return self.finish(None).await;
        }
        if self.empty < EMPTY_ANSWERS {
            return Next::AgainAfter(self.pause());
        }
        self.finish(Some(GapReason::Rotated)).await
    }

    /// The kubelet answers, but has not got the log.
    async fn refused(&mut self, ended: bool) -> Next {
        self.refusals += 1;
        if ended && self.refusals >= ATTEMPTS {
            return self.finish(Some(GapReason::Unavailable)).await;
        }
        Next::AgainAfter(self.pause())
    }

    /// The instance is done with; what could not be read is reported.
    async fn finish(&mut self, unread: Option<GapReason>) -> Next {
        Next::Leave(self.reader.finish(unread).await)
    }

    fn pause(&mut self) -> Duration {
        self.backoff.wait(fastrand::f64())
    }
}
