//! Faults of servers, networks and machines, with real servers, real connections and real processes. Every scenario
//! ends with an audit of what was written and what is stored.
//!
//! `PODLOG_TEST_MYSQL` and `PODLOG_TEST_MARIADB` name servers. Each scenario uses a database of its own on them and
//! changes nothing else. Scenarios that kill servers or change their clocks start servers of their own: `mariadbd` from
//! the `PATH`, with `mariadb-install-db`, and the file that `PODLOG_TEST_MYSQLD` names (`scripts/mysqld-of` runs one
//! that is not installed). Clocks need Debian's `faketime`, and the full disk needs the permission to mount a small
//! file system. A scenario that lacks something is skipped with a message, or fails with `PODLOG_TEST_REQUIRE_ALL=1`;
//! see [`servers`].
//!
//! All scenarios together take five to seven minutes, mostly waiting. Claims last 10 s and writes may take 2 s, so a
//! machine on which a process waits for seconds makes scenarios fail. On a busy machine run the tests and the servers
//! with `nice -n -10`.

#![cfg(target_os = "linux")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::needless_for_each,
    clippy::never_loop,
    clippy::single_match,
    clippy::single_match_else,
    clippy::duration_suboptimal_units,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its helpers are tests too"
)]

// Between podlog and a server.
mod cut_points;
mod proxy;
// A database, a simulated cluster behind a port, the built binary as a process, and who is right in the end.
mod audit;
mod database;
mod fixture;
mod parallel;
mod replica;
mod scenarios;
mod silence;
mod stored_files;

// Connections that end at the worst moment, one call at a time.
mod network;

// Servers of our own that crash and lie.
mod crashes;
mod rotation;
mod server;
// Servers that are away, and signals to processes.
mod outages;
mod signals;
mod single;
// Replicas that come and go.
mod scaling;

// Shared with other test binaries: chunks to write, and what a test needs in order not to be skipped.
#[path = "../support/chunks.rs"]
#[allow(dead_code, reason = "shared with another test binary")]
mod chunks;
#[path = "../support/servers.rs"]
#[allow(dead_code, reason = "shared with another test binary")]
mod servers;
#[path = "../support/tls.rs"]
#[allow(dead_code, reason = "shared with another test binary")]
mod tls;
