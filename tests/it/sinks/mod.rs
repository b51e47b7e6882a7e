//! One contract for every sink, run against files, SQLite, and MySQL and MariaDB when they are there;
//! and what only some sinks promise. On servers each test makes a database of its own and drops it.

mod connections;
mod contract;
mod exact;
mod faults;
mod files;
pub(crate) mod fixture;
mod retention;
mod throughput;
