//! From the URL of a sink to a sink, with grouping and trying again around it: opening it, creating its tables, and what
//! `podlog check` finds out about it. This file and `url` know every kind of sink.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::file::{self, FileSink};
use super::group::{GroupLimits, grouped};
use super::retry::Retrying;
use super::schema;
use super::sink::{Retention, Sink};
use super::sql::{Connections, SqlDialect, SqlRetention, SqlSink};
use super::stdout::StdoutSink;
use super::url::{Destination, SinkUrl};
use crate::clock::Clock;
use crate::db::any::AnyDatabase;
use crate::db::database::{Database, DiagnoseOptions, close};
use crate::db::open::open as open_database;
use crate::db::url::DatabaseUrl;
use crate::domain::{BackendError, Finding};
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
        Destination::Database(url) => database(url).open(clock, metrics, limits).await,
    }
}

/// Creates or updates the tables of a sink. Sinks without tables need nothing.
pub async fn migrate(url: &SinkUrl) -> Result<(), BackendError> {
    match &url.destination {
        Destination::Stdout | Destination::File(_) => Ok(()),
        Destination::Database(url) => database(url).migrate().await,
    }
}

/// What `podlog check` finds out about a sink. It stores nothing: what a check begins it rolls back or removes.
pub async fn diagnose(url: &SinkUrl, options: DiagnoseOptions) -> Vec<Finding> {
    match &url.destination {
        Destination::Stdout => vec![Finding::ok(
            "stdout",
            "records go to standard output; there is nothing to check",
        )],
        Destination::File(options) => file::diagnose(options).await,
        Destination::Database(url) => database(url).diagnose(options).await,
    }
}

/// A database in which records can be stored.
#[async_trait]
trait SinkDatabase: AnyDatabase {
    async fn open(
        self: Box<Self>,
        clock: Clock,
        metrics: &Metrics,
        limits: GroupLimits,
    ) -> Result<Opened, BackendError>;
}

#[async_trait]
impl<DB: SqlDialect> SinkDatabase for Database<DB> {
    async fn open(
        self: Box<Self>,
        clock: Clock,
        metrics: &Metrics,
        limits: GroupLimits,
    ) -> Result<Opened, BackendError> {
        let attempt = limits.attempt;
        let limits_of_connections = DB::connection_limits(attempt);
        let (conn, _) = open_database(&self, &limits_of_connections).await?;
        close(conn).await;
        let connections = Connections::new(*self, limits_of_connections, attempt);
        let retention = SqlRetention::new(connections.clone());
        let limits = GroupLimits {
            in_flight: DB::IN_FLIGHT,
            ..limits
        };
        Ok(Opened {
            retention: Some(Arc::new(retention)),
            ..compose(Arc::new(SqlSink::new(connections)), clock, metrics, limits)
        })
    }
}

fn database(url: &DatabaseUrl) -> Box<dyn SinkDatabase> {
    let name = format!("the sink {url}");
    match url {
        DatabaseUrl::MySql(url) => Box::new(Database::new(name, url.clone().into(), &schema::MYSQL)),
        DatabaseUrl::Sqlite(path) => Box::new(Database::new(name, path.clone(), &schema::SQLITE)),
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
