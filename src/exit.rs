//! How the program ends: one line and a status that a script can tell apart.
//!
//! Failures become this type only at the edge, where nobody branches on them any more.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use crate::cluster::{AccessError, ApiError};
use crate::domain::{BackendError, Cause, Escaped};

/// What a failure means to whoever started the program. The numbers are the exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Text that was asked for, such as help. Goes to stdout.
    Shown = 0,
    Unclean = 1,
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    /// A second SIGINT: 128 + 2.
    Interrupted = 130,
    /// A second SIGTERM: 128 + 15.
    Terminated = 143,
}

/// The end of the program when not all is well: what to say, on one line, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    line: String,
}

impl Failure {
    fn new(kind: Kind, line: impl fmt::Display) -> Self {
        let line = line.to_string();
        Self { kind, line }
    }

    /// Status 0: text that was asked for instead of work.
    #[must_use]
    pub fn shown(text: String) -> Self {
        Self {
            kind: Kind::Shown,
            line: text,
        }
    }

    /// Status 1: it failed, or the audit is not clean.
    #[must_use]
    pub fn unclean(line: impl fmt::Display) -> Self {
        Self::new(Kind::Unclean, line)
    }

    /// Status 2: a wrong flag or setting.
    #[must_use]
    pub fn usage(line: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, line)
    }

    /// Status 3: the API server or a database cannot be reached.
    #[must_use]
    pub fn unreachable(line: impl fmt::Display) -> Self {
        Self::new(Kind::Unreachable, line)
    }

    /// Status 4: the API server or a database refuses: rights, password, schema.
    #[must_use]
    pub fn refused(line: impl fmt::Display) -> Self {
        Self::new(Kind::Refused, line)
    }

    /// Status 130 or 143: a second signal, SIGINT or SIGTERM, cut the shutdown short.
    #[must_use]
    pub fn signalled(interrupt: bool) -> Self {
        let (kind, name) = if interrupt {
            (Kind::Interrupted, "SIGINT")
        } else {
            (Kind::Terminated, "SIGTERM")
        };
        Self::new(
            kind,
            format!("stopped by a second {name}: claims were not given back and expire by themselves"),
        )
    }

    /// Whether trying again may help without anybody changing anything.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        self.kind == Kind::Unreachable
    }

    /// What somebody must do about it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self.kind {
            Kind::Usage => Cause::Setting,
            Kind::Unreachable => Cause::Unreachable,
            Kind::Refused => Cause::Refused,
            Kind::Shown | Kind::Unclean | Kind::Interrupted | Kind::Terminated => Cause::Machine,
        }
    }

    /// The exit status.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.kind as u8
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Shown {
            return f.write_str(&self.line);
        }
        // Errors of libraries come with line breaks.
        for (i, part) in self
            .line
            .lines()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .enumerate()
        {
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
            BackendError::Unavailable(message) => Self::unreachable(message),
            BackendError::Refused(message) => Self::refused(message),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        Self::refused(error)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Throttled { .. } | ApiError::Unavailable(_) => Self::unreachable(error),
            _ => Self::refused(error),
        }
    }
}

/// Prints what is to be said and answers with the exit status.
#[must_use]
pub fn report(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    // Nobody may be reading any more, as in `podlog --help | head`; that is no failure.
    if failure.kind == Kind::Shown {
        std::io::stdout().write_all(failure.to_string().as_bytes()).ok();
    } else {
        writeln!(std::io::stderr(), "podlog: {failure}").ok();
    }
    ExitCode::from(failure.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_what_the_manual_says() {
        let codes = [
            Failure::unclean("").code(),
            Failure::usage("").code(),
            Failure::unreachable("").code(),
            Failure::refused("").code(),
            Failure::signalled(true).code(),
            Failure::signalled(false).code(),
        ];
        assert_eq!(codes, [1, 2, 3, 4, 130, 143]);
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::refused("wrong password\n  for podlog@db\n");
        assert_eq!(failure.to_string(), "wrong password for podlog@db");
    }
}
