//! The result of checking one thing outside the process: the lines of `podlog check`.
//!
//! Values only. Adapters do the checking; `podlog check` prints the findings and chooses the exit status.

use std::fmt;

/// Why a check failed. It decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A setting is wrong.
    Setting,
    /// Something cannot be reached. It may come back without any change.
    Unreachable,
    /// Something refuses, and will until a person changes it.
    Refused,
    /// This machine lacks something.
    Machine,
}

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Correct.
    Ok,
    /// Podlog works, but an operator should know.
    Warning,
    /// Podlog does not work, or only in part.
    Failed(Cause),
    /// Not checked, because something it depends on failed.
    Skipped,
}

/// What was found and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What was found. For a failure: what failed, and why.
    pub text: String,
    /// What to do about it. Empty when there is nothing to do or the text says it already.
    pub remedy: String,
}

impl Message {
    /// A text and its remedy, which may be empty.
    pub fn new(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (text, remedy) = (text.into(), remedy.into());
        Self { text, remedy }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.remedy.is_empty() { "" } else { "; " };
        write!(f, "{}{between}{}", self.text, self.remedy)
    }
}

/// Why a lock store or a sink cannot be used. Variants are named by what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Try again: it is unreachable, slow, failing over or too busy.
    #[error("{0}")]
    Unavailable(Message),
    /// Trying again cannot help until a person changes something: a wrong password or database, a missing
    /// right, tables of another version, a closed standard output.
    #[error("{0}")]
    Refused(Message),
}

impl BackendError {
    /// It may come back without any change.
    pub fn unavailable(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unavailable(Message::new(text, remedy))
    }

    /// A person must change something.
    pub fn refused(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused(Message::new(text, remedy))
    }

    /// Whether a person must change something.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// What is wrong and what to do about it.
    #[must_use]
    pub fn message(&self) -> &Message {
        match self {
            Self::Unavailable(message) | Self::Refused(message) => message,
        }
    }
}

/// The result of one check, with its subject and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The result.
    pub outcome: Outcome,
    /// What was checked, in a few words.
    pub subject: String,
    /// What was found and what to do about it.
    pub message: Message,
}

impl Finding {
    fn new(outcome: Outcome, subject: impl Into<String>, message: Message) -> Self {
        Self {
            outcome,
            subject: subject.into(),
            message,
        }
    }

    /// Correct.
    #[must_use]
    pub fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Outcome::Ok, subject, Message::new(text, ""))
    }

    /// Works, but an operator should know.
    #[must_use]
    pub fn warning(subject: impl Into<String>, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Outcome::Warning, subject, Message::new(text, remedy))
    }

    /// Does not work.
    #[must_use]
    pub fn failed(
        cause: Cause,
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Outcome::Failed(cause), subject, Message::new(text, remedy))
    }

    /// Does not work, because of this error.
    #[must_use]
    pub fn from_error(subject: impl Into<String>, error: &BackendError) -> Self {
        let cause = match error {
            BackendError::Unavailable(_) => Cause::Unreachable,
            BackendError::Refused(_) => Cause::Refused,
        };
        Self::new(Outcome::Failed(cause), subject, error.message().clone())
    }

    /// Not checked, for this reason.
    #[must_use]
    pub fn skipped(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, subject, Message::new(reason, ""))
    }

    /// Whether it failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}
