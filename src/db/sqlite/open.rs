//! A connection to an `SQLite` file on which podlog can work: its tables and that it can be written were checked.

use std::path::Path;
use std::time::Duration;

use sqlx::Executor;
use sqlx::sqlite::SqliteConnection;
use tokio::time::timeout;

use super::connect::connect;
use super::errors;
use super::migrate::state;
use crate::db::database::Database;
use crate::domain::BackendError;

/// How long opening the file may take.
const OPENING: Duration = Duration::from_secs(10);

/// Opens a file that exists, and checks it. `busy` is how long a statement waits for another process's transaction.
pub(crate) async fn open(path: &Path, db: &Database, busy: Duration) -> Result<SqliteConnection, BackendError> {
    let opening = async {
        let mut conn = connect(path, db, busy, false).await?;
        let explain = |error| errors::explain(db, &error);
        let found = state(&mut conn, db.schema).await.map_err(explain)?;
        db.schema.check(&db.name, found)?;
        for privilege in db.schema.sqlite.privileges {
            conn.execute(privilege.statement).await.map_err(explain)?;
        }
        Ok(conn)
    };
    timeout(OPENING, opening).await.unwrap_or_else(|_| {
        Err(BackendError::unavailable(
            format!("opening {} took more than {} s", db.name, OPENING.as_secs()),
            "check whether the disk is overloaded or another process holds the file",
        ))
    })
}
