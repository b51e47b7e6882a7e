//! Databases: everything that claims and records need of one and that is the same for both. How it is named by a URL,
//! reached and checked, what its errors mean, how its tables are created, and which version they have.
//!
//! It knows no table of claims or records. `locks` and `sinks` have the statements, and say as data what must be there.

pub mod database;
pub mod demands;
pub mod diagnose;
#[cfg(test)]
mod fixtures;
pub mod job;
pub mod mysql;
pub mod schema;
pub mod sqlite;
pub mod url;
pub mod version;
