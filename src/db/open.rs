//! Opening a database on which podlog can work: the server, the tables and the privileges are checked first, so that what is
//! wrong is an error that says what to do. It changes no table.

use std::time::Duration;

use tokio::time::timeout;

use super::database::{Database, DatabaseKind, Purpose, Work};
use super::migrate::state;
use crate::domain::BackendError;

/// How long checking tables and privileges may take: about ten short statements.
const CHECKS: Duration = Duration::from_secs(10);

/// Makes a connection and checks everything.
pub(crate) async fn open<K: DatabaseKind>(
    db: &Database<K>,
    limits: &K::Limits,
) -> Result<(K::Connection, K::Server), BackendError> {
    let (mut conn, server) = K::connect(db, limits, Purpose::Use).await?;
    let checked = timeout(CHECKS, check(&mut conn, db)).await;
    checked.unwrap_or_else(|_| Err(K::timed_out(db, Work::Open, CHECKS)))?;
    Ok((conn, server))
}

async fn check<K: DatabaseKind>(conn: &mut K::Connection, db: &Database<K>) -> Result<(), BackendError> {
    let explain = |error| K::explain(db, &error);
    db.check(state(conn, db.schema).await.map_err(explain)?)?;
    for privilege in db.schema.privileges.iter().filter(|one| !one.retention_only) {
        K::execute_text(conn, privilege.statement).await.map_err(explain)?;
    }
    Ok(())
}
