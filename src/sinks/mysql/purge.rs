//! Deleting old records from MySQL or MariaDB, a stretch of one stream at a time.

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::{Connection, Error};
use tokio::time::timeout;

use super::MySqlSink;
use crate::domain::Time;
use crate::sinks::SinkError;
use crate::sinks::retain::{EMPTY_STREAMS, OLD_STREAMS, Part, Retention, purge};

/// Streams whose first record is old. Ordering by the whole primary key makes the database read one row per
/// stream; ordering by `seq` alone makes MySQL sort all of the stream.
const OLD: &str = "SELECT s.id FROM log_stream s WHERE s.id > ? AND \
    (SELECT r.time_ns FROM log_record r WHERE r.stream = s.id ORDER BY r.stream, r.seq LIMIT 1) < ? ORDER BY s.id LIMIT ?";

/// Of a stream's first records: how many, the number of the first young one, and the number of the last.
const STRETCH: &str = "SELECT MIN(CASE WHEN time_ns >= ? THEN seq END), MAX(seq) \
    FROM (SELECT seq, time_ns FROM log_record WHERE stream = ? ORDER BY seq LIMIT ?) AS first";

const DELETE: &str = "DELETE FROM log_record WHERE stream = ? AND seq < ?";
const DELETE_GAPS: &str = "DELETE FROM log_gap WHERE stream = ? AND seq < ?";

/// Streams that have no record left and have been neither opened nor written for a long time.
const EMPTY: &str = "SELECT s.id FROM log_stream s \
    WHERE s.updated_at < LEAST(TIMESTAMPADD(MICROSECOND, ?, TIMESTAMP '1970-01-01 00:00:00'), \
        UTC_TIMESTAMP(6) - INTERVAL 1 DAY) \
    AND NOT EXISTS (SELECT 1 FROM log_record r WHERE r.stream = s.id) ORDER BY s.id LIMIT ?";

/// Locks and looks again, so that a writer that came in between keeps its row.
const DELETE_STREAM: &str = "DELETE FROM log_stream WHERE id = ? AND updated_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY \
    AND NOT EXISTS (SELECT 1 FROM log_record r WHERE r.stream = log_stream.id)";

#[async_trait]
impl Retention for MySqlSink {
    async fn purge(&self, older_than: Time, limit: u32) -> Result<u64, SinkError> {
        let round = |after, left| Box::pin(self.in_time(self.purge_some(after, older_than, left))) as BoxFuture<'_, _>;
        let gone = purge(limit, round).await?;
        self.in_time(self.purge_empty(older_than)).await?;
        Ok(gone)
    }
}

impl MySqlSink {
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, SinkError> {
        match timeout(self.deadline, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.again(&error)),
            Err(_) => Err(self.late()),
        }
    }

    /// Deletes up to `limit` old records of the next streams. Each stream is a transaction of its own.
    async fn purge_some(&self, after: i64, older_than: Time, limit: u32) -> Result<Part, Error> {
        let mut held = self.held().await?;
        let conn = held.conn()?;
        let old = sqlx::query_scalar::<_, i64>(OLD)
            .bind(after)
            .bind(older_than.0)
            .bind(OLD_STREAMS);
        let streams = old.fetch_all(&mut *conn).await?;
        let mut part = Part { gone: 0, last: None };
        for stream in streams {
            let left = u64::from(limit).saturating_sub(part.gone);
            if left == 0 {
                break;
            }
            let stretch = sqlx::query_as(STRETCH)
                .bind(older_than.0)
                .bind(stream)
                .bind(left.cast_signed());
            let (young, last): (Option<i64>, Option<i64>) = stretch.fetch_one(&mut *conn).await?;
            let end = young.or(last.map(|seq| seq + 1)).unwrap_or(0);
            let mut tx = conn.begin().await?;
            part.gone += sqlx::query(DELETE)
                .bind(stream)
                .bind(end)
                .execute(&mut *tx)
                .await?
                .rows_affected();
            sqlx::query(DELETE_GAPS)
                .bind(stream)
                .bind(end)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            part.last = Some(stream);
        }
        held.give_back();
        Ok(part)
    }

    async fn purge_empty(&self, older_than: Time) -> Result<(), Error> {
        let mut held = self.held().await?;
        let conn = held.conn()?;
        let empty = sqlx::query_scalar::<_, i64>(EMPTY)
            .bind(older_than.0 / 1000)
            .bind(EMPTY_STREAMS);
        for stream in empty.fetch_all(&mut *conn).await? {
            let mut tx = conn.begin().await?;
            if sqlx::query(DELETE_STREAM)
                .bind(stream)
                .execute(&mut *tx)
                .await?
                .rows_affected()
                > 0
            {
                sqlx::query(DELETE_GAPS)
                    .bind(stream)
                    .bind(i64::MAX)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
        }
        held.give_back();
        Ok(())
    }
}
