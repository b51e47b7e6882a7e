//! Opening an SQLite file for a sink, and checking that it can be used. Several processes of one machine may write the
//! same file.

mod diagnose;
pub(super) mod fault;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqliteConnection};
use tokio::time::timeout;

use super::sql::Connections;
use super::{SinkOpenError, schema};
pub(super) use diagnose::diagnose;
pub(super) use fault::refusal;

/// How long a transaction waits for another process's. Less than an attempt's 5 s, so that the answer
/// says what was waited for.
const BUSY: Duration = Duration::from_secs(4);
/// How long opening the file may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How the file is opened, here and for creating its tables. A commit is on the disk when it is answered.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
}

/// Opens the file and checks its tables. What is wrong is an error that says what to do.
pub(super) async fn connect(
    path: &Path,
    name: Arc<str>,
    deadline: Duration,
) -> Result<Connections<Sqlite>, SinkOpenError> {
    if !path.exists() {
        return Err(SinkOpenError::refused(
            format!("{name}: there is no such file"),
            "run `podlog migrate`",
        ));
    }
    let options = options(path);
    let first = async {
        let mut conn = SqliteConnection::connect_with(&options).await?;
        let state = schema::sqlite_state(&mut conn).await?;
        conn.close().await?;
        Ok(state)
    };
    match timeout(CONNECT, first).await {
        Ok(Ok(state)) => schema::check(&name, state)?,
        Ok(Err(error)) => return Err(refusal(&name, &error)),
        Err(_) => {
            return Err(SinkOpenError::unavailable(
                format!("{name}: opening it took more than {CONNECT:?}"),
                "look whether the disk is overloaded, or another process holds the file",
            ));
        }
    }
    // One connection: the file has one writer, and here they wait in order.
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(deadline)
        .connect_lazy_with(options);
    Ok(Connections::new(pool, name, deadline))
}
