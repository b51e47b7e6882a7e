//! How the program ends: one line on standard error, and an exit status that scripts can check.
//!
//! Other errors become a [`Failure`] where no caller needs to distinguish them any more. Nothing here ends the process.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use crate::cluster::{AccessError, ApiError, ScopeError};
use crate::domain::{BackendError, Cause, Escaped, Finding, Message};

/// What a failure means to the caller of the program. The numbers are the exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureKind {
    /// No failure: text that was requested, such as help. Goes to standard output.
    Help = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    /// A second SIGINT: 128 + 2.
    Interrupted = 130,
    /// A second SIGTERM: 128 + 15.
    Terminated = 143,
}

/// Why the program ends without success: what failed, what to do about it, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: FailureKind,
    message: Message,
}

impl Failure {
    fn new(kind: FailureKind, text: impl fmt::Display) -> Self {
        let message = Message::new(text.to_string(), "");
        Self { kind, message }
    }

    /// Status 0: text that was requested instead of work.
    #[must_use]
    pub fn help(text: impl fmt::Display) -> Self {
        Self::new(FailureKind::Help, text)
    }

    /// Status 1: it failed, or the result is not clean.
    #[must_use]
    pub fn failed(text: impl fmt::Display) -> Self {
        Self::new(FailureKind::Failed, text)
    }

    /// Status 1: a part of the program panicked.
    #[must_use]
    pub fn panicked(error: impl fmt::Display) -> Self {
        Self::failed(format!("a part of the program panicked, which is a bug: {error}")).with_remedy("please report it")
    }

    /// Status 2: a wrong flag or setting.
    #[must_use]
    pub fn usage(text: impl fmt::Display) -> Self {
        Self::new(FailureKind::Usage, text)
    }

    /// Status 3: the API server or a database cannot be reached.
    #[must_use]
    pub fn unreachable(text: impl fmt::Display) -> Self {
        Self::new(FailureKind::Unreachable, text)
    }

    /// Status 4: the API server or a database refuses: rights, password, schema.
    #[must_use]
    pub fn refused(text: impl fmt::Display) -> Self {
        Self::new(FailureKind::Refused, text)
    }

    /// Status 130 or 143: a second SIGINT or SIGTERM cut the shutdown short.
    #[must_use]
    pub fn signalled(interrupt: bool) -> Self {
        let (kind, name) = if interrupt {
            (FailureKind::Interrupted, "SIGINT")
        } else {
            (FailureKind::Terminated, "SIGTERM")
        };
        let text = format!("stopped by a second {name}: claims were not released");
        Self::new(kind, text).with_remedy("they expire by themselves")
    }

    /// A failure with the status that belongs to `cause`.
    #[must_use]
    pub fn with_cause(cause: Cause, message: Message) -> Self {
        let kind = match cause {
            Cause::Setting => FailureKind::Usage,
            Cause::Unreachable => FailureKind::Unreachable,
            Cause::Refused => FailureKind::Refused,
            Cause::Machine => FailureKind::Failed,
        };
        Self { kind, message }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.message.remedy = remedy.into();
        self
    }

    /// What failed, and the remedy.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Whether the same attempt may succeed later, without any change.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.kind == FailureKind::Unreachable
    }

    /// The failure as a finding of `podlog check`.
    #[must_use]
    pub fn to_finding(&self, subject: impl Into<String>) -> Finding {
        let cause = match self.kind {
            FailureKind::Usage => Cause::Setting,
            FailureKind::Unreachable => Cause::Unreachable,
            FailureKind::Refused => Cause::Refused,
            FailureKind::Help | FailureKind::Failed | FailureKind::Interrupted | FailureKind::Terminated => {
                Cause::Machine
            }
        };
        Finding::failed(cause, subject, &*self.message.text, &*self.message.remedy)
    }

    /// The exit status.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.kind as u8
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == FailureKind::Help {
            return f.write_str(&self.message.text);
        }
        // Errors of libraries contain line breaks.
        let text = Message::new(self.message.text.trim_end(), &*self.message.remedy).to_string();
        let parts = text.lines().map(str::trim).filter(|part| !part.is_empty());
        for (i, part) in parts.enumerate() {
            f.write_str(if i == 0 { "" } else { " " })?;
            Escaped(part).fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Unavailable(message) => Self::with_cause(Cause::Unreachable, message),
            BackendError::Refused(message) => Self::with_cause(Cause::Refused, message),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        Self::with_cause(Cause::Refused, error.message())
    }
}

impl From<ScopeError> for Failure {
    fn from(error: ScopeError) -> Self {
        Self::with_cause(Cause::Setting, error.message())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let cause = match error {
            ApiError::Throttled { .. } | ApiError::Unavailable(_) => Cause::Unreachable,
            _ => Cause::Refused,
        };
        Self::with_cause(cause, error.message())
    }
}

/// Prints the help or the error with which the program ends, and returns the exit status.
#[must_use]
pub fn report(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    // The output may be closed, as in `podlog --help | head`; that is not a failure.
    if failure.kind == FailureKind::Help {
        std::io::stdout().write_all(failure.to_string().as_bytes()).ok();
    } else {
        writeln!(std::io::stderr(), "podlog: {failure}").ok();
    }
    ExitCode::from(failure.code())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_exit_status() {
        let codes = [
            Failure::help("").code(),
            Failure::failed("").code(),
            Failure::usage("").code(),
            Failure::unreachable("").code(),
            Failure::refused("").code(),
            Failure::signalled(true).code(),
            Failure::signalled(false).code(),
        ];
        assert_eq!(codes, [0, 1, 2, 3, 4, 130, 143]);
    }

    #[test]
    fn a_failure_is_printed_on_one_line_with_its_remedy() {
        let failure = Failure::refused("wrong password\n  for podlog@db\n").with_remedy("correct it");
        assert_eq!(failure.to_string(), "wrong password for podlog@db; correct it");
        assert_eq!(Failure::failed("a\u{1b}[31m").to_string(), "a\\u{1b}[31m");
    }

    #[test]
    fn every_error_keeps_its_message_and_its_remedy_apart() {
        let message = || Message::new("the text; with a semicolon", "the remedy");
        let after = Duration::from_secs(1);
        let cases = [
            (BackendError::Unavailable(message()).into(), 3, true),
            (BackendError::Refused(message()).into(), 4, true),
            (ApiError::Unavailable(message()).into(), 3, true),
            (ApiError::Throttled { after }.into(), 3, false),
            (ApiError::Forbidden(message()).into(), 4, true),
            (ApiError::Unauthorized(message()).into(), 4, true),
            (AccessError::NoCluster("no kubeconfig".into()).into(), 4, true),
            (AccessError::Credentials("expired".into()).into(), 4, true),
            (ScopeError::Namespace("A".into()).into(), 2, true),
            (ScopeError::Labels("a b".into(), "a b".into()).into(), 2, true),
            (Failure::with_cause(Cause::Machine, message()), 1, true),
        ];
        for (failure, code, has_remedy) in cases {
            let finding = failure.to_finding("subject");
            assert_eq!(failure.code(), code, "{failure}");
            assert_eq!(!failure.message().remedy.is_empty(), has_remedy, "{failure}");
            assert_eq!(&finding.message, failure.message());
        }
    }
}
