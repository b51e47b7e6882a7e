//! Looks at a lock store without changing it, one thing after another, and says how each stands.
//!
//! What a look begins it rolls back. One thing that fails does not hide the next; what depends on it is skipped.

use std::time::Duration;

use super::url::{LockUrl, Place};
use super::{mysql, schema, sqlite};
use crate::db::version::SchemaState;
use crate::domain::Finding;

/// How long one question may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// How long all of them may: a server that leaves three unanswered hangs.
pub(super) const ALL: Duration = Duration::from_secs(30);

/// The subjects, in the order they are looked at.
pub(super) const REACHED: &str = "connection";
/// The subject of the tables' version.
pub const TABLES: &str = "tables";
pub(super) const WRITING: &str = "writing";
pub(super) const MIGRATE: &str = "podlog migrate";

/// Looks at the store that `url` names. `migrates` says whether `podlog run` would make the tables itself.
pub async fn diagnose(url: &LockUrl, migrates: bool) -> Vec<Finding> {
    match &url.0 {
        Place::MySql(inner) => mysql::diagnose(inner, url.to_string(), migrates).await,
        Place::Sqlite(path) => sqlite::diagnose(path, migrates).await,
    }
}

/// What depends on something that is not there.
pub(super) fn skipped(subjects: &[&str], because: &str) -> Vec<Finding> {
    subjects
        .iter()
        .map(|subject| Finding::skipped(*subject, because))
        .collect()
}

/// The tables as a finding. Missing and older ones are no failure where `podlog run` makes them itself and may.
pub(super) fn tables(name: &str, standing: SchemaState, migrates: bool, may_create: bool) -> Finding {
    let known = schema::known();
    match (standing, schema::check(name, standing)) {
        (SchemaState::Differs(version), _) => Finding::warning(
            TABLES,
            format!("migration {version} is not the one this podlog has; they were made by a development version"),
            "drop them and run `podlog migrate` when nothing runs",
        ),
        (SchemaState::Extended(version), _) => Finding::ok(
            TABLES,
            format!("version {version}; newer than {known}, and made to suit it too"),
        ),
        (_, Ok(())) => Finding::ok(TABLES, format!("version {known}, the one this podlog needs")),
        (SchemaState::Missing | SchemaState::Older(_), Err(error)) if migrates && may_create => {
            let found = &error.message().text;
            Finding::warning(
                TABLES,
                format!("{found}; `podlog run` would make them at its start"),
                "run `podlog migrate` to have it done before",
            )
        }
        (_, Err(error)) => Finding::of(TABLES, &error),
    }
}

/// The time on this machine since 1970, microseconds.
pub(super) fn here() -> i64 {
    crate::clock::wall().0 / 1000
}

/// Beyond this a difference between two clocks is a fault in setting them, seconds.
const CLOCKS: f64 = 5.0;

/// The server's clock against this machine's, which was read before and after.
pub(super) fn clock(server: i64, before: i64, after: i64) -> Finding {
    let ahead = (server - i64::midpoint(before, after)) as f64 / 1e6;
    let found = if ahead < 0.0 {
        format!("the server's is {:.3} s behind this machine's", -ahead)
    } else {
        format!("the server's is {ahead:.3} s ahead of this machine's")
    };
    if ahead.abs() <= CLOCKS {
        return Finding::ok("clock", found);
    }
    let harm = "claims do not suffer, but ages and times of different machines cannot be compared";
    Finding::warning("clock", format!("{found}; {harm}"), "have both set by NTP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Cause, Outcome};

    #[test]
    fn missing_tables_are_a_failure_only_where_run_would_not_make_them() {
        assert_eq!(tables("db", SchemaState::Missing, true, true).outcome, Outcome::Warning);
        for (migrates, may_create) in [(false, true), (true, false)] {
            let finding = tables("db", SchemaState::Older(100), migrates, may_create);
            assert_eq!(finding.outcome, Outcome::Failed(Cause::Refused));
            assert_eq!(finding.message.remedy, "run `podlog migrate`");
        }
        let newer = tables("db", SchemaState::Newer(900), true, true);
        assert_eq!(
            (newer.outcome, &*newer.message.remedy),
            (Outcome::Failed(Cause::Refused), "run a newer podlog")
        );
    }

    #[test]
    fn clocks_that_differ_by_much_are_warned_about() {
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
