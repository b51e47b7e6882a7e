//! The built binary on a real cluster with a real MySQL: pods of all kinds, replicas that die, and a
//! audit against what the node's own log files say. Needs `KUBECONFIG` and `PODLOG_TEST_MYSQL`.

// What a test needs and does not find should panic.
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
