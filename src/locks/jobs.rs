//! What the jobs of all databases share: the holder as it is bound to statements, and statements that only write.

use std::time::Duration;

use sqlx::Connection;

use super::store::Holder;
use crate::db::session::Job;
use crate::db::statement::{Execute, Value};

/// The holder as it is bound to statements.
#[derive(Clone, Debug)]
pub(super) struct BoundHolder {
    pub(super) replica: String,
    pub(super) cluster: String,
    /// Microseconds.
    pub(super) ttl: i64,
    /// Microseconds.
    pub(super) takeover_grace: i64,
}

impl From<Holder> for BoundHolder {
    fn from(holder: Holder) -> Self {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Self {
            replica: holder.replica.to_string(),
            cluster: holder.cluster,
            ttl: micros(holder.ttl),
            takeover_grace: micros(holder.takeover_grace),
        }
    }
}

/// Executes one statement. Returns the number of rows that it has changed.
pub(super) struct WriteJob<'a> {
    pub(super) text: &'static str,
    pub(super) values: &'a [Value<'a>],
}

impl<C: Connection<Database: Execute<Connection = C>>> Job<C> for WriteJob<'_> {
    type Answer = u64;

    async fn run(&self, conn: &mut C) -> Result<u64, sqlx::Error> {
        let arguments = C::Database::arguments(self.values.iter().copied())?;
        C::Database::execute(conn, self.text, arguments).await
    }
}
