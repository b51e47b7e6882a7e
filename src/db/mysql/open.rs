//! A connection to `MySQL` or `MariaDB` on which podlog can work: server, session, tables and privileges were checked.

use std::time::Duration;

use sqlx::Executor;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tokio::time::timeout;

use super::connect::connect;
use super::errors;
use super::migrate::state;
use super::server::{Server, SessionLimits};
use crate::db::database::Database;
use crate::domain::BackendError;

/// How long checking tables and privileges may take: about ten short statements.
const CHECKS: Duration = Duration::from_secs(10);

/// Makes a connection and checks everything. What is wrong is an error that says what to do.
pub(crate) async fn open(
    options: &MySqlConnectOptions,
    db: &Database,
    limits: &SessionLimits,
) -> Result<(MySqlConnection, Server), BackendError> {
    let (mut conn, server) = connect(options, db, limits).await?;
    let checked = timeout(CHECKS, check(&mut conn, db)).await.unwrap_or_else(|_| {
        let text = format!("{} did not answer within {} s", db.name, CHECKS.as_secs());
        Err(BackendError::unavailable(
            text,
            "check whether it is overloaded, or the network down",
        ))
    });
    checked.map(|()| (conn, server))
}

async fn check(conn: &mut MySqlConnection, db: &Database) -> Result<(), BackendError> {
    let explain = |error| errors::explain(db, &error);
    let found = state(conn, db.schema).await.map_err(explain)?;
    db.schema.check(&db.name, found)?;
    for privilege in db
        .schema
        .mysql
        .privileges
        .iter()
        .filter(|privilege| !privilege.retention_only)
    {
        conn.execute(privilege.statement).await.map_err(explain)?;
    }
    Ok(())
}
