//! Records in a database, each exactly once. One sink for all databases: what differs between them is the
//! [`Dialect`](dialect::Dialect), which has one implementation per file here.
//!
//! Nothing here connects to a database or creates a table.

mod batch;
mod connections;
mod dialect;
mod json;
mod mysql;
mod records;
mod retention;
mod sqlite;
mod stream_ids;

pub(super) use connections::Connections;
pub(super) use dialect::Dialect;
pub(super) use mysql::{PACKET_REST, max_packet};
pub(super) use records::SqlSink;
pub(super) use retention::SqlRetention;
