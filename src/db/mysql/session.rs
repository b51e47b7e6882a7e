//! One connection that is kept, and replaced when it breaks.
//!
//! A job either returns the connection in order or the socket is closed. A statement that was cancelled or timed out would
//! keep the connection busy, and what became of it is read from the database, never assumed. There is no pool, because a
//! pool pings before and after every statement.

use std::fmt;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::connect::connect;
use super::errors::{self, ErrorClass};
use super::server::SessionLimits;
use crate::db::database::Database;
use crate::db::job::Job;
use crate::domain::BackendError;

/// The pause after the first failed attempt to connect. It doubles with each failure; success resets it.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause. It leaves time for an attempt within a deadline of 3 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection that is replaced when it breaks. Calls queue for it.
pub(crate) struct Session {
    options: MySqlConnectOptions,
    db: Database,
    limits: SessionLimits,
    /// How long a job may take.
    deadline: Duration,
    slot: Mutex<Slot>,
}

#[derive(Debug)]
struct Slot {
    /// None while a job uses it, and after it broke.
    conn: Option<MySqlConnection>,
    /// When the next attempt to connect may begin.
    not_before: Instant,
    /// The pause after the next failed attempt.
    pause: Duration,
}

/// Without the options, whose own `Debug` shows the password.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("db", &self.db.name)
            .field("limits", &self.limits)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Starts with a connection that was just made.
    #[must_use]
    pub(crate) fn new(
        options: MySqlConnectOptions,
        db: Database,
        limits: SessionLimits,
        deadline: Duration,
        conn: MySqlConnection,
    ) -> Self {
        let slot = Slot {
            conn: Some(conn),
            not_before: Instant::now(),
            pause: PAUSE,
        };
        Self {
            options,
            db,
            limits,
            deadline,
            slot: Mutex::new(slot),
        }
    }

    /// The database it is connected to.
    #[must_use]
    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    /// Does a job within the deadline: again after a contention, and on a new connection if the old one broke. The
    /// deadline does not cover the wait for the job before it.
    pub(crate) async fn run<J: Job<MySqlConnection>>(&self, job: &J) -> Result<J::Answer, BackendError> {
        let mut slot = self.slot.lock().await;
        let deadline = Instant::now() + self.deadline;
        loop {
            // Taken out while in use: when this future is dropped half-way, the connection is dropped too.
            let mut conn = match slot.conn.take() {
                Some(conn) => conn,
                None => self.reconnect(&mut slot, deadline).await?,
            };
            let Ok(done) = timeout_at(deadline, job.run(&mut conn)).await else {
                return Err(self.late("the statement was not answered"));
            };
            let error = match done {
                Ok(answer) => {
                    slot.conn = Some(conn);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match errors::classify(&error) {
                ErrorClass::Contended => {
                    slot.conn = Some(conn);
                    let pause = Duration::from_millis(fastrand::u64(10..100));
                    if Instant::now() + pause >= deadline {
                        return Err(errors::explain(&self.db, &error));
                    }
                    sleep(pause).await;
                }
                ErrorClass::Broken => {
                    tracing::debug!(database = self.db.name, %error, "the connection broke; making another");
                }
                ErrorClass::ReadOnly => {
                    slot.not_before = Instant::now() + PAUSE;
                    return Err(errors::explain(&self.db, &error));
                }
                ErrorClass::Refused | ErrorClass::Busy => {
                    slot.conn = Some(conn);
                    return Err(errors::explain(&self.db, &error));
                }
            }
        }
    }

    async fn reconnect(&self, slot: &mut Slot, deadline: Instant) -> Result<MySqlConnection, BackendError> {
        if slot.not_before >= deadline {
            return Err(self.late("the pause before the next attempt to connect"));
        }
        sleep_until(slot.not_before).await;
        let made = timeout_at(deadline, connect(&self.options, &self.db, &self.limits)).await;
        // ±25 %, so that replicas do not reconnect in step after an outage.
        slot.not_before = Instant::now() + slot.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        let error = match made {
            Ok(Ok((conn, _))) => {
                slot.pause = PAUSE;
                return Ok(conn);
            }
            Ok(Err(error)) => error,
            Err(_) => self.late("connecting took too long"),
        };
        slot.pause = (slot.pause * 2).min(LONGEST_PAUSE);
        Err(error)
    }

    fn late(&self, what: &str) -> BackendError {
        let (name, limit) = (&self.db.name, self.deadline.as_secs());
        BackendError::unavailable(
            format!("{name} did not answer within {limit} s ({what})"),
            "check whether it is overloaded, or the network down",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_session_is_not_shown() {
        let second = Duration::from_secs(1);
        let session = Session {
            options: MySqlConnectOptions::new().username("u").password("s3cret"),
            db: Database {
                name: "the lock store mysql://u:***@db/podlog".into(),
                schema: &crate::db::fixtures::CLAIMS,
            },
            limits: SessionLimits {
                connect: second,
                lock_wait: second,
                table_wait: None,
                idle: second,
                read: None,
            },
            deadline: second,
            slot: Mutex::new(Slot {
                conn: None,
                not_before: Instant::now(),
                pause: PAUSE,
            }),
        };
        let shown = format!("{session:?}");
        assert!(shown.contains("u:***@db") && !shown.contains("s3cret"), "{shown}");
    }
}
