//! Opening a sink by its URL, with grouping and trying again around it. This file alone knows every kind of sink.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::file::FileSink;
use super::group::{GroupLimits, grouped};
use super::retry::Retrying;
use super::schema::SCHEMA;
use super::sink::{Retention, Sink};
use super::sql::{Connections, SqlDialect, SqlRetention, SqlSink, mysql, sqlite};
use super::stdout::StdoutSink;
use super::url::{Destination, SinkUrl};
use crate::clock::Clock;
use crate::db;
use crate::db::database::Database;
use crate::db::url::DatabaseUrl;
use crate::domain::BackendError;
use crate::metrics::Metrics;

/// A sink in use.
pub struct Opened {
    /// Where records go. It never answers `Again`.
    pub sink: Arc<dyn Sink>,
    /// Does the writing. The caller must run it; it ends when all handles of `sink` are dropped. An error means that the
    /// sink will never take a record again.
    pub driver: BoxFuture<'static, Result<(), BackendError>>,
    /// Deletes old records, where that can be done.
    pub retention: Option<Arc<dyn Retention>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

/// Opens a sink. An error says why it cannot be used, and what to do. One attempt to write may take `attempt`.
pub async fn open(url: &SinkUrl, clock: Clock, metrics: &Metrics, attempt: Duration) -> Result<Opened, BackendError> {
    let store = database(url);
    let limits = GroupLimits {
        attempt,
        ..GroupLimits::default()
    };
    match &url.destination {
        Destination::Stdout => {
            let stdout = Arc::new(StdoutSink::new(clock));
            let broken = stdout.clone();
            let opened = compose(stdout, clock, metrics, limits);
            Ok(stop_when(opened, async move { broken.broken().await }.boxed()))
        }
        Destination::File(options) => {
            let file = Arc::new(FileSink::open(options.clone(), clock).await?);
            let sync = file.clone();
            let opened = compose(file, clock, metrics, limits);
            Ok(stop_when(opened, async move { sync.sync_forever().await }.boxed()))
        }
        Destination::Database(DatabaseUrl::Sqlite(path)) => {
            let pool = db::sqlite::pool::open(path, &store, sqlite::BUSY, attempt).await?;
            Ok(open_sql(Connections::new(pool, store, attempt), clock, metrics, limits))
        }
        Destination::Database(DatabaseUrl::MySql(url)) => {
            let session = mysql::session_limits(attempt);
            let pool = db::mysql::pool::open(url, &store, session, mysql::CONNECTIONS, attempt).await?;
            let limits = GroupLimits {
                in_flight: mysql::IN_FLIGHT,
                ..limits
            };
            Ok(open_sql(Connections::new(pool, store, attempt), clock, metrics, limits))
        }
    }
}

/// The database that `url` names, for messages.
pub(super) fn database(url: &SinkUrl) -> Database {
    Database {
        name: format!("the sink {url}"),
        schema: &SCHEMA,
    }
}

fn open_sql<DB: SqlDialect>(
    connections: Connections<DB>,
    clock: Clock,
    metrics: &Metrics,
    limits: GroupLimits,
) -> Opened {
    let retention = SqlRetention::new(connections.clone());
    Opened {
        retention: Some(Arc::new(retention)),
        ..compose(Arc::new(SqlSink::new(connections)), clock, metrics, limits)
    }
}

/// Creates or updates the tables of a sink. Sinks without tables need nothing.
pub async fn migrate(url: &SinkUrl) -> Result<(), BackendError> {
    let store = database(url);
    match &url.destination {
        Destination::Stdout | Destination::File(_) => Ok(()),
        Destination::Database(DatabaseUrl::Sqlite(path)) => db::sqlite::migrate::migrate(path, &store).await,
        Destination::Database(DatabaseUrl::MySql(url)) => db::mysql::migrate::migrate(url, &store).await,
    }
}

fn compose<S: Sink + 'static>(adapter: Arc<S>, clock: Clock, metrics: &Metrics, limits: GroupLimits) -> Opened {
    let (grouped, driver) = grouped(adapter, limits, clock);
    Opened {
        sink: Arc::new(Retrying::new(grouped, clock, metrics.clone())),
        driver: driver.map(Ok).boxed(),
        retention: None,
    }
}

/// Runs `beside` while the driver runs. If `beside` ends, the driver ends with its error.
fn stop_when(opened: Opened, beside: BoxFuture<'static, BackendError>) -> Opened {
    let driver = opened.driver;
    let both = async move {
        tokio::select! {
            biased;
            done = driver => done,
            error = beside => Err(error),
        }
    };
    Opened {
        driver: both.boxed(),
        ..opened
    }
}
