//! The names of the steps, as they appear in a history.

use crate::state::MessageKind;

/// What happens to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Delivery {
    /// It arrives and is answered at once.
    Answered,
    /// It arrives at once and the answer is lost.
    AnswerLost,
    /// It never arrives.
    Lost,
    /// It is on its way.
    Late,
}

/// A step; replicas and pods are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The database's clock ticks.
    Database,
    /// The clock of a replica ticks.
    Clock(usize),
    /// The database's clock jumps by this many ticks.
    Jump(i8),
    /// A replica reads the table and finds that the database's clock has jumped.
    HoldsOff(usize),
    Acquires(usize, usize, Delivery),
    Renews(usize, usize, Delivery),
    /// A replica requests a pod of another.
    RequestsHandover(usize, usize),
    /// The holder declines the request.
    DeclinesHandover(usize, usize),
    /// The task has ended; its claim is released.
    Releases(usize, usize, Delivery),
    /// The task has written what it had read; the pod goes to the replica that has requested it.
    HandsOver(usize, usize, Delivery),
    /// The pod is finished.
    Finishes(usize, usize, Delivery),
    /// A task ends that should have ended before the hand-over.
    Drains(usize, usize),
    /// A late statement arrives.
    Arrives(MessageKind, usize, usize),
    /// A late answer comes.
    Answers(MessageKind, usize, usize),
    /// Its sender waits no longer for a late statement or answer; the statement may still arrive.
    GivenUp(MessageKind, usize, usize),
    /// A late statement gets lost.
    Vanishes(MessageKind, usize, usize),
}

impl Step {
    /// The step without numbers.
    pub(crate) fn kind(self) -> String {
        let text = format!("{self:?}");
        let words = text
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }
}
