//! Databases: everything that claims and records need of one and that is the same for both. How it is named by a URL,
//! reached and checked, what its errors mean, how its tables are created, and which version they have.
//!
//! What differs between the kinds of databases is [`DatabaseKind`](database::DatabaseKind); each kind has its file or folder
//! here. No table of claims or records is known here: `locks` and `sinks` have the statements, and say as data what must be
//! there.

pub(crate) mod any;
pub(crate) mod connector;
pub(crate) mod database;
pub(crate) mod diagnose;
pub(crate) mod migrate;
pub(crate) mod mysql;
pub(crate) mod open;
pub(crate) mod password;
pub(crate) mod pool;
pub(crate) mod schema;
mod server;
pub(crate) mod session;
pub(crate) mod sqlite;
pub(crate) mod statement;
pub(crate) mod url;
pub(crate) mod version;
