//! Connects the parts of a replica, runs them, and ends them together.
//!
//! Wiring only: it collects nothing itself. Each part is a future in one `JoinSet`, and the first one that ends stops
//! all others. They end in this order: the collector releases its claims, then the renewer and the sink have nothing
//! left to do, and the HTTP server answers until the last of them has ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backends::{Backends, open_lock_store};
use crate::clock::{self, Clock};
use crate::cluster::{BURST, Cluster, Scope, StreamLimiter, StreamLimits, discover};
use crate::collector::{Collector, Deps};
use crate::config::Config;
use crate::domain::PodSet;
use crate::exit::Failure;
use crate::follow::stall_detector::StallDetector;
use crate::follow::{Context, ReadSettings};
use crate::locks::{Holder, LockUrl};
use crate::metrics::Metrics;
use crate::renewer::{RenewalLoop, renewer};
use crate::retention::Cleaner;
use crate::sinks::{self, Opened};
use crate::status::Status;
use crate::status::health::Health;
use crate::status::ready::{Condition, Readiness, not_stored};
use crate::status::server::{self, ServerState};
use crate::unread::UnreadLogs;

/// Time without a heartbeat after which the collector's loop counts as stuck. It records one after each call to the
/// store (at most 6 s) and each reconciliation (once a second): four times both together are 4 * (6 s + 1 s) = 28 s,
/// rounded up.
const COLLECTOR_LIMIT: Duration = Duration::from_secs(30);

/// `podlog run`: collects until `stop` is cancelled.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Failure> {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let clock = Clock::boottime();
    let listener = match config.http {
        Some(address) => Some(server::bind(address).await?),
        None => None,
    };
    let scope = config.scope();
    let backends = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        backends = Backends::open(&config, &scope, clock, &metrics) => backends?,
    };
    let (readiness, health) = (Readiness::default(), Health::new(clock));
    // All conditions are there before the first probe.
    let store_reached = readiness.condition("the lock store answers");
    let listed = readiness.condition("pods are listed");
    let unstored = metrics.unstored.clone();
    readiness.ask("the sink stores records", move || not_stored(unstored.longest()));
    let status = watch::channel(Arc::new(Status::new(
        config.replica.clone(),
        config.store.cluster.as_str().into(),
        clock::wall(),
    )));
    let state = ServerState {
        status: status.1,
        readiness,
        health: health.clone(),
        registry: Arc::new(registry),
        stopping: stop.clone(),
    };
    tracing::info!(replica = %config.replica, cluster = config.store.cluster, lock = %backends.lock, sink = %backends.sink_url, "collecting");

    let stop_http = CancellationToken::new();
    let mut http = JoinSet::new();
    if let Some(listener) = listener {
        http.spawn(server::serve(listener, state, stop_http.clone()));
    }
    let outcome = collect(
        &config,
        backends,
        clock,
        metrics,
        StatusHandles {
            store_reached,
            listed,
            health,
            status: status.0,
        },
        scope,
        stop,
    )
    .await;
    stop_http.cancel();
    while let Some(ended) = http.join_next().await {
        ended.map_err(Failure::panicked)??;
    }
    outcome
}

/// Where the parts report the state of the replica.
struct StatusHandles {
    store_reached: Condition,
    listed: Condition,
    health: Health,
    status: watch::Sender<Arc<Status>>,
}

/// Runs the collector and the parts that it needs until `stop` is cancelled or one of them ends.
async fn collect(
    config: &Config,
    backends: Backends,
    clock: Clock,
    metrics: Metrics,
    handles: StatusHandles,
    scope: Scope,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let (pods_in, pods) = watch::channel(Arc::new(PodSet::default()));
    let renewal = handles.health.register("renewal", config.lease.ttl);
    let (renewer, renewal_loop) = renewer(config.lease, clock, metrics.clone(), renewal);
    let Opened {
        sink,
        driver,
        retention,
    } = backends.sink;
    let context = follow_context(config, backends.cluster.clone(), sink, clock, metrics.clone());
    let cleaner = config.sink.retain.zip(retention).map(|(age, sink)| Cleaner {
        sink,
        store: backends.store.clone(),
        renewer: renewer.clone(),
        lease: config.lease,
        clock,
        metrics: metrics.clone(),
        age,
    });
    let collector = Collector::new(Deps {
        me: config.replica.clone(),
        store: backends.store,
        renewer,
        context,
        pods,
        lease: config.lease,
        max_pods: config.max_pods,
        grace: config.grace,
        status: handles.status,
        heartbeat: handles.health.register("collector", COLLECTOR_LIMIT),
        store_reached: handles.store_reached,
        listed: handles.listed,
    });

    let stopping = stop.child_token();
    let mut parts = JoinSet::new();
    parts.spawn(named(
        "renewer",
        run_renewer(renewal_loop, backends.lock, backends.holder),
    ));
    parts.spawn(named("sink", async move { driver.await.map_err(Failure::from) }));
    let (cluster, token) = (backends.cluster, stopping.clone());
    let discovery = async move { discover(&cluster, &scope, pods_in, token).await.map_err(Failure::from) };
    parts.spawn(named("discovery", discovery));
    if let Some(cleaner) = cleaner {
        parts.spawn(named("retention", infallible(cleaner.run(stopping.clone()))));
    }
    parts.spawn(named("collector", infallible(collector.run(stopping.clone()))));
    end_together(parts, &stopping).await
}

/// Waits for all parts. The first one that ends stops the others. Returns the first failure.
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
            Ok((part, Ok(()))) => Failure::failed(format!("the {part} ended without being stopped, which is a bug"))
                .with_remedy("please report it"),
            Ok((_, Err(failure))) => failure,
            Err(error) => Failure::panicked(error),
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

/// A part that handles its failures itself.
async fn infallible(part: impl Future<Output = ()>) -> Result<(), Failure> {
    part.await;
    Ok(())
}

/// Runs the renewer on a thread, a runtime and a store connection of its own.
async fn run_renewer(renewal_loop: RenewalLoop, lock: LockUrl, holder: Holder) -> Result<(), Failure> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::failed(format!("the thread for renewals cannot be set up: {e}")))?;
        runtime.block_on(async {
            let store = open_lock_store(&lock, &holder).await?;
            renewal_loop.run(store).await;
            Ok(())
        })
    };
    tokio::task::spawn_blocking(work).await.map_err(Failure::panicked)?
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
        unread: UnreadLogs::new(clock, metrics.clone()),
        metrics,
        clock,
        stall_detector: StallDetector::new(clock),
        settings,
    })
}
