//! Looking at an SQLite sink: the file, its tables, and whether it can be written.

use std::future::Future;
use std::io;
use std::path::Path;

use sqlx::{Connection, Executor, SqliteConnection};
use tokio::time::timeout;

use super::{options, refusal};
use crate::domain::{Cause, Finding, Outcome};
use crate::sinks::diagnose::{DEADLINE, REACHED, SinkNeeds, TABLES, WRITING, skipped, tables};
use crate::sinks::schema::sqlite_state;

/// Looks at everything. A file that is not there is not made.
pub(in crate::sinks) async fn diagnose(path: &Path, name: &str, needs: SinkNeeds) -> Vec<Finding> {
    let rest = [TABLES, WRITING];
    if !path.exists() {
        return [vec![absent(path, name, needs)], skipped(&rest, "there is no file yet")].concat();
    }
    let mut conn = match within(SqliteConnection::connect_with(&options(path))).await {
        Ok(conn) => conn,
        Err(error) => {
            let first = vec![Finding::of(REACHED, &refusal(name, &error))];
            return [first, skipped(&rest, "the file was not opened")].concat();
        }
    };
    let mut findings = vec![Finding::ok(
        REACHED,
        format!("{name} was opened; SQLite is for one machine, on a local disk"),
    )];
    findings.push(match within(sqlite_state(&mut conn)).await {
        Ok(standing) => tables(name, standing, needs.migrates, true),
        Err(error) => Finding::of(TABLES, &refusal(name, &error)),
    });
    if findings.iter().any(|finding| finding.outcome != Outcome::Ok) {
        findings.push(Finding::skipped(WRITING, "the tables are not as they must be"));
    } else {
        findings.push(match within(write(&mut conn)).await {
            Ok(()) => Finding::ok(
                WRITING,
                "a stream, a line and a gap were written, and all of it rolled back",
            ),
            Err(error) => Finding::of(WRITING, &refusal(name, &error)),
        });
    }
    timeout(DEADLINE, conn.close()).await.ok();
    findings
}

/// A file that is not there: what that means.
fn absent(path: &Path, name: &str, needs: SinkNeeds) -> Finding {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if !folder.unwrap_or(Path::new(".")).is_dir() {
        return Finding::failed(
            Cause::Refused,
            REACHED,
            format!("{name}: there is no such directory"),
            "create it, or correct the URL",
        );
    }
    let found = format!("{name}: there is no such file");
    if needs.migrates {
        return Finding::warning(
            REACHED,
            format!("{found}; `podlog run` would make it at its start"),
            "run `podlog migrate` to have it done before, or correct the URL",
        );
    }
    Finding::failed(Cause::Refused, REACHED, found, "run `podlog migrate`")
}

/// Writes a stream, a line and a gap; to be rolled back. The number below zero does not move the table's own.
const PROBE: [&str; 3] = [
    "INSERT INTO log_stream \
     (id, uid, container, container_id, namespace, pod, restart, labels, fence, created_at, updated_at) \
     VALUES (-1, 'podlog check', '', '', '', '', 0, '{}', 0, unixepoch(), unixepoch())",
    "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) VALUES (-1, 0, 0, 0, x'00')",
    "INSERT OR REPLACE INTO log_gap (stream, seq, reason) VALUES (-1, 0, 'deleted')",
];

async fn write(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    for text in PROBE {
        tx.execute(text).await?;
    }
    tx.rollback().await
}

/// A question under its deadline.
async fn within<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || {
        sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {DEADLINE:?}"),
        ))
    };
    timeout(DEADLINE, question).await.unwrap_or_else(|_| Err(late()))
}
