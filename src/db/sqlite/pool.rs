//! A pool of one connection to an `SQLite` file: the file has one writer, and in the pool writers wait in order.

use std::path::Path;
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::time::timeout;

use super::connect::options;
use super::open::open as open_one;
use crate::db::database::Database;
use crate::domain::BackendError;

/// Opens the pool, after one connection outside it was checked: a pool would hide the true error. `busy` is how long a
/// statement waits for another process's transaction, `deadline` how long work waits for the connection.
pub(crate) async fn open(
    path: &Path,
    db: &Database,
    busy: Duration,
    deadline: Duration,
) -> Result<SqlitePool, BackendError> {
    let conn = open_one(path, db, busy).await?;
    timeout(deadline, conn.close()).await.ok();
    Ok(SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(deadline)
        .connect_lazy_with(options(path, busy)))
}
