//! What servers, networks and machines do to podlog, with real servers, real connections and real processes;
//! every scenario ends with an audit of what was written and what is stored.
//!
//! `PODLOG_TEST_MYSQL` and `PODLOG_TEST_MARIADB` name servers that are only written to, each scenario in a database of
//! its own. What kills servers and lies to them starts its own: `mariadbd` from the path, with `mariadb-install-db`, and
//! the file that `PODLOG_TEST_MYSQLD` names (`scripts/mysqld-of` runs one that is not installed); clocks need Debian's
//! `faketime`, and a full disk wants the right to mount one of its own. What is missing is skipped aloud, and with `PODLOG_TEST_REQUIRE_ALL=1` fails; see [`servers`].
//!
//! All of it takes five to seven minutes, mostly of waiting. Claims last 10 s and writes may take 2 s, so a machine that
//! makes a process wait for seconds fails it: where others work too, `nice -n -10` gives it what it needs, if the
//! servers that are named have the same.

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
