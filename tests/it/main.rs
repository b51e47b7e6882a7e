//! Everything that is tested from outside, in one binary; this list is the table of contents.
//!
//! Tests that need a server read `PODLOG_TEST_MYSQL`, `PODLOG_TEST_MARIADB` (`mysql://user:password@host/database`,
//! with the right to create databases) and `KUBECONFIG`; without them they are skipped, see [`servers`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    reason = "a test fails by panicking, and its helpers are tests too"
)]

// The source tree and its documents: sizes, imports, tables.
mod tidy;
// The Helm chart and the manifests made from it, without a cluster.
mod chart;

// What must hold for any input; the fuzzers check the same.
mod models;
mod properties;
mod rows;

// How pods are shared out: random histories of replicas that come and go.
mod plan;
// The contract of lock stores, on each of them.
mod locks;
// The contract of sinks, on each of them.
mod sinks;

// The contract of API servers, on the simulated one and a real one.
mod cluster;
mod store_faults;
mod test_cluster;
// Discovery and logs on a real cluster.
mod real;

// One pod followed on the simulated cluster.
mod database_user;
mod follow;
mod follow_fixture;
mod gaps;
mod readers;
mod recording_sink;
mod trust;
mod unread;
mod unstored;
// Several replicas over one simulated cluster, and what can happen to them.
mod harness;
mod histories;
mod pod_ends;
mod replicas;
mod scaling;
// What the simulated cluster does beyond the contract.
mod kubectl;
mod sim_pods;
mod sim_streams;

// The built binary's command line, and signals.
mod clearing_up;
mod command_line;
// The built binary whose own log cannot be written.
mod outages;
mod own_log;
// Malformed and malicious input.
mod hostile;
// What `podlog check` finds.
mod check;
mod check_logs;
mod check_mysql;
// Tables of other versions, and replicas of two versions side by side.
mod upgrade;

// Shared with other test binaries: chunks to write, and what a test needs in order not to be skipped.
#[path = "../support/chunks.rs"]
mod chunks;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/tls.rs"]
mod tls;
