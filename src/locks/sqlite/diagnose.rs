//! Looking at an `SQLite` store: the file, its tables, and whether it can be written.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};

use super::super::diagnose::{DEADLINE, MIGRATE, REACHED, TABLES, WRITING, skipped, tables};
use super::jobs::Version;
use super::session::{Job, Session, check_place};
use super::statements as sql;
use crate::domain::{Finding, Outcome};

/// Looks at everything. A file that is not there is not made.
pub(in crate::locks) async fn diagnose(path: &Path, migrates: bool) -> Vec<Finding> {
    let name = format!("the lock file {}", path.display());
    if !path.exists() && migrates {
        return unmade(path, &name);
    }
    let session = match Session::open(path, false).await {
        Ok(session) => session,
        Err(error) => {
            let rest = skipped(&[TABLES, WRITING], "the file was not opened");
            return [vec![Finding::of(REACHED, &error)], rest].concat();
        }
    };
    let mut findings = vec![Finding::ok(
        REACHED,
        format!("{name} was opened; SQLite is for replicas on one machine, on a local disk"),
    )];
    match session.run_for(&Version, DEADLINE).await {
        Ok(standing) => findings.push(tables(&name, standing, migrates, true)),
        Err(error) => findings.push(Finding::of(TABLES, &error)),
    }
    if findings.iter().any(|finding| finding.outcome != Outcome::Ok) {
        findings.push(Finding::skipped(WRITING, "the tables are not as they must be"));
    } else {
        let written = session.run_for(&Probe, DEADLINE).await;
        findings.push(written.map_or_else(
            |error| Finding::of(WRITING, &error),
            |()| Finding::ok(WRITING, "a row was written and removed, and all of it rolled back"),
        ));
    }
    session.close().await;
    findings
}

/// There is no file, and `podlog run` would make it.
fn unmade(path: &Path, name: &str) -> Vec<Finding> {
    let rest = skipped(&[TABLES, WRITING], "there is no file yet");
    let first = match check_place(path, true) {
        Ok(()) => Finding::warning(
            REACHED,
            format!("{name} does not exist; `podlog run` would make it at its start"),
            "run `podlog migrate` to have it done before, or correct the URL",
        ),
        Err(error) => Finding::of(REACHED, &error),
    };
    let migrate = Finding::ok(MIGRATE, "needs the right to write the directory, nothing else");
    let made = !first.has_failed();
    [vec![first], rest, if made { vec![migrate] } else { Vec::new() }].concat()
}

/// Writes a row and removes it, and takes both back.
struct Probe;

impl Job for Probe {
    type Answer = ();

    async fn run(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
        for text in sql::PROBE {
            tx.execute(text).await?;
        }
        tx.rollback().await
    }
}
