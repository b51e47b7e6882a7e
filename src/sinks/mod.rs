//! Where records go: standard output, files, or a database, and what all of them share: grouping writers, and trying
//! again what failed.

pub(crate) mod dedup;
mod diagnose;
mod file;
pub mod group;
pub mod json;
mod mysql;
mod open;
#[cfg(test)]
mod probe;
pub mod retry;
mod schema;
mod sink;
mod sql;
mod sqlite;
mod stdout;
mod unacked;
mod url;

pub use diagnose::{SinkNeeds, TABLES, diagnose};
pub use open::{Opened, SinkOpenError, migrate, open};
pub use sink::{Retention, Sink, SinkError};
pub use url::{BadSinkUrl, FILE_PARAMETERS, SinkUrl};
