//! What `podlog check` finds out about every database, whichever it is: the subjects, the deadlines, and how the version
//! of the tables and the clock are judged.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::database::Database;
use super::version::SchemaState;
use crate::domain::Finding;

/// How long one question may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// How long all questions together may take: a server that leaves three unanswered hangs.
pub(super) const ALL: Duration = Duration::from_secs(30);

/// The subject of connecting.
pub(crate) const CONNECTION: &str = "connection";
/// The subject of the tables' version.
pub(crate) const TABLES: &str = "tables";
/// The subject of each privilege.
pub(super) const PRIVILEGES: &str = "rights";
/// The subject of storing something.
pub(crate) const WRITING: &str = "writing";
/// The subject of whether tables could be created.
pub(super) const MIGRATE: &str = "podlog migrate";

/// What is checked, beyond what every use of a database needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Whether `podlog run` would create the tables itself.
    pub migrates: bool,
    /// Whether old records are deleted, so that the privileges for that are needed.
    pub retains: bool,
    /// Whether the server's clock is compared with this machine's.
    pub clock: bool,
    /// The length of the largest statement, bytes, if its limit is checked.
    pub largest_statement: Option<usize>,
}

/// Findings for what depends on something that failed.
pub(super) fn skipped(subjects: &[&str], reason: &str) -> Vec<Finding> {
    subjects
        .iter()
        .map(|subject| Finding::skipped(*subject, reason))
        .collect()
}

/// Asks a question under its deadline.
pub(super) async fn within<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || {
        let text = format!("no answer within {} s", DEADLINE.as_secs());
        sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
    };
    timeout(DEADLINE, question).await.unwrap_or_else(|_| Err(late()))
}

/// The version of the tables. Missing and older tables are no failure where `podlog run` creates them itself and may.
pub(super) fn tables(db: &Database, state: SchemaState, migrates: bool, may_create: bool) -> Finding {
    let known = db.schema.known();
    match (state, db.schema.check(&db.name, state)) {
        (SchemaState::Differs(version), _) => Finding::warning(
            TABLES,
            format!("migration {version} is not the one this podlog has: a development version created the tables"),
            "drop them and run `podlog migrate` when no replica runs",
        ),
        (SchemaState::Extended(version), _) => Finding::ok(
            TABLES,
            format!("version {version}; newer than {known}, and compatible with it"),
        ),
        (_, Ok(())) => Finding::ok(TABLES, format!("version {known}, the one this podlog needs")),
        (SchemaState::Missing | SchemaState::Older(_), Err(error)) if migrates && may_create => {
            let text = &error.message().text;
            Finding::warning(
                TABLES,
                format!("{text}; `podlog run` creates them when it starts"),
                "run `podlog migrate` to create them before",
            )
        }
        (_, Err(error)) => Finding::of(TABLES, &error),
    }
}

/// The time on this machine since 1970, microseconds.
pub(super) fn local_time() -> i64 {
    crate::clock::wall().0 / 1000
}

/// Two clocks that differ by more are not set by NTP, seconds.
const LARGEST_DIFFERENCE: f64 = 5.0;

/// The server's clock compared with this machine's, which was read before and after. All in microseconds.
pub(super) fn clock(server: i64, before: i64, after: i64) -> Finding {
    let ahead = (server - i64::midpoint(before, after)) as f64 / 1e6;
    let text = if ahead < 0.0 {
        format!("the server's is {:.3} s behind this machine's", -ahead)
    } else {
        format!("the server's is {ahead:.3} s ahead of this machine's")
    };
    if ahead.abs() <= LARGEST_DIFFERENCE {
        return Finding::ok("clock", text);
    }
    let harm = "claims do not suffer, but ages and times of different machines cannot be compared";
    Finding::warning("clock", format!("{text}; {harm}"), "have both set by NTP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Cause, Outcome};

    #[test]
    fn missing_tables_are_a_failure_only_where_run_would_not_create_them() {
        let db = Database {
            name: "db".into(),
            schema: &crate::db::fixtures::CLAIMS,
        };
        let tables = |state, migrates, may_create| tables(&db, state, migrates, may_create);
        assert_eq!(tables(SchemaState::Missing, true, true).outcome, Outcome::Warning);
        for (migrates, may_create) in [(false, true), (true, false)] {
            let finding = tables(SchemaState::Older(100), migrates, may_create);
            assert_eq!(finding.outcome, Outcome::Failed(Cause::Refused));
            assert_eq!(finding.message.remedy, "run `podlog migrate`");
        }
        let newer = tables(SchemaState::Newer(900), true, true);
        assert_eq!(
            (newer.outcome, &*newer.message.remedy),
            (Outcome::Failed(Cause::Refused), "run a newer podlog")
        );
    }

    #[test]
    fn clocks_that_differ_by_seconds_are_warned_about() {
        assert_eq!(
            clock(1_500_000, 1_000_000, 2_000_000),
            Finding::ok("clock", "the server's is 0.000 s ahead of this machine's")
        );
        let behind = clock(0, 9_000_000, 11_000_000);
        assert!(
            behind.outcome == Outcome::Warning && behind.message.text.contains("10.000 s behind"),
            "{behind:?}"
        );
    }
}
