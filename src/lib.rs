//! podlog collects the logs of Kubernetes pods through the Kubernetes API. It runs as N equal
//! replicas; each pod is collected by the one replica that holds the pod's row in a table of
//! claims, so each line is delivered once.
//!
//! In reading order: `domain` is what podlog knows and how it decides; `cluster`, `locks` and
//! `sinks` are its three sides to the world and never import one another; `follow` reads one pod,
//! `keeper` renews claims, `collector` owns them; `run` puts the parts together. `sim` is a
//! simulated cluster, for `demo` and the tests.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod collector;
pub mod command;
pub mod config;
pub mod domain;
pub mod exit;
pub mod follow;
pub mod grant;
pub mod keeper;
pub mod locks;
pub mod metrics;
pub mod reckoning;
pub mod retention;
pub mod run;
pub mod sim;
pub mod sinks;
pub mod status;
pub mod stop;
pub mod telemetry;

pub use run::{locks_command, migrate, run};

use tokio_util::sync::CancellationToken;

use config::Demo;
use exit::Failure;

/// `podlog demo`: a simulated cluster, several replicas, a crash, and the reckoning.
#[allow(clippy::unused_async, reason = "not built yet")]
pub async fn demo(demo: Demo, stop: CancellationToken) -> Result<(), Failure> {
    drop((demo, stop));
    Err(Failure::unclean("demo is not built yet"))
}
