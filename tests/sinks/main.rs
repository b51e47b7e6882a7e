//! One contract for every sink, run against files, SQLite, and MySQL and MariaDB when they are there;
//! and what only some sinks promise.
//!
//! `PODLOG_TEST_MYSQL` and `PODLOG_TEST_MARIADB` name servers (`mysql://user:password@host:port/db`) on
//! which the tests make databases of their own and drop them.

// Helpers of tests are tests: they may print and panic.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::unchecked_time_subtraction)]

mod contract;
mod exact;
mod faults;
mod files;
mod measure;
mod relay;
mod retention;
mod stream;
mod world;
