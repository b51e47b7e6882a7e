//! The connections of a SQL sink: work on them has a deadline, and its failures become errors of the sink.
//!
//! A connection whose work failed, or was given up, is closed and never used again.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Error, Pool};
use tokio::time::timeout;

use super::dialect::SqlDialect;
use crate::db::database::Database;
use crate::sinks::sink::SinkError;

/// A pool of connections to one database.
#[derive(Debug)]
pub(in crate::sinks) struct Connections<DB: SqlDialect> {
    pool: Pool<DB>,
    db: Arc<Database<DB>>,
    /// How long one piece of work may take, waiting for a connection included.
    deadline: Duration,
}

impl<DB: SqlDialect> Clone for Connections<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            db: self.db.clone(),
            deadline: self.deadline,
        }
    }
}

/// Why work on a connection was not done.
#[derive(Debug)]
pub(super) enum WorkError {
    Failed(Error),
    TimedOut,
}

impl WorkError {
    /// Whether the database refuses a value or a row, such as one that exists already, and not the whole
    /// transaction: what was to be stored beside it may be stored without it.
    pub(super) fn concerns_a_row(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        error
            .as_database_error()
            .is_some_and(|error| !matches!(error.kind(), sqlx::error::ErrorKind::Other))
    }
}

impl<DB: SqlDialect> Connections<DB> {
    pub(in crate::sinks) fn new(pool: Pool<DB>, db: Database<DB>, deadline: Duration) -> Self {
        let db = Arc::new(db);
        Self { pool, db, deadline }
    }

    /// Takes a connection from the pool.
    pub(super) async fn acquire(&self) -> Result<ReturnOnSuccess<DB>, Error> {
        Ok(ReturnOnSuccess(Some(self.pool.acquire().await?)))
    }

    /// Does work under the deadline.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, WorkError> {
        match timeout(self.deadline, work).await {
            Ok(done) => done.map_err(WorkError::Failed),
            Err(_) => Err(WorkError::TimedOut),
        }
    }

    /// The failure as an error of the sink: the work may be tried again.
    pub(super) fn sink_error(&self, error: &WorkError) -> SinkError {
        let why = match error {
            WorkError::Failed(error) => DB::explain(&self.db, error).to_string(),
            WorkError::TimedOut => {
                format!(
                    "{} did not answer within {:?}; {}",
                    self.db.name,
                    self.deadline,
                    DB::SLOW
                )
            }
        };
        SinkError::Again {
            after: None,
            why: why.into(),
        }
    }
}

/// A connection that goes back to the pool only when its work was done. Otherwise it is closed at once, which rolls its
/// transaction back: it may still be busy, and the next user of it would wait.
pub(super) struct ReturnOnSuccess<DB: SqlDialect>(Option<PoolConnection<DB>>);

impl<DB: SqlDialect> ReturnOnSuccess<DB> {
    pub(super) fn get(&mut self) -> Result<&mut DB::Connection, Error> {
        self.0.as_deref_mut().ok_or(Error::WorkerCrashed)
    }

    /// The work was done.
    pub(super) fn succeed(mut self) {
        drop(self.0.take());
    }
}

impl<DB: SqlDialect> Drop for ReturnOnSuccess<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
