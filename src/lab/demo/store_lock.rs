//! The lock that a soak takes on the store's file, so that no replica can write to it. It is like an outage of a
//! database.
//!
//! It never changes the contents of the file.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use tokio::time::timeout;

/// How long taking or releasing the lock may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long SQLite itself waits for the lock; less than [`DEADLINE`], so that its own error is reported.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

/// The lock. Dropping it releases it.
#[derive(Debug)]
pub(super) struct StoreLock(SqliteConnection);

impl StoreLock {
    /// Takes the lock that writers need.
    pub(super) async fn take(path: &Path) -> Result<Self, String> {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
        let take = async {
            let mut conn = SqliteConnection::connect_with(&options).await?;
            sqlx::query("BEGIN EXCLUSIVE").execute(&mut conn).await?;
            Ok(Self(conn))
        };
        match timeout(DEADLINE, take).await {
            Ok(taken) => taken.map_err(|e: sqlx::Error| e.to_string()),
            Err(_) => Err(format!("not within {DEADLINE:?}")),
        }
    }

    /// Releases it and closes the connection.
    pub(super) async fn release(mut self) {
        let release = async {
            sqlx::query("ROLLBACK").execute(&mut self.0).await.ok();
            self.0.close().await.ok();
        };
        timeout(DEADLINE, release).await.ok();
    }
}
