//! Makes the connections to one database, one at a time, with pauses after failures.
//!
//! An attempt belongs to the database and not to the work that waits for it: work that gives up leaves it to the next.
//! So a log-in that takes longer than the deadline of the work still succeeds. A refused log-in is repeated rarely, because
//! servers lock accounts after too many, and at once when the password has changed. Nothing here uses a connection.

use std::fmt;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::database::{Database, DatabaseKind, Purpose};
use crate::domain::BackendError;
use crate::sync::lock;

/// Makes connections to a database.
pub(crate) struct Connector<K: DatabaseKind> {
    db: Arc<Database<K>>,
    limits: K::Limits,
    state: Mutex<State<K>>,
    /// What the last attempt said if a person must change something. Work that waits for the next attempt says it too.
    refusal: StdMutex<Option<BackendError>>,
}

struct State<K: DatabaseKind> {
    /// The attempt that is under way, and the [secrets](DatabaseKind::secrets) that it began with.
    attempt: Option<(u64, Attempt<K>)>,
    /// The secrets of the last attempt, if it was refused.
    refused: Option<u64>,
    /// When the next attempt may begin.
    not_before: Instant,
    /// The pause after the next failed attempt. It doubles with each failure; success resets it.
    pause: Duration,
}

type Attempt<K> = BoxFuture<'static, Result<<K as sqlx::Database>::Connection, BackendError>>;

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
            refused: None,
            not_before: Instant::now(),
            pause: K::RECONNECT_PAUSES.0,
        };
        Self {
            db: Arc::new(db),
            limits,
            state: Mutex::new(state),
            refusal: StdMutex::default(),
        }
    }

    /// The database.
    pub(crate) fn database(&self) -> &Database<K> {
        &self.db
    }

    /// Makes a connection, or continues to, until the deadline. It may be dropped at any time.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<K::Connection, ConnectError> {
        let connected = timeout_at(deadline, self.attempt()).await;
        connected.unwrap_or_else(|_| {
            let refusal = lock(&self.refusal).clone();
            Err(refusal.map_or(ConnectError::NotYet, ConnectError::Failed))
        })
    }

    /// Lets the next attempt wait for the shortest pause.
    pub(crate) async fn pause(&self) {
        self.state.lock().await.not_before = Instant::now() + K::RECONNECT_PAUSES.0;
    }

    async fn attempt(&self) -> Result<K::Connection, ConnectError> {
        let mut state = self.state.lock().await;
        if state.attempt.is_none() && !self.has_new_secrets(&state) {
            sleep_until(state.not_before).await;
        }
        let State {
            attempt,
            refused,
            not_before,
            pause,
        } = &mut *state;
        let (secrets, running) = attempt.get_or_insert_with(|| {
            let (db, limits) = (self.db.clone(), self.limits);
            let connect = async move { K::connect(&db, &limits, Purpose::Use).await.map(|(conn, _)| conn) };
            (K::secrets(&self.db), Box::pin(connect))
        });
        let (secrets, done) = (*secrets, running.await);
        *attempt = None;
        let refusal = done.as_ref().err().filter(|error| error.is_refused()).cloned();
        let (first, longest) = if refusal.is_some() {
            K::REFUSED_PAUSES
        } else {
            K::RECONNECT_PAUSES
        };
        let (this, next) = pauses(*pause, first, longest, done.is_ok());
        // ±25 %, so that replicas do not reconnect in step after an outage.
        *not_before = Instant::now() + this.mul_f64(0.75 + fastrand::f64() / 2.0);
        *pause = next;
        *refused = refusal.is_some().then_some(secrets);
        *lock(&self.refusal) = refusal;
        done.map_err(ConnectError::Failed)
    }

    /// Whether the last attempt was refused, and the next one would use another password.
    fn has_new_secrets(&self, state: &State<K>) -> bool {
        state.refused.is_some_and(|refused| refused != K::secrets(&self.db))
    }
}

/// The pause after an attempt, and the one after the next attempt if that fails.
fn pauses(pause: Duration, first: Duration, longest: Duration, connected: bool) -> (Duration, Duration) {
    let this = pause.clamp(first, longest);
    (this, if connected { first } else { (this * 2).min(longest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_a_failure_of_another_kind_or_a_success_shortens_them() {
        let seconds = |of: [u64; 2]| of.map(Duration::from_secs);
        let [first, longest] = seconds([2, 20]);
        for (pause, connected, expected) in [
            (0, false, [2, 4]),
            (4, false, [4, 8]),
            (16, false, [16, 20]),
            (20, false, [20, 20]),
            (60, false, [20, 20]),
            (16, true, [16, 2]),
        ] {
            let found = pauses(Duration::from_secs(pause), first, longest, connected);
            assert_eq!([found.0, found.1], seconds(expected), "{pause}");
        }
        let shorter = pauses(longest, Duration::from_millis(100), Duration::from_secs(1), false);
        assert_eq!(shorter, (Duration::from_secs(1), Duration::from_secs(1)));
    }
}
