//! Deleting old records from a database, from the old end of one stream after another.

use async_trait::async_trait;
use sqlx::{Connection, Error};

use super::connections::{Connections, WorkError};
use super::dialect::SqlDialect;
use crate::db::statement::Value;
use crate::domain::Time;
use crate::sinks::sink::{Retention, SinkError};

/// Streams of one round. Each costs two short statements and a transaction of about 2 ms, so a round of 200 takes
/// 0.4 s, far less than its deadline of 5 s.
const STREAMS_PER_ROUND: i64 = 200;
/// Rows of empty streams deleted in one call, for the same reason.
const EMPTY_STREAMS: i64 = 200;

/// Deletes the old records of a SQL sink.
#[derive(Debug)]
pub(in crate::sinks) struct SqlRetention<DB: SqlDialect> {
    connections: Connections<DB>,
}

/// What one round has done.
struct Round {
    deleted: u64,
    /// The last stream it worked on; `None` when no stream with old records was left.
    last: Option<i64>,
}

#[async_trait]
impl<DB: SqlDialect> Retention for SqlRetention<DB> {
    async fn purge(&self, older_than: Time, limit: u32) -> Result<u64, SinkError> {
        let (mut deleted, mut after) = (0, 0);
        while deleted < u64::from(limit) {
            let round = self.purge_records(after, older_than, u64::from(limit) - deleted);
            let round = self.connections.in_time(round).await;
            let round = round.map_err(|error| self.connections.sink_error(&error))?;
            deleted += round.deleted;
            match round.last {
                Some(last) => after = last,
                None => break,
            }
        }
        let streams = self.connections.in_time(self.purge_empty_streams(older_than)).await;
        streams.map_err(|error| self.connections.sink_error(&error))?;
        Ok(deleted)
    }
}

impl<DB: SqlDialect> SqlRetention<DB> {
    pub(in crate::sinks) fn new(connections: Connections<DB>) -> Self {
        Self { connections }
    }

    /// Deletes up to `limit` old records of the streams after this one. Each stream is a transaction of its own.
    async fn purge_records(&self, after: i64, older_than: Time, limit: u64) -> Result<Round, WorkError> {
        let mut acquired = self.connections.acquire().await?;
        let connection = acquired.get()?;
        let old = numbers::<DB>([after, older_than.0, STREAMS_PER_ROUND])?;
        let streams = DB::numbers(connection, DB::STATEMENTS.old_streams, old).await?;
        let (mut deleted, mut last) = (0, None);
        for stream in streams {
            let left = limit.saturating_sub(deleted);
            if left == 0 {
                break;
            }
            let first = numbers::<DB>([older_than.0, stream, left.cast_signed()])?;
            let end = DB::numbers(connection, DB::STATEMENTS.old_end, first).await?;
            let end = end.first().copied().unwrap_or(0);
            let mut tx = connection.begin_with(DB::BEGIN).await?;
            deleted += DB::execute(&mut tx, DB::STATEMENTS.delete_records, numbers::<DB>([stream, end])?).await?;
            DB::execute(&mut tx, DB::STATEMENTS.delete_gaps, numbers::<DB>([stream, end])?).await?;
            tx.commit().await?;
            last = Some(stream);
        }
        acquired.done();
        Ok(Round { deleted, last })
    }

    /// Deletes the rows of streams that have no record and have been quiet for long, and their gaps.
    async fn purge_empty_streams(&self, older_than: Time) -> Result<(), WorkError> {
        let mut acquired = self.connections.acquire().await?;
        let connection = acquired.get()?;
        let empty = numbers::<DB>([DB::updated_at(older_than), EMPTY_STREAMS])?;
        for stream in DB::numbers(connection, DB::STATEMENTS.empty_streams, empty).await? {
            let mut tx = connection.begin_with(DB::BEGIN).await?;
            if DB::execute(&mut tx, DB::STATEMENTS.delete_stream, numbers::<DB>([stream])?).await? > 0 {
                DB::execute(&mut tx, DB::STATEMENTS.delete_gaps, numbers::<DB>([stream, i64::MAX])?).await?;
            }
            tx.commit().await?;
        }
        acquired.done();
        Ok(())
    }
}

fn numbers<DB: SqlDialect>(values: impl IntoIterator<Item = i64>) -> Result<DB::Arguments, Error> {
    DB::arguments(values.into_iter().map(Value::from))
}
