//! One contract for all sinks, and what only some sinks promise. The tests run on files, on SQLite, and on MySQL and
//! MariaDB if the servers are there. On servers each test creates its own database and drops it.

mod connections;
mod contract;
mod exact;
mod faults;
mod files;
pub(crate) mod fixture;
mod retention;
mod throughput;
