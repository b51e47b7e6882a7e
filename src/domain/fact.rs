//! One thing that was looked at outside, and what was found: the lines of `podlog check`.
//!
//! Values only. Who looks is an adapter; how it is shown and which status it means is decided elsewhere.

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
