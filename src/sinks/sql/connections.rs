//! The connections of a SQL sink: work on them has a deadline, and its failures become errors of the sink.
//!
//! Nothing here makes a connection: [`Pool`] does.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Error;
use tokio::time::{Instant, timeout};

use super::dialect::SqlDialect;
use crate::db::connector::ConnectError;
use crate::db::database::{Database, Work};
use crate::db::pool::{Pool, Pooled};
use crate::domain::BackendError;
use crate::sinks::sink::SinkError;

/// The connections to one database.
#[derive(Debug)]
pub(in crate::sinks) struct Connections<DB: SqlDialect> {
    pool: Arc<Pool<DB>>,
    /// How long one piece of work may take, waiting for a connection included.
    deadline: Duration,
}

impl<DB: SqlDialect> Clone for Connections<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            deadline: self.deadline,
        }
    }
}

/// Why work on a connection was not done.
#[derive(Debug)]
pub(super) enum WorkError {
    /// There was no connection.
    NotConnected(BackendError),
    Failed(Error),
    TimedOut,
}

impl From<Error> for WorkError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
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
    /// `deadline` is how long one piece of work may take.
    pub(in crate::sinks) fn new(db: Database<DB>, limits: DB::Limits, deadline: Duration) -> Self {
        let pool = Pool::new(db, limits, DB::CONNECTIONS as usize, DB::idle_limit(deadline));
        Self { pool, deadline }
    }

    /// Takes a connection, or makes one. It gives up a little before the work does, to say why.
    pub(super) async fn acquire(&self) -> Result<Pooled<DB>, WorkError> {
        let acquired = self.pool.acquire(Instant::now() + self.deadline.mul_f64(0.9)).await;
        acquired.map_err(|error| {
            WorkError::NotConnected(match error {
                ConnectError::Failed(error) => error,
                ConnectError::NotYet => {
                    let step = Work::Job("there is no free connection, and making one takes long");
                    DB::timed_out(self.pool.database(), step, self.deadline)
                }
            })
        })
    }

    /// Does work under the deadline.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, WorkError>>) -> Result<T, WorkError> {
        timeout(self.deadline, work).await.unwrap_or(Err(WorkError::TimedOut))
    }

    /// The failure as an error of the sink: the work may be tried again.
    pub(super) fn sink_error(&self, error: &WorkError) -> SinkError {
        let db = self.pool.database();
        let why = match error {
            WorkError::NotConnected(error) => error.to_string(),
            WorkError::Failed(error) => DB::explain(db, error).to_string(),
            WorkError::TimedOut => format!("{} did not answer within {:?}; {}", db.name, self.deadline, DB::SLOW),
        };
        SinkError::Again {
            after: None,
            why: why.into(),
        }
    }
}
