//! podlog collects the logs of Kubernetes pods through the Kubernetes API. It runs as N equal
//! replicas; each pod is collected by the one replica that holds the pod's row in a table of
//! claims, so each line is delivered once.
//!
//! In reading order: `domain` is what podlog knows and how it decides; `cluster`, `locks` and
//! `sinks` are its three sides to the world and never import one another; `follow` reads one pod,
//! `keeper` renews claims, `collector` owns them; `run` puts the parts together. `sim` is a
//! simulated cluster, for `demo`, `simulate` and the tests; `simulate` plays random histories on it.

pub mod admin;
pub mod check;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod collector;
pub mod command;
pub mod config;
pub mod db;
pub mod defect;
mod demo;
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
pub mod simulate;
pub mod sinks;
pub mod status;
pub mod stop;
pub mod telemetry;

pub use check::check;
pub use demo::demo;
pub use run::{locks_command, migrate, run};
pub use simulate::simulate;
