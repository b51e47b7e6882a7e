//! Where records go: standard output, files, or a database, and what all of them share: grouping writers, and trying
//! again what failed.

pub(crate) mod dedup;
mod file;
#[cfg(test)]
mod fixtures;
pub mod group;
pub mod json;
mod open;
pub mod retry;
pub(crate) mod schema;
mod sink;
mod sql;
mod stdout;
pub(crate) mod unacked;
mod url;

pub use crate::db::database::DiagnoseOptions;
pub use open::{Opened, diagnose, migrate, open};
pub use sink::{Retention, Sink, SinkError, WriteResults};
pub use url::{FILE_PARAMETERS, SinkUrl};
