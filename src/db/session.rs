//! One connection that is kept, and replaced when it breaks.
//!
//! A job either returns the connection in order or the connection is closed. A statement that was cancelled or timed out
//! would keep it busy, and what became of it is read from the database, never assumed. There is no pool, because a pool
//! pings before and after every statement.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::database::{Database, DatabaseKind, ErrorClass, Purpose, Work};
use crate::domain::BackendError;

/// Work on a connection of type `C`. It can be done again from the start after any failure.
pub(crate) trait Job<C>: Sync {
    /// What it returns.
    type Answer: Send;

    /// Does the work once.
    fn run(&self, conn: &mut C) -> impl Future<Output = Result<Self::Answer, sqlx::Error>> + Send;
}

/// A connection that is replaced when it breaks. Calls queue for it.
pub(crate) struct Session<K: DatabaseKind> {
    db: Database<K>,
    limits: K::Limits,
    /// How long a job may take.
    deadline: Duration,
    connection: Mutex<SessionConnection<K>>,
}

struct SessionConnection<K: DatabaseKind> {
    /// None while a job uses it, and after it broke.
    conn: Option<K::Connection>,
    /// When the next attempt to connect may begin.
    not_before: Instant,
    /// The pause after the next failed attempt. It doubles with each failure; success resets it.
    pause: Duration,
}

impl<K: DatabaseKind> fmt::Debug for Session<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("db", &self.db)
            .field("limits", &self.limits)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<K: DatabaseKind> Session<K> {
    /// Starts with a connection that was just made.
    #[must_use]
    pub(crate) fn new(db: Database<K>, limits: K::Limits, deadline: Duration, conn: K::Connection) -> Self {
        let connection = SessionConnection {
            conn: Some(conn),
            not_before: Instant::now(),
            pause: K::RECONNECT_PAUSES.0,
        };
        Self {
            db,
            limits,
            deadline,
            connection: Mutex::new(connection),
        }
    }

    /// The database it is connected to.
    #[must_use]
    pub(crate) fn database(&self) -> &Database<K> {
        &self.db
    }

    /// Does a job within the deadline: again after a contention, and on a new connection if the old one broke. The
    /// deadline does not cover the wait for the job before it.
    pub(crate) async fn run<J: Job<K::Connection>>(&self, job: &J) -> Result<J::Answer, BackendError> {
        let mut connection = self.connection.lock().await;
        let deadline = Instant::now() + self.deadline;
        loop {
            // Taken out while in use: when this future is dropped half-way, the connection is dropped too.
            let mut conn = match connection.conn.take() {
                Some(conn) => conn,
                None => self.reconnect(&mut connection, deadline).await?,
            };
            let Ok(done) = timeout_at(deadline, job.run(&mut conn)).await else {
                return Err(self.timed_out("the statement was not answered"));
            };
            let error = match done {
                Ok(answer) => {
                    connection.conn = Some(conn);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match K::classify(&error) {
                ErrorClass::Contended => {
                    connection.conn = Some(conn);
                    let pause = Duration::from_millis(fastrand::u64(10..100));
                    if Instant::now() + pause >= deadline {
                        return Err(K::explain(&self.db, &error));
                    }
                    sleep(pause).await;
                }
                ErrorClass::Broken => {
                    tracing::debug!(database = self.db.name, %error, "the connection broke; making another");
                }
                ErrorClass::Reconnect => {
                    connection.not_before = Instant::now() + K::RECONNECT_PAUSES.0;
                    return Err(K::explain(&self.db, &error));
                }
                ErrorClass::Refused | ErrorClass::Busy => {
                    connection.conn = Some(conn);
                    return Err(K::explain(&self.db, &error));
                }
            }
        }
    }

    async fn reconnect(
        &self,
        connection: &mut SessionConnection<K>,
        deadline: Instant,
    ) -> Result<K::Connection, BackendError> {
        if connection.not_before >= deadline {
            return Err(self.timed_out("the pause before the next attempt to connect"));
        }
        sleep_until(connection.not_before).await;
        let made = timeout_at(deadline, K::connect(&self.db, &self.limits, Purpose::Use)).await;
        // ±25 %, so that replicas do not reconnect in step after an outage.
        connection.not_before = Instant::now() + connection.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        let error = match made {
            Ok(Ok((conn, _))) => {
                connection.pause = K::RECONNECT_PAUSES.0;
                return Ok(conn);
            }
            Ok(Err(error)) => error,
            Err(_) => self.timed_out("connecting took too long"),
        };
        connection.pause = (connection.pause * 2).min(K::RECONNECT_PAUSES.1);
        Err(error)
    }

    fn timed_out(&self, step: &'static str) -> BackendError {
        K::timed_out(&self.db, Work::Job(step), self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::MySql;

    use super::*;
    use crate::locks::schema;

    #[test]
    fn the_password_of_a_session_is_not_shown() {
        let url = "mysql://u:s3cret@db/podlog".parse().unwrap();
        let session = Session::<MySql> {
            db: Database::new("the lock store mysql://u:***@db/podlog", url, &schema::MYSQL),
            limits: MySql::MIGRATION_LIMITS,
            deadline: Duration::from_secs(1),
            connection: Mutex::new(SessionConnection {
                conn: None,
                not_before: Instant::now(),
                pause: Duration::ZERO,
            }),
        };
        let shown = format!("{session:?}");
        assert!(shown.contains("u:***@db") && !shown.contains("s3cret"), "{shown}");
    }
}
