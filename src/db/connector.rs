//! Makes the connections to one database, one at a time, with pauses after failures.
//!
//! An attempt belongs to the database and not to the work that waits for it: work that gives up leaves it to the next.
//! So a log-in that takes longer than the deadline of the work still succeeds. Nothing here uses a connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::database::{Database, DatabaseKind, Purpose};
use crate::domain::BackendError;

/// Makes connections to a database.
pub(crate) struct Connector<K: DatabaseKind> {
    db: Arc<Database<K>>,
    limits: K::Limits,
    state: Mutex<State<K>>,
}

struct State<K: DatabaseKind> {
    /// The attempt that is under way.
    attempt: Option<BoxFuture<'static, Result<K::Connection, BackendError>>>,
    /// When the next attempt may begin.
    not_before: Instant,
    /// The pause after the next failed attempt. It doubles with each failure; success resets it.
    pause: Duration,
}

/// Why there is no connection yet.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The attempt failed.
    Failed(BackendError),
    /// The attempt, or the pause before it, has not ended. The next caller continues it.
    NotYet,
}

impl<K: DatabaseKind> fmt::Debug for Connector<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("db", &self.db)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<K: DatabaseKind> Connector<K> {
    /// Makes connections with these limits.
    pub(crate) fn new(db: Database<K>, limits: K::Limits) -> Self {
        let state = State {
            attempt: None,
            not_before: Instant::now(),
            pause: K::RECONNECT_PAUSES.0,
        };
        Self {
            db: Arc::new(db),
            limits,
            state: Mutex::new(state),
        }
    }

    /// The database.
    pub(crate) fn database(&self) -> &Database<K> {
        &self.db
    }

    /// Makes a connection, or continues to, until the deadline. It may be dropped at any time.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<K::Connection, ConnectError> {
        let connected = timeout_at(deadline, self.attempt()).await;
        connected.unwrap_or(Err(ConnectError::NotYet))
    }

    /// Lets the next attempt wait for the shortest pause.
    pub(crate) async fn pause(&self) {
        self.state.lock().await.not_before = Instant::now() + K::RECONNECT_PAUSES.0;
    }

    async fn attempt(&self) -> Result<K::Connection, ConnectError> {
        let mut state = self.state.lock().await;
        if state.attempt.is_none() {
            sleep_until(state.not_before).await;
        }
        let State {
            attempt,
            not_before,
            pause,
        } = &mut *state;
        let running = attempt.get_or_insert_with(|| {
            let (db, limits) = (self.db.clone(), self.limits);
            Box::pin(async move { K::connect(&db, &limits, Purpose::Use).await.map(|(conn, _)| conn) })
        });
        let done = running.await;
        *attempt = None;
        // ±25 %, so that replicas do not reconnect in step after an outage.
        *not_before = Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        *pause = if done.is_ok() {
            K::RECONNECT_PAUSES.0
        } else {
            (*pause * 2).min(K::RECONNECT_PAUSES.1)
        };
        done.map_err(ConnectError::Failed)
    }
}
