//! The built binary on a real cluster with a real MySQL server: pods of all kinds, replicas that are killed, and an
//! audit against the log files of the node. Needs `KUBECONFIG` and `PODLOG_TEST_MYSQL`.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod audit;
mod fixture;
mod holders;
mod install;
mod install_helm;
mod node_logs;
mod pods;
mod replica;
mod rights;
mod rotation;
mod selection;
#[path = "../support/servers.rs"]
mod servers;
mod servers_away;
mod suite;
