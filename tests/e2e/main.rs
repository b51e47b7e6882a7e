//! The built binary on a real cluster with a real MySQL: pods of all kinds, replicas that die, and a
//! reckoning against what the node's own log files say. Needs `KUBECONFIG` and `PODLOG_TEST_MYSQL`.

// What a test needs and does not find should panic.
#![allow(clippy::unwrap_used)]

mod holders;
mod install;
mod install_helm;
mod lab;
mod pods;
mod reckon;
mod replica;
mod rights;
mod rotation;
mod selection;
#[path = "../it/servers.rs"]
mod servers;
mod servers_away;
mod suite;
mod witness;
