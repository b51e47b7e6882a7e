//! A pool of connections to `MySQL` or `MariaDB`.

use std::time::Duration;

use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use tokio::time::timeout;
use url::Url;

use super::connect::options;
use super::open::open as open_one;
use super::server::{SessionLimits, prepare};
use crate::db::database::Database;
use crate::domain::BackendError;

/// Opens a pool of at most so many connections. One connection outside the pool is checked first: a pool would hide the
/// true error. `deadline` is how long work waits for a connection.
pub(crate) async fn open(
    url: &Url,
    db: &Database,
    limits: SessionLimits,
    connections: u32,
    deadline: Duration,
) -> Result<MySqlPool, BackendError> {
    let options = options(url, db)?;
    let demands = &db.schema.demands;
    let (conn, _) = open_one(&options, db, &limits).await?;
    // Optional: without it the server counts an aborted connection.
    timeout(Duration::from_secs(1), sqlx::Connection::close(conn))
        .await
        .ok();
    Ok(MySqlPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(deadline)
        // Checked once in this time, so that idle connections go before the server drops them.
        .idle_timeout(deadline)
        .after_connect(move |conn, _| Box::pin(async move { prepare(conn, &limits, demands).await }))
        .connect_lazy_with(options))
}
