//! Deleting old records: the trait of sinks that can. Who does it, and when, is decided elsewhere.

use std::fmt;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::SinkError;
use crate::domain::Time;

/// A sink whose old records can be deleted.
#[async_trait]
pub trait Retention: Send + Sync + fmt::Debug {
    /// Deletes at most `limit` records from the old ends of streams: those older than `older_than` up to
    /// the first that is not, so that a stream never gets a hole. Also the rows of streams that have no
    /// record left, were neither opened nor written since `older_than`, and for at least a day; such a
    /// stream, should it speak again, begins anew after its checkpoint. Gaps go with the records after
    /// them. Answers how many records went; less than `limit` means that no more are old.
    async fn purge(&self, older_than: Time, limit: u32) -> Result<u64, SinkError>;
}

/// Streams looked at in one round. Each costs two short statements and a transaction of about 2 ms, so
/// a round stays well below a deadline of 5 s.
pub(super) const OLD_STREAMS: i64 = 200;
/// Rows of empty streams deleted in one call.
pub(super) const EMPTY_STREAMS: i64 = 200;

/// What one round deleted, and the last stream it looked at; `None` when there are no more.
pub(super) struct Part {
    pub(super) gone: u64,
    pub(super) last: Option<i64>,
}

/// Deletes up to `limit` records in rounds: each is told after which stream to go on, and how many may go.
pub(super) async fn purge<'a>(
    limit: u32,
    round: impl Fn(i64, u32) -> BoxFuture<'a, Result<Part, SinkError>>,
) -> Result<u64, SinkError> {
    let (mut gone, mut after) = (0, 0);
    while gone < u64::from(limit) {
        let part = round(after, limit - gone as u32).await?;
        gone += part.gone;
        match part.last {
            Some(last) => after = last,
            None => break,
        }
    }
    Ok(gone)
}
