//! Puts the parts of a replica together and sees to it that they end together.
//!
//! Wiring only: each part is a future in one `JoinSet`, and the first to end stops all. The order
//! of the end matters: first the collector gives its claims back, then the renewer and the sink
//! have nothing left to do, and the HTTP endpoints answer to the last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::cli::Locks;
use crate::clock::{self, Clock};
use crate::cluster::{BURST, Cluster, Scope, StreamLimiter, StreamLimits, discover};
use crate::collector::{Collector, Deps};
use crate::config::{Config, SinkConfig, Store};
use crate::domain::PodSet;
use crate::domain::backoff::Backoff;
use crate::exit::Failure;
use crate::follow::stall_detector::StallDetector;
use crate::follow::{Context, ReadSettings};
use crate::locks::{self, Holder, LockStore, LockUrl};
use crate::metrics::Metrics;
use crate::renewer::{RenewalLoop, renewer};
use crate::retention::Cleaner;
use crate::sinks::{self, Opened, SinkUrl};
use crate::status::Status;
use crate::status::health::Health;
use crate::status::ready::Readiness;
use crate::status::server::{self, Pages};

/// How long a server that cannot be reached is tried again at the start, before it is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the collector's loop may stand still. It beats after each call to the store
/// (at most 6 s) and turns once a second; this is four times both together.
const COLLECTOR_LIMIT: Duration = Duration::from_secs(30);

/// `podlog run`: collects until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Failure> {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let clock = Clock::boottime();
    let listener = match config.http {
        Some(address) => Some(server::bind(address).await?),
        None => None,
    };
    let scope = config.scope();
    let connections = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        connections = Connections::open(&config, &scope, clock, &metrics) => connections?,
    };
    let (readiness, health) = (Readiness::default(), Health::new(clock));
    let status = watch::channel(Arc::new(Status::new(
        config.replica.clone(),
        config.store.cluster.as_str().into(),
        clock::wall(),
    )));
    let pages = Pages {
        status: status.1,
        readiness: readiness.clone(),
        health: health.clone(),
        registry: Arc::new(registry),
        stopping: stop.clone(),
    };
    tracing::info!(replica = %config.replica, cluster = config.store.cluster, lock = %connections.lock, sink = %connections.sink_url, "collecting");

    let answering = CancellationToken::new();
    let mut web = JoinSet::new();
    if let Some(listener) = listener {
        web.spawn(server::serve(listener, pages, answering.clone()));
    }
    let outcome = collect(
        &config,
        connections,
        clock,
        metrics,
        StatusHandles {
            readiness,
            health,
            status: status.0,
        },
        scope,
        stop,
    )
    .await;
    answering.cancel();
    while let Some(ended) = web.join_next().await {
        ended.map_err(bug)??;
    }
    outcome
}

/// What tells outsiders how the replica is.
struct StatusHandles {
    readiness: Readiness,
    health: Health,
    status: watch::Sender<Arc<Status>>,
}

/// Everything outside that a replica is connected to.
struct Connections {
    lock: LockUrl,
    sink_url: SinkUrl,
    holder: Holder,
    store: Arc<dyn LockStore>,
    cluster: Cluster,
    sink: Opened,
}

