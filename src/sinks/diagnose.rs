//! Looks at a sink without storing anything, one thing after another, and says how each stands.
//!
//! What a look begins it rolls back or removes. One thing that fails does not hide the next; what depends on
//! it is skipped.

use std::time::Duration;

use super::url::{Kind, SinkUrl};
use super::{file, mysql, schema, sqlite, url};
use crate::db::version::SchemaState;
use crate::domain::{Cause, Finding};

/// How long one question may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// How long all of them may: a server that leaves three unanswered hangs.
pub(super) const ALL: Duration = Duration::from_secs(30);

/// The subjects that more than one kind of sink has.
pub(super) const REACHED: &str = "connection";
/// The subject of the tables' version.
pub const TABLES: &str = "tables";
pub(super) const WRITING: &str = "writing";
pub(super) const MIGRATE: &str = "podlog migrate";

/// What the settings want of a sink.
#[derive(Clone, Copy, Debug)]
pub struct SinkNeeds {
    /// `podlog run` makes the tables itself.
    pub migrates: bool,
    /// Old records are deleted.
    pub retains: bool,
    /// The longest line, bytes.
    pub max_line: usize,
}

/// Looks at the sink that `url` names.
pub async fn diagnose(url: &SinkUrl, needs: SinkNeeds) -> Vec<Finding> {
    let name = url.to_string();
    match &url.kind {
        Kind::Stdout => vec![Finding::ok(
            "stdout",
            "records go to standard output; nothing to look at",
        )],
        Kind::File(options) => file::diagnose(options).await,
        Kind::Sqlite(path) => sqlite::diagnose(path, &name, needs).await,
        Kind::MySql(url) => match url::options(url) {
            Ok(options) => mysql::diagnose(options, &name, needs).await,
            Err(error) => vec![Finding::failed(
                Cause::Setting,
                REACHED,
                format!("{name}: {error}"),
                "correct the URL",
            )],
        },
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
    match (standing, schema::check(name, standing)) {
        (SchemaState::Differs(version), _) => Finding::warning(
            TABLES,
            format!("migration {version} is not the one this podlog has; they were made by a development version"),
            "drop them and run `podlog migrate` when nothing runs",
        ),
        (SchemaState::Extended(version), _) => Finding::ok(
            TABLES,
            format!("version {version}; newer than this podlog's, and made to suit it too"),
        ),
        (_, Ok(())) => Finding::ok(TABLES, "of the version this podlog needs"),
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
