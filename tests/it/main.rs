//! Everything that is tested from outside, in one binary; this list is the table of contents.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says on standard output what it skips"
)]

mod cluster;
mod flaky;
mod follow;
mod histories;
mod ledger;
mod recorder;
mod replicas;
mod sim_pods;
mod sim_streams;
mod stage;
mod world;
