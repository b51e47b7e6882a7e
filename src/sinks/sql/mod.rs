//! Records in a database, each exactly once. One sink for all databases: what differs between them is the
//! [`SqlDialect`](dialect::SqlDialect), which has one implementation per file here.
//!
//! Nothing here connects to a database or creates a table: `db` does.

mod batch;
mod connections;
mod dialect;
pub(super) mod mysql;
mod records;
mod retention;
mod rows;
pub(super) mod sqlite;
mod stream_ids;

pub(super) use connections::Connections;
pub(super) use dialect::SqlDialect;
pub(super) use records::SqlSink;
pub(super) use retention::SqlRetention;
