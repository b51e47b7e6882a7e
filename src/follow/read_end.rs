//! Why a read of a log ended: the word that `rounds` decides by.
//!
//! Only words; nothing is decided here.

use std::time::Duration;

/// Why a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// In order, with the stored line found, or none to be found.
    End,
    /// In order, without a single line, although lines are stored.
    Empty,
    /// The stored line was not where it was sought; the next read seeks differently.
    Misplaced,
    /// The connection failed, or the answer could not be checked.
    Broken,
    /// The server asks to be left alone for so long.
    Wait(Duration),
    /// The kubelet answers that it has not got the log.
    Refused,
    /// The instance has moved from the present to the previous log, or back.
    Moved,
    /// The kubelet names the instance no more, so what was opened was not its log.
    Elsewhere,
    /// The pod object is gone.
    Gone,
    /// Closed because it was left unread: writing or a question about the pod took too long, or the process slept.
    Late,
    /// Closed because lines came so late that a file may have been skipped after them.
    Behind,
    /// Closed on schedule, or because the log was rotated while it said nothing.
    Reopen,
    /// Closed because there are lines that it does not bring.
    Mute,
    /// No stream may be kept open now; read again after so long.
    Poll(Duration),
    /// The task was asked to stop.
    Stopped,
    /// The sink refuses to store under the claim.
    Fenced,
}

impl ReadEnd {
    /// The word used in metrics; `None` when there was no stream that could end.
    pub(super) fn as_str(self) -> Option<&'static str> {
        let word = match self {
            Self::End | Self::Empty => "end",
            Self::Misplaced => "misplaced",
            Self::Broken | Self::Refused | Self::Wait(_) => "broken",
            Self::Moved | Self::Elsewhere | Self::Gone => "gone",
            Self::Late => "slow_sink",
            Self::Behind => "behind",
            Self::Reopen => "reopen",
            Self::Mute => "mute",
            Self::Poll(_) => return None,
            Self::Stopped => "stopped",
            Self::Fenced => "fenced",
        };
        Some(word)
    }
}
