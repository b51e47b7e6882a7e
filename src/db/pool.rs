//! A few connections to one database, for work that may be done at the same time.
//!
//! A connection whose work failed, or was given up, is closed and never used again: it may still be busy, and the next
//! user of it would wait. Other than sqlx's pool, it makes connections as the rest of this folder does, says why there is
//! none, and does not ping after each use.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::Connection as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connector::{ConnectError, Connector};
use super::database::{Database, DatabaseKind};
use crate::sync::lock;

/// A connection that was idle for longer is asked whether it still works.
const TRUSTED: Duration = Duration::from_secs(1);

/// The connections.
#[derive(Debug)]
pub(crate) struct Pool<K: DatabaseKind> {
    connector: Connector<K>,
    permits: Arc<Semaphore>,
    /// The longest time for which a connection is kept that nobody uses: less than the server keeps it.
    idle_limit: Duration,
    idle: Mutex<Vec<Idle<K>>>,
}

struct Idle<K: DatabaseKind> {
    conn: K::Connection,
    since: Instant,
}

impl<K: DatabaseKind> std::fmt::Debug for Idle<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl<K: DatabaseKind> Pool<K> {
    /// At most so many connections. None is made before it is needed.
    pub(crate) fn new(db: Database<K>, limits: K::Limits, connections: usize, idle_limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            connector: Connector::new(db, limits),
            permits: Arc::new(Semaphore::new(connections)),
            idle_limit,
            idle: Mutex::default(),
        })
    }

    /// The database.
    pub(crate) fn database(&self) -> &Database<K> {
        self.connector.database()
    }

    /// Takes a connection, or makes one, until the deadline.
    pub(crate) async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Pooled<K>, ConnectError> {
        let permit = self.permits.clone().acquire_owned();
        // The semaphore is never closed.
        let permit = tokio::time::timeout_at(deadline, permit).await;
        let Ok(Ok(permit)) = permit else {
            return Err(ConnectError::NotYet);
        };
        let conn = match self.working(deadline).await {
            Some(conn) => conn,
            None => self.connector.connect(deadline).await?,
        };
        Ok(Pooled {
            pool: self.clone(),
            conn: Some(conn),
            _permit: permit,
        })
    }

    /// An idle connection that still works.
    async fn working(&self, deadline: Instant) -> Option<K::Connection> {
        while let Some(mut idle) = self.take_idle() {
            if idle.since.elapsed() < TRUSTED {
                return Some(idle.conn);
            }
            let answer = tokio::time::timeout_at(deadline, idle.conn.ping()).await;
            if answer.is_ok_and(|answer| answer.is_ok()) {
                return Some(idle.conn);
            }
        }
        None
    }

    /// The connection that was used last, after those were dropped that were idle for too long.
    fn take_idle(&self) -> Option<Idle<K>> {
        let mut idle = lock(&self.idle);
        idle.retain(|idle| idle.since.elapsed() < self.idle_limit);
        idle.pop()
    }
}

/// A connection of the pool. It goes back only when its work was [done](Self::done); otherwise it is closed, which rolls
/// a transaction back.
pub(crate) struct Pooled<K: DatabaseKind> {
    pool: Arc<Pool<K>>,
    conn: Option<K::Connection>,
    _permit: OwnedSemaphorePermit,
}

impl<K: DatabaseKind> Pooled<K> {
    /// The connection.
    pub(crate) fn get(&mut self) -> Result<&mut K::Connection, sqlx::Error> {
        self.conn.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// The work was done.
    pub(crate) fn done(mut self) {
        if let Some(conn) = self.conn.take() {
            let since = Instant::now();
            lock(&self.pool.idle).push(Idle { conn, since });
        }
    }
}
