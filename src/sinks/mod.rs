//! Where records go: standard output, files, or a database, and what all of them share: grouping writers, and trying
//! again what failed.

pub(crate) mod dedup;
mod diagnose;
mod file;
#[cfg(test)]
mod fixtures;
pub mod group;
pub mod json;
mod open;
pub mod retry;
mod schema;
mod sink;
mod sql;
mod stdout;
mod unacked;
mod url;

pub use diagnose::{SinkNeeds, diagnose};
pub use open::{Opened, migrate, open};
pub use sink::{Retention, Sink, SinkError, WriteResults};
pub use url::{FILE_PARAMETERS, SinkUrl};
