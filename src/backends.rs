//! The servers and databases that a replica uses: creating their tables, and connecting to them at the start.
//!
//! It reads no pod and writes no record. What breaks after the start is not repaired here.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::cluster::{Cluster, Scope};
use crate::config::{Config, LockConfig, SinkConfig};
use crate::domain::backoff::Backoff;
use crate::exit::Failure;
use crate::locks::{self, Holder, LockStore, LockUrl};
use crate::metrics::Metrics;
use crate::sinks::{self, Opened, SinkUrl};

/// How long connecting to a server is tried again at the start before podlog gives up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// The servers and databases that a replica is connected to.
pub(crate) struct Backends {
    /// Where claims are stored.
    pub lock: LockUrl,
    /// Where records are stored.
    pub sink_url: SinkUrl,
    /// On whose behalf the lock store acts.
    pub holder: Holder,
    /// The lock store.
    pub store: Arc<dyn LockStore>,
    /// The Kubernetes cluster.
    pub cluster: Cluster,
    /// The sink.
    pub sink: Opened,
}

impl Backends {
    /// Connects to all of them, and creates their tables before if the settings say so. A failure that may pass is
    /// tried again for [`CONNECT_PATIENCE`].
    pub(crate) async fn open(config: &Config, scope: &Scope, clock: Clock, metrics: &Metrics) -> Result<Self, Failure> {
        let (lock, sink_url) = (config.store.url.clone(), config.sink.url.clone());
        let holder = config.holder();
        if config.migrate {
            with_retries("lock store", || locks::migrate(&lock)).await?;
            with_retries("sink", || sinks::migrate(&sink_url)).await?;
        }
        let store = open_lock_store(&lock, &holder).await?;
        let sink = with_retries("sink", || sinks::open(&sink_url, clock, metrics, config.sink.timeout)).await?;
        let access = config.access();
        let cluster = with_retries("API server", || async {
            let cluster = Cluster::connect(&access, metrics.clone()).await?;
            cluster.version().await?;
            cluster.require_list_right(scope).await?;
            Ok::<_, Failure>(cluster)
        });
        Ok(Self {
            cluster: cluster.await?,
            lock,
            sink_url,
            holder,
            store,
            sink,
        })
    }
}

/// Opens a connection of its own to the lock store. A failure that may pass is tried again for [`CONNECT_PATIENCE`].
pub(crate) async fn open_lock_store(lock: &LockUrl, holder: &Holder) -> Result<Arc<dyn LockStore>, Failure> {
    with_retries("lock store", || locks::open(lock, holder.clone())).await
}

/// `podlog migrate`: creates or updates the tables of both databases. A failure is not tried again.
pub(crate) async fn migrate(store: LockConfig, sink: SinkConfig, stop: CancellationToken) -> Result<(), Failure> {
    let (lock, sink) = (store.url, sink.url);
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        done = async {
            locks::migrate(&lock).await?;
            sinks::migrate(&sink).await?;
            tracing::info!(%lock, %sink, "the tables are up to date");
            Ok(())
        } => done,
    }
}

/// Repeats an attempt whose failure may pass, for [`CONNECT_PATIENCE`].
async fn with_retries<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, E>>,
    Failure: From<E>,
{
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
    let give_up = tokio::time::Instant::now() + CONNECT_PATIENCE;
    // What was said last, so that one cause is said once.
    let mut said = None;
    loop {
        let failure = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => Failure::from(error),
        };
        let wait = backoff.next_wait(fastrand::f64());
        if !failure.is_temporary() || tokio::time::Instant::now() + wait > give_up {
            return Err(failure);
        }
        let why = failure.to_string();
        if said.as_ref() != Some(&why) {
            tracing::warn!(
                error = why,
                "the {what} cannot be used yet; trying again for half a minute in all"
            );
            said = Some(why);
        }
        tokio::time::sleep(wait).await;
    }
}
