//! Opening a database on which podlog can work: the server, the tables and the privileges are checked first, so that what is
//! wrong is an error that says what to do. It changes no table.

use std::time::Duration;

use sqlx::Pool;
use sqlx::pool::PoolOptions;
use tokio::time::timeout;

use super::backend::{Backend, Database, Purpose, Work, close};
use super::migrate::state;
use crate::domain::BackendError;

/// How long checking tables and privileges may take: about ten short statements.
const CHECKS: Duration = Duration::from_secs(10);

/// Makes a connection and checks everything.
pub(crate) async fn open<B: Backend>(
    db: &Database<B>,
    limits: &B::Limits,
) -> Result<(B::Connection, B::Server), BackendError> {
    let (mut conn, server) = B::connect(db, limits, Purpose::Use).await?;
    let checked = timeout(CHECKS, check(&mut conn, db)).await;
    checked.unwrap_or_else(|_| Err(B::timed_out(db, Work::Open, CHECKS)))?;
    Ok((conn, server))
}

async fn check<B: Backend>(conn: &mut B::Connection, db: &Database<B>) -> Result<(), BackendError> {
    let explain = |error| B::explain(db, &error);
    db.check(state(conn, db.schema).await.map_err(explain)?)?;
    for privilege in db.schema.privileges.iter().filter(|one| !one.retention_only) {
        B::execute_text(conn, privilege.statement).await.map_err(explain)?;
    }
    Ok(())
}

/// Opens a pool of at most so many connections. One connection outside the pool is checked first: a pool would hide the
/// true error. `deadline` is how long work waits for a connection.
pub(crate) async fn open_pool<B: Backend>(
    db: &Database<B>,
    limits: B::Limits,
    connections: u32,
    deadline: Duration,
) -> Result<Pool<B>, BackendError> {
    let (conn, _) = open(db, &limits).await?;
    close(conn).await;
    let pool = PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(deadline);
    Ok(B::pool_options(pool, db, limits, deadline).connect_lazy_with(B::options(db, &limits)?))
}