impl Connections {
    /// Connects to all of it. What may heal is tried again for a while; what cannot is a failure at once.
    async fn open(config: &Config, scope: &Scope, clock: Clock, metrics: &Metrics) -> Result<Self, Failure> {
        let (lock, sink_url) = (config.store.url.clone(), config.sink.url.clone());
        let holder = config.holder();
        if config.migrate {
            patiently("lock store", || locks::migrate(&lock)).await?;
            patiently("sink", || sinks::migrate(&sink_url)).await?;
        }
        let store = patiently("lock store", || locks::open(&lock, holder.clone())).await?;
        let sink = patiently("sink", || sinks::open(&sink_url, clock, metrics, config.sink.timeout)).await?;
        let access = config.access();
        let cluster = patiently("API server", || async {
            let cluster = Cluster::connect(&access, metrics.clone())
                .await
                .map_err(Failure::from)?;
            cluster.version().await.map_err(Failure::from)?;
            cluster.require_list_right(scope).await.map_err(Failure::from)?;
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

/// Runs the collector and everything it needs until `stop`, or until one of them ends.
async fn collect(
    config: &Config,
    connections: Connections,
    clock: Clock,
    metrics: Metrics,
    handles: StatusHandles,
    scope: Scope,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let (pods_in, pods) = watch::channel(Arc::new(PodSet::default()));
    let renewal = handles.health.heart("renewal", config.lease.ttl);
    let (renewer, driver) = renewer(config.lease, clock, metrics.clone(), renewal);
    let Opened {
        sink,
        driver: writing,
        retention,
    } = connections.sink;
    let context = follow_context(config, connections.cluster.clone(), sink, clock, metrics.clone());
    let cleaner = config.sink.retain.zip(retention).map(|(age, sink)| Cleaner {
        sink,
        store: connections.store.clone(),
        renewer: renewer.clone(),
        lease: config.lease,
        clock,
        metrics: metrics.clone(),
        age,
    });
    let collector = Collector::new(Deps {
        me: config.replica.clone(),
        store: connections.store,
        renewer,
        context,
        pods,
        lease: config.lease,
        max_pods: config.max_pods,
        grace: config.grace,
        status: handles.status,
        beat: handles.health.heart("collector", COLLECTOR_LIMIT),
        store_reached: handles.readiness.condition("lock store reached"),
        listed: handles.readiness.condition("first list of pods done"),
    });

    let stopping = stop.child_token();
    let mut parts = JoinSet::new();
    parts.spawn(named("renewer", keep(driver, connections.lock, connections.holder)));
    parts.spawn(named("sink", async move { writing.await.map_err(Failure::from) }));
    let (cluster, token) = (connections.cluster, stopping.clone());
    let discovery = async move { discover(&cluster, &scope, pods_in, token).await.map_err(Failure::usage) };
    parts.spawn(named("discovery", discovery));
    if let Some(cleaner) = cleaner {
        parts.spawn(named("retention", unfailing(cleaner.run(stopping.clone()))));
    }
    parts.spawn(named("collector", unfailing(collector.run(stopping.clone()))));
    end_together(parts, &stopping).await
}

/// Waits for all parts. The first to end stops the others; the first failure is the outcome.
async fn end_together(
    mut parts: JoinSet<(&'static str, Result<(), Failure>)>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        let failure = match ended {
            Ok((part, Ok(()))) if stop.is_cancelled() => {
                tracing::debug!(part, "ended");
                continue;
            }
            Ok((part, Ok(()))) => Failure::unclean(format!("the {part} ended by itself; please report it")),
            Ok((_, Err(failure))) => failure,
            Err(error) => bug(error),
        };
        stop.cancel();
        if outcome.is_ok() {
            outcome = Err(failure);
        }
    }
    outcome
}

async fn named<F: Future<Output = Result<(), Failure>>>(
    name: &'static str,
    part: F,
) -> (&'static str, Result<(), Failure>) {
    (name, part.await)
}

/// A part that sees to its failures itself.
async fn unfailing(part: impl Future<Output = ()>) -> Result<(), Failure> {
    part.await;
    Ok(())
}

/// Runs the renewer on a thread, a runtime and a store connection of its own.
async fn keep(driver: RenewalLoop, lock: LockUrl, holder: Holder) -> Result<(), Failure> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|e| Failure::unclean(format!("the thread for renewals cannot be set up: {e}")))?;
        runtime.block_on(async {
            let store = patiently("lock store", || locks::open(&lock, holder.clone())).await?;
            driver.run(store).await;
            Ok(())
        })
    };
    tokio::task::spawn_blocking(work).await.map_err(bug)?
}

/// Tries again what may heal, for [`PATIENCE`].
async fn patiently<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, E>>,
    Failure: From<E>,
{
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
    let give_up = tokio::time::Instant::now() + PATIENCE;
    loop {
        let failure = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => Failure::from(error),
        };
        let wait = backoff.wait(fastrand::f64());
        if !failure.may_heal() || tokio::time::Instant::now() + wait > give_up {
            return Err(failure);
        }
        tracing::warn!(error = %failure, "the {what} cannot be reached; trying again");
        tokio::time::sleep(wait).await;
    }
}

/// `podlog migrate`: creates or updates the tables of both databases.
pub async fn migrate(store: Store, sink: SinkConfig, stop: CancellationToken) -> Result<(), Failure> {
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

/// `podlog locks`: opens the store and hands it to [`admin`].
pub async fn locks_command(store: Store, locks: Locks, stop: CancellationToken) -> Result<(), Failure> {
    let holder = Holder::onlooker("podlog-locks", store.cluster);
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        done = async {
            let store = locks::open(&store.url, holder).await?;
            admin::execute(&*store, locks).await
        } => done,
    }
}

fn follow_context(
    config: &Config,
    cluster: Cluster,
    sink: Arc<dyn sinks::Sink>,
    clock: Clock,
    metrics: Metrics,
) -> Arc<Context> {
    let streams = config.streams;
    let limits = StreamLimits {
        per_node: streams.per_node,
        total: streams.open,
        opens_per_second: f64::from(streams.open_rate),
        burst: BURST,
    };
    let settings = ReadSettings {
        max_line: streams.max_line,
        chunk_bytes: streams.chunk_bytes,
        chunk_age: streams.chunk_age,
        reopen: streams.reopen,
        probe: streams.probe,
        poll: config.selection.poll,
    };
    Arc::new(Context {
        cluster,
        limiter: StreamLimiter::new(limits, &metrics),
        sink,
        metrics,
        clock,
        stall_detector: StallDetector::new(clock),
        settings,
    })
}

#[allow(clippy::needless_pass_by_value, reason = "used with map_err")]
fn bug(error: tokio::task::JoinError) -> Failure {
    Failure::unclean(format!("a bug ended a part of the program: {error}; please report it"))
}
