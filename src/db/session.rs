//! One connection that is kept, and replaced when it breaks.
//!
//! A job either returns the connection in order or the connection is closed. A statement that was cancelled or timed out
//! would keep it busy, and what became of it is read from the database, never assumed. There is no pool, because a pool
//! pings before and after every statement.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::connector::{ConnectError, Connector};
use super::database::{Database, DatabaseKind, ErrorClass, Work};
use crate::domain::BackendError;

/// Work on a connection of type `C`. It can be done again from the start after any failure.
pub(crate) trait Job<C>: Sync {
    /// What it returns.
    type Answer: Send;

    /// Does the work once.
    fn run(&self, conn: &mut C) -> impl Future<Output = Result<Self::Answer, sqlx::Error>> + Send;
}

/// A connection that is replaced when it breaks. Calls queue for it.
#[derive(Debug)]
pub(crate) struct Session<K: DatabaseKind> {
    connector: Connector<K>,
    /// How long a job may take.
    deadline: Duration,
    connection: Connection<K>,
}

/// None while a job uses it, and after it broke.
struct Connection<K: DatabaseKind>(Mutex<Option<K::Connection>>);

impl<K: DatabaseKind> fmt::Debug for Connection<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl<K: DatabaseKind> Session<K> {
    /// Starts with a connection that was just made.
    #[must_use]
    pub(crate) fn new(db: Database<K>, limits: K::Limits, deadline: Duration, conn: K::Connection) -> Self {
        Self {
            connector: Connector::new(db, limits),
            deadline,
            connection: Connection(Mutex::new(Some(conn))),
        }
    }

    /// The database it is connected to.
    #[must_use]
    pub(crate) fn database(&self) -> &Database<K> {
        self.connector.database()
    }

    /// Does a job within the deadline: again after a contention, and on a new connection if the old one broke. The
    /// deadline does not cover the wait for the job before it.
    pub(crate) async fn run<J: Job<K::Connection>>(&self, job: &J) -> Result<J::Answer, BackendError> {
        let mut connection = self.connection.0.lock().await;
        let deadline = Instant::now() + self.deadline;
        loop {
            // Taken out while in use: when this future is dropped half-way, the connection is dropped too.
            let mut conn = match connection.take() {
                Some(conn) => conn,
                None => self.connect(deadline).await?,
            };
            let Ok(done) = timeout_at(deadline, job.run(&mut conn)).await else {
                return Err(self.timed_out("the statement was not answered"));
            };
            let error = match done {
                Ok(answer) => {
                    *connection = Some(conn);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match K::classify(&error) {
                ErrorClass::Contended => {
                    *connection = Some(conn);
                    let pause = Duration::from_millis(fastrand::u64(10..100));
                    if Instant::now() + pause >= deadline {
                        return Err(K::explain(self.database(), &error));
                    }
                    sleep(pause).await;
                }
                ErrorClass::Broken => {
                    tracing::debug!(database = self.database().name, %error, "the connection broke; making another");
                }
                ErrorClass::Reconnect => {
                    self.connector.pause().await;
                    return Err(K::explain(self.database(), &error));
                }
                ErrorClass::Refused | ErrorClass::Busy => {
                    *connection = Some(conn);
                    return Err(K::explain(self.database(), &error));
                }
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<K::Connection, BackendError> {
        self.connector.connect(deadline).await.map_err(|error| match error {
            ConnectError::Failed(error) => error,
            ConnectError::NotYet => self.timed_out("connecting takes long, and goes on"),
        })
    }

    fn timed_out(&self, step: &'static str) -> BackendError {
        K::timed_out(self.database(), Work::Job(step), self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::MySql;

    use super::*;
    use crate::db::url::ServerUrl;
    use crate::locks::schema;

    #[test]
    fn the_password_of_a_session_is_not_shown() {
        let url = ServerUrl::from(url::Url::parse("mysql://u:s3cret@db/podlog").unwrap());
        let db = Database::new("the lock store mysql://u:***@db/podlog", url.into(), &schema::MYSQL);
        let session = Session::<MySql> {
            connector: Connector::new(db, MySql::MIGRATION_LIMITS),
            deadline: Duration::from_secs(1),
            connection: Connection(Mutex::new(None)),
        };
        let shown = format!("{session:?}");
        assert!(shown.contains("u:***@db") && !shown.contains("s3cret"), "{shown}");
    }
}
