//! What `podlog check` finds out about an `SQLite` file: the file, its tables, and whether it can be written.
//!
//! It creates no file. What it begins it rolls back.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error, Executor};
use tokio::time::timeout;

use super::connect::{BEGIN, check_path, connect};
use super::errors;
use super::migrate::state;
use crate::db::database::Database;
use crate::db::diagnose::{CONNECTION, DEADLINE, MIGRATE, TABLES, WRITING, skipped, tables, within};
use crate::db::schema::Schema;
use crate::domain::{BackendError, Finding, Outcome};

/// Less than the deadline of a question.
const BUSY: Duration = Duration::from_secs(4);

/// Checks everything. `migrates` says whether `podlog run` would create the tables itself.
pub(crate) async fn diagnose(path: &Path, db: &Database, migrates: bool) -> Vec<Finding> {
    if !path.exists() && migrates {
        return absent(path, db);
    }
    // A file system that hangs blocks the opening too.
    let opened = timeout(DEADLINE, connect(path, db, BUSY, false)).await;
    let mut conn = match opened.unwrap_or_else(|_| Err(unanswered(db))) {
        Ok(conn) => conn,
        Err(error) => {
            let rest = skipped(&[TABLES, WRITING], "the file was not opened");
            return [vec![Finding::of(CONNECTION, &error)], rest].concat();
        }
    };
    let text = format!(
        "{} was opened; SQLite is for replicas on one machine, on a local disk",
        db.name
    );
    let mut findings = vec![Finding::ok(CONNECTION, text)];
    findings.push(match within(state(&mut conn, db.schema)).await {
        Ok(state) => tables(db, state, migrates, true),
        Err(error) => Finding::of(TABLES, &errors::explain(db, &error)),
    });
    if findings.iter().any(|finding| finding.outcome != Outcome::Ok) {
        findings.push(Finding::skipped(WRITING, "the tables are not as they must be"));
    } else {
        findings.push(match within(write(&mut conn, db.schema)).await {
            Ok(()) => Finding::ok(WRITING, format!("{}, and all of it rolled back", db.schema.probed)),
            Err(error) => Finding::of(WRITING, &errors::explain(db, &error)),
        });
    }
    timeout(DEADLINE, conn.close()).await.ok();
    findings
}

fn unanswered(db: &Database) -> BackendError {
    BackendError::unavailable(
        format!("opening {} took more than {} s", db.name, DEADLINE.as_secs()),
        "check whether the disk is overloaded or another process holds the file",
    )
}

/// There is no file, and `podlog run` would create it.
fn absent(path: &Path, db: &Database) -> Vec<Finding> {
    let skipped = skipped(&[TABLES, WRITING], "there is no file yet");
    match check_path(path, db, true) {
        Ok(()) => {
            let first = Finding::warning(
                CONNECTION,
                format!("{} does not exist; `podlog run` creates it when it starts", db.name),
                "run `podlog migrate` to create it before, or correct the URL",
            );
            let migrate = db.schema.new_file.map(|text| Finding::ok(MIGRATE, text));
            [vec![first], skipped, Vec::from_iter(migrate)].concat()
        }
        Err(error) => [vec![Finding::of(CONNECTION, &error)], skipped].concat(),
    }
}

/// Writes as the statements of podlog do, and takes it all back.
async fn write(conn: &mut SqliteConnection, schema: &Schema) -> Result<(), Error> {
    let mut transaction = conn.begin_with(BEGIN).await?;
    for statement in schema.sqlite.probe {
        transaction.execute(*statement).await?;
    }
    transaction.rollback().await
}
