//! One thing that was looked at outside, and what was found: the lines of `podlog check`.
//!
//! Values only. Who looks is an adapter; how it is shown and which status it means is decided elsewhere.

use std::fmt;

/// What somebody must do about a failure, or whether waiting may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A setting is wrong.
    Setting,
    /// Something cannot be reached; it may come back by itself.
    Unreachable,
    /// Something refuses until a person changes it.
    Refused,
    /// This machine is not as it must be.
    Machine,
}

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it must be.
    Ok,
    /// Podlog works, but somebody should know.
    Warning,
    /// Podlog does not work, or not wholly.
    Failed(Cause),
    /// Not looked at, because something else is missing.
    Skipped,
}

/// What is wrong and what to do about it; together one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The thing and the cause.
    pub found: String,
    /// What to do; empty when nothing is to be done or the cause says it already.
    pub remedy: String,
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.remedy.is_empty() { "" } else { "; " };
        write!(f, "{}{between}{}", self.found, self.remedy)
    }
}

/// Why a store or a sink cannot be used. Variants are named by what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// Try again: it is unreachable, slow, failing over or too busy.
    #[error("{0}")]
    Unavailable(Words),
    /// Trying again cannot help until a person changes something: a wrong password or database, a missing
    /// right, tables of another version, a closed standard output.
    #[error("{0}")]
    Refused(Words),
}

impl Unready {
    /// It may come back by itself.
    pub fn unavailable(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), remedy.into());
        Self::Unavailable(Words { found, remedy })
    }

    /// A person must change something.
    pub fn refused(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), remedy.into());
        Self::Refused(Words { found, remedy })
    }

    /// What is wrong and what to do about it.
    #[must_use]
    pub fn words(&self) -> &Words {
        match self {
            Self::Unavailable(words) | Self::Refused(words) => words,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// How it stands.
    pub outcome: Outcome,
    /// What was looked at, in a few words.
    pub subject: String,
    /// What was found; for what failed, the cause.
    pub found: String,
    /// What to do about it; empty when nothing is to be done or the cause says it already.
    pub remedy: String,
}

impl Fact {
    fn new(outcome: Outcome, subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome,
            subject: subject.into(),
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// As it must be.
    #[must_use]
    pub fn ok(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Outcome::Ok, subject, found, "")
    }

    /// Works, but somebody should know.
    #[must_use]
    pub fn warning(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Outcome::Warning, subject, found, remedy)
    }

    /// Does not work.
    #[must_use]
    pub fn failed(
        cause: Cause,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Outcome::Failed(cause), subject, found, remedy)
    }

    /// Does not work, for this reason.
    #[must_use]
    pub fn of(subject: impl Into<String>, error: &Unready) -> Self {
        let cause = match error {
            Unready::Unavailable(_) => Cause::Unreachable,
            Unready::Refused(_) => Cause::Refused,
        };
        let Words { found, remedy } = error.words().clone();
        Self::failed(cause, subject, found, remedy)
    }

    /// Not looked at, because of something else.
    #[must_use]
    pub fn skipped(subject: impl Into<String>, because: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, subject, because, "")
    }

    /// Whether it failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}
