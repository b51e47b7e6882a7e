//! Databases: everything that claims and records need of one and that is the same for both. How it is named by a URL,
//! reached and checked, what its errors mean, how its tables are created, and which version they have.
//!
//! It knows no table of claims or records. `locks` and `sinks` have the statements, and say as data what must be there.

pub(crate) mod database;
pub(crate) mod demands;
pub(crate) mod diagnose;
#[cfg(test)]
mod fixtures;
pub(crate) mod job;
pub(crate) mod mysql;
pub(crate) mod schema;
pub(crate) mod sqlite;
pub(crate) mod url;
pub(crate) mod version;
