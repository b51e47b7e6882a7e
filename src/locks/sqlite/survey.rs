//! Looking at an `SQLite` store: the file, its tables, and whether it can be written.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};

use super::super::survey::{DEADLINE, MIGRATE, REACHED, TABLES, WRITING, skipped, tables};
use super::jobs::Version;
use super::session::{Job, Session, check_place};
use super::statements as sql;
use crate::domain::{Fact, Outcome};

/// Looks at everything. A file that is not there is not made.
pub(in crate::locks) async fn survey(path: &Path, migrates: bool) -> Vec<Fact> {
    let name = format!("the lock file {}", path.display());
    if !path.exists() && migrates {
        return unmade(path, &name);
    }
    let session = match Session::open(path, false).await {
        Ok(session) => session,
        Err(error) => {
            let rest = skipped(&[TABLES, WRITING], "the file was not opened");
            return [vec![Fact::of(REACHED, &error)], rest].concat();
        }
    };
    let mut facts = vec![Fact::ok(
        REACHED,
        format!("{name} was opened; SQLite is for replicas on one machine, on a local disk"),
    )];
    match session.run_for(&Version, DEADLINE).await {
        Ok(standing) => facts.push(tables(&name, standing, migrates, true)),
        Err(error) => facts.push(Fact::of(TABLES, &error)),
    }
    if facts.iter().any(|fact| fact.outcome != Outcome::Ok) {
        facts.push(Fact::skipped(WRITING, "the tables are not as they must be"));
    } else {
        let written = session.run_for(&Probe, DEADLINE).await;
        facts.push(written.map_or_else(
            |error| Fact::of(WRITING, &error),
            |()| Fact::ok(WRITING, "a row was written and removed, and all of it rolled back"),
        ));
    }
    session.close().await;
    facts
}

/// There is no file, and `podlog run` would make it.
fn unmade(path: &Path, name: &str) -> Vec<Fact> {
    let rest = skipped(&[TABLES, WRITING], "there is no file yet");
    let first = match check_place(path, true) {
        Ok(()) => Fact::warning(
            REACHED,
            format!("{name} does not exist; `podlog run` would make it at its start"),
            "run `podlog migrate` to have it done before, or correct the URL",
        ),
        Err(error) => Fact::of(REACHED, &error),
    };
    let migrate = Fact::ok(MIGRATE, "needs the right to write the directory, nothing else");
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
