//! Looking at an SQLite sink: the file, its tables, and whether it can be written.

use std::future::Future;
use std::io;
use std::path::Path;

use sqlx::{Connection, Executor, SqliteConnection};
use tokio::time::timeout;

use super::{options, refusal, sql};
use crate::domain::{Cause, Fact, Outcome};
use crate::sinks::schema::sqlite_state;
use crate::sinks::survey::{DEADLINE, REACHED, TABLES, WRITING, Wish, skipped, tables};

/// Looks at everything. A file that is not there is not made.
pub(in crate::sinks) async fn survey(path: &Path, name: &str, wish: Wish) -> Vec<Fact> {
    let rest = [TABLES, WRITING];
    if !path.exists() {
        return [vec![absent(path, name, wish)], skipped(&rest, "there is no file yet")].concat();
    }
    let mut conn = match within(SqliteConnection::connect_with(&options(path))).await {
        Ok(conn) => conn,
        Err(error) => {
            let first = vec![Fact::of(REACHED, &refusal(name, &error))];
            return [first, skipped(&rest, "the file was not opened")].concat();
        }
    };
    let mut facts = vec![Fact::ok(
        REACHED,
        format!("{name} was opened; SQLite is for one machine, on a local disk"),
    )];
    facts.push(match within(sqlite_state(&mut conn)).await {
        Ok(standing) => tables(name, standing, wish.migrates, true),
        Err(error) => Fact::of(TABLES, &refusal(name, &error)),
    });
    if facts.iter().any(|fact| fact.outcome != Outcome::Ok) {
        facts.push(Fact::skipped(WRITING, "the tables are not as they must be"));
    } else {
        facts.push(match within(write(&mut conn)).await {
            Ok(()) => Fact::ok(
                WRITING,
                "a stream, a line and a gap were written, and all of it rolled back",
            ),
            Err(error) => Fact::of(WRITING, &refusal(name, &error)),
        });
    }
    timeout(DEADLINE, conn.close()).await.ok();
    facts
}

/// A file that is not there: what that means.
fn absent(path: &Path, name: &str, wish: Wish) -> Fact {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if !folder.unwrap_or(Path::new(".")).is_dir() {
        return Fact::failed(
            Cause::Refused,
            REACHED,
            format!("{name}: there is no such directory"),
            "create it, or correct the URL",
        );
    }
    let found = format!("{name}: there is no such file");
    if wish.migrates {
        return Fact::warning(
            REACHED,
            format!("{found}; `podlog run` would make it at its start"),
            "run `podlog migrate` to have it done before, or correct the URL",
        );
    }
    Fact::failed(Cause::Refused, REACHED, found, "run `podlog migrate`")
}

async fn write(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin_with(sql::BEGIN).await?;
    for text in sql::PROBE {
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
