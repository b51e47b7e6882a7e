//! podlog collects the logs of Kubernetes pods through the Kubernetes API. It runs as N equal
//! replicas; each pod is collected by the one replica that holds the pod's row in a table of
//! claims, so each line is delivered once.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod domain;
pub mod exit;
pub mod locks;
pub mod metrics;
pub mod sim;
pub mod sinks;
pub mod status;
pub mod stop;
pub mod telemetry;

use tokio_util::sync::CancellationToken;

use cli::Locks;
use config::{Config, Demo, SinkConfig, Store};
use exit::Failure;

// Entry points of the commands. Each runs inside a runtime and ends soon after `stop` is cancelled.

/// `podlog run`: collects until `stop`.
#[allow(clippy::unused_async, reason = "not built yet")]
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Failure> {
    drop((config, stop));
    Err(Failure::unclean("run is not built yet"))
}

/// `podlog demo`: a simulated cluster, several replicas, a crash, and the reckoning.
#[allow(clippy::unused_async, reason = "not built yet")]
pub async fn demo(demo: Demo, stop: CancellationToken) -> Result<(), Failure> {
    drop((demo, stop));
    Err(Failure::unclean("demo is not built yet"))
}

/// `podlog migrate`: creates or updates the tables of both databases.
#[allow(clippy::unused_async, reason = "not built yet")]
pub async fn migrate(store: Store, sink: SinkConfig, stop: CancellationToken) -> Result<(), Failure> {
    drop((store, sink, stop));
    Err(Failure::unclean("migrate is not built yet"))
}

/// `podlog locks`: opens the store and hands it to [`admin`].
#[allow(clippy::unused_async, reason = "not built yet")]
pub async fn locks_command(store: Store, locks: Locks, stop: CancellationToken) -> Result<(), Failure> {
    drop((store, locks, stop));
    Err(Failure::unclean("locks is not built yet"))
}
