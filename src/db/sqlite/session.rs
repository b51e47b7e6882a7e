//! One connection to a file that is kept, and replaced when it breaks.
//!
//! A job either returns the connection in order or it is closed, which rolls back what was begun.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connect::connect;
use super::errors;
use crate::db::database::Database;
use crate::db::job::Job;
use crate::domain::BackendError;

/// A connection that is replaced when it breaks. Calls queue for it.
#[derive(Debug)]
pub(crate) struct Session {
    path: PathBuf,
    db: Database,
    /// How long a statement waits for another process's transaction.
    busy: Duration,
    /// How long a job may take.
    deadline: Duration,
    /// None while a job uses it, and after it broke.
    slot: Mutex<Option<SqliteConnection>>,
}

impl Session {
    /// Starts with a connection that was just opened.
    #[must_use]
    pub(crate) fn new(path: &Path, db: Database, busy: Duration, deadline: Duration, conn: SqliteConnection) -> Self {
        Self {
            path: path.into(),
            db,
            busy,
            deadline,
            slot: Mutex::new(Some(conn)),
        }
    }

    /// The database it is connected to.
    #[must_use]
    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    /// The file.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does a job within the deadline. The deadline does not cover the wait for the job before it.
    pub(crate) async fn run<J: Job<SqliteConnection>>(&self, job: &J) -> Result<J::Answer, BackendError> {
        let mut slot = self.slot.lock().await;
        let work = async {
            // Taken out while in use: when this future is dropped half-way, the connection is dropped too.
            let mut conn = match slot.take() {
                Some(conn) => conn,
                None => connect(&self.path, &self.db, self.busy, false).await?,
            };
            match job.run(&mut conn).await {
                Ok(answer) => {
                    *slot = Some(conn);
                    Ok(answer)
                }
                Err(error) => {
                    // After any other error a new connection is safer.
                    if errors::is_busy(&error) {
                        *slot = Some(conn);
                    }
                    Err(errors::explain(&self.db, &error))
                }
            }
        };
        timeout(self.deadline, work).await.unwrap_or_else(|_| {
            let (name, limit) = (&self.db.name, self.deadline.as_secs());
            Err(BackendError::unavailable(
                format!("{name} did not answer within {limit} s"),
                "check whether the disk is overloaded",
            ))
        })
    }
}
