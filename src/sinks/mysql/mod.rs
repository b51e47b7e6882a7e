//! Connecting a sink to MySQL or MariaDB, and checking that it can be used.

mod diagnose;
pub(super) mod fault;
mod rights;
mod server;

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, MySql, MySqlConnection};
use tokio::time::timeout;

use self::server::Server;
use super::sql::Connections;
use super::{SinkOpenError, schema};
pub(super) use diagnose::diagnose;
pub(super) use fault::refusal;

/// Requests under way at the same time; with one more connection for streams being opened and one
/// for retention the pool has five.
pub(super) const IN_FLIGHT: usize = 3;
pub(super) const CONNECTIONS: u32 = IN_FLIGHT as u32 + 2;

/// A server drops a connection, and with it an open transaction and its row locks, when nothing has come for two
/// attempts and this: a replica that is frozen in the middle of a write would keep its heir from the streams for hours.
/// With attempts of 5 s that is 15 s, sooner than its claims can be taken (20 s ttl - 5 s renewal + 1 s grace = 16 s).
const SILENCE: Duration = Duration::from_secs(5);

/// How long connecting may take when the program starts.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// Waiting for a row lock ends before the whole attempt does, so that the connection survives.
/// READ COMMITTED takes no locks on gaps between rows, so that writers of different streams never meet.
const SESSION: [&str; 2] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 3",
];

/// Connects and checks the server, the tables and the rights. What is wrong is an error that says what to do.
pub(super) async fn connect(
    options: MySqlConnectOptions,
    name: Arc<str>,
    deadline: Duration,
) -> Result<Connections<MySql>, SinkOpenError> {
    // Outside the pool first, which would hide the true error.
    let first = async {
        let mut conn = MySqlConnection::connect_with(&options).await?;
        prepare(&mut conn, deadline).await?;
        let state = schema::mysql_state(&mut conn).await?;
        let server = Server::ask(&mut conn).await?;
        Ok((conn, server, state))
    };
    let (mut conn, server, state) = match timeout(CONNECT, first).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(refusal(&name, &error)),
        Err(_) => return Err(unanswered(&name)),
    };
    server.check(&name)?;
    schema::check(&name, state)?;
    let rights = async {
        rights::try_all(&mut conn).await?;
        conn.close().await
    };
    match timeout(CONNECT, rights).await {
        Ok(tried) => tried.map_err(|error| refusal(&name, &error))?,
        Err(_) => return Err(unanswered(&name)),
    }
    let pool = MySqlPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(deadline)
        // Looked at once in this time, so idle connections go before the server drops them.
        .idle_timeout(deadline)
        .after_connect(move |conn, _| Box::pin(prepare(conn, deadline)))
        .connect_lazy_with(options);
    Ok(Connections::new(pool, name, deadline))
}

fn unanswered(name: &str) -> SinkOpenError {
    SinkOpenError::unavailable(
        format!("mysql {name} did not answer within {CONNECT:?}"),
        "check the address and the network",
    )
}

async fn prepare(conn: &mut MySqlConnection, deadline: Duration) -> Result<(), sqlx::Error> {
    for statement in SESSION {
        conn.execute(statement).await?;
    }
    limit_silence(conn, deadline * 2 + SILENCE).await
}

/// Lets the server drop the connection when nothing has come for so long, between statements or within one.
async fn limit_silence(conn: &mut MySqlConnection, longest: Duration) -> Result<(), sqlx::Error> {
    let seconds = longest.as_secs().max(1);
    // As text, which takes one exchange; a prepared statement takes two.
    let set = format!("SET SESSION wait_timeout = {seconds}, net_read_timeout = {seconds}");
    conn.execute(AssertSqlSafe(set)).await.map(drop)
}
