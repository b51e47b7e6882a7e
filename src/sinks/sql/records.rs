//! Records in a database, each exactly once: records and the stream's position in one transaction, under a lock on the
//! stream's row, and checked against its fence.
//!
//! What is stored of a chunk is decided in [`dedup`](crate::sinks::dedup); the statements are the dialect's.

use std::collections::HashMap;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use sqlx::{Connection, Error};

use super::connections::{Connections, WorkError};
use super::dialect::{SqlDialect, StatementLimits};
use super::rows;
use super::stream_ids::StreamIds;
use crate::domain::{Chunk, Fence, Origin, Position, StreamId};
use crate::sinks::dedup::{self, StreamRow};
use crate::sinks::sink::{Sink, SinkError, WriteResults};
use crate::sync::lock;

/// The sink.
#[derive(Debug)]
pub(in crate::sinks) struct SqlSink<DB: SqlDialect> {
    connections: Connections<DB>,
    ids: StreamIds,
    /// `None` until the first write, and after a failure: the server may have been replaced by another.
    limits: Mutex<Option<StatementLimits>>,
}

impl<DB: SqlDialect> SqlSink<DB> {
    pub(in crate::sinks) fn new(connections: Connections<DB>) -> Self {
        Self {
            connections,
            ids: StreamIds::default(),
            limits: Mutex::default(),
        }
    }

    fn known_limits(&self) -> MutexGuard<'_, Option<StatementLimits>> {
        lock(&self.limits)
    }

    /// The failure as the result of a write.
    fn error(&self, error: &WorkError) -> SinkError {
        if matches!(error, WorkError::Failed(_)) {
            *self.known_limits() = None;
        }
        self.connections.sink_error(error)
    }

    /// Opens the stream under the fence and returns its row.
    async fn open_row(&self, origin: &Origin, fence: Fence) -> Result<StreamRow, SinkError> {
        let work = async {
            let mut connection = self.connections.acquire().await?;
            let row = open_in::<DB>(connection.get()?, origin, fence).await?;
            connection.done();
            Ok(row)
        };
        let row = match self.connections.in_time(work).await {
            Ok(row) => row.ok_or(SinkError::Fenced)?,
            Err(WorkError::Failed(error)) if DB::is_too_long(&error) => {
                return Err(SinkError::Rejected(
                    format!("a name is too long for its column: {error}").into(),
                ));
            }
            Err(error) => return Err(self.error(&error)),
        };
        self.ids.insert(&origin.stream, row.id);
        Ok(row)
    }

    /// The id of the chunk's stream. Streams are opened before they are written, so only one whose row was deleted
    /// meanwhile is opened here.
    async fn id(&self, chunk: &Chunk) -> Result<i64, SinkError> {
        match self.ids.get(&chunk.origin.stream) {
            Some(id) => Ok(id),
            None => Ok(self.open_row(&chunk.origin, chunk.fence).await?.id),
        }
    }

    /// Stores chunks whose ids are given: all in one transaction, or one by one when a row is refused.
    async fn store(&self, ids: &[i64], chunks: &[Arc<Chunk>]) -> WriteResults {
        match self.store_together(ids, chunks).await {
            Ok(results) => results,
            Err(error) if error.concerns_a_row() && chunks.len() > 1 => {
                self.error(&error);
                self.store_one_by_one(ids, chunks).await
            }
            Err(error) => vec![Err(self.error(&error)); chunks.len()],
        }
    }

    /// One transaction for each chunk. After a chunk that is not stored, later ones of its stream are not tried: they
    /// would be out of order.
    async fn store_one_by_one(&self, ids: &[i64], chunks: &[Arc<Chunk>]) -> WriteResults {
        let mut failed: HashMap<&StreamId, SinkError> = HashMap::new();
        let mut results = Vec::with_capacity(chunks.len());
        for (id, chunk) in ids.iter().zip(chunks) {
            let stream = &chunk.origin.stream;
            let result = match failed.get(stream) {
                Some(error) => Err(error.clone()),
                None => self.store_one(id, chunk).await,
            };
            if let Err(error) = &result {
                failed.insert(stream, error.clone());
            }
            results.push(result);
        }
        results
    }

    async fn store_one(&self, id: &i64, chunk: &Arc<Chunk>) -> Result<(), SinkError> {
        match self.store_together(slice::from_ref(id), slice::from_ref(chunk)).await {
            Ok(mut results) => results.pop().unwrap_or_else(no_result),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// One transaction for all chunks.
    async fn store_together(&self, ids: &[i64], chunks: &[Arc<Chunk>]) -> Result<WriteResults, WorkError> {
        let work = async {
            let mut connection = self.connections.acquire().await?;
            let results = self.store_in(connection.get()?, ids, chunks).await?;
            connection.done();
            Ok(results)
        };
        self.connections.in_time(work).await
    }

    async fn store_in(
        &self,
        connection: &mut DB::Connection,
        ids: &[i64],
        chunks: &[Arc<Chunk>],
    ) -> Result<WriteResults, Error> {
        let known = *self.known_limits();
        let limits = match known {
            Some(limits) => limits,
            None => DB::limits(connection).await?,
        };
        *self.known_limits() = Some(limits);
        let mut tx = connection.begin_with(DB::BEGIN).await?;
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let locked = DB::lock(&mut tx, &sorted).await?;
        let locked: HashMap<i64, _> = locked.into_iter().map(|row| (row.id, row)).collect();
        let mut found = HashMap::new();
        for (id, chunk) in ids.iter().zip(chunks) {
            let stream = &chunk.origin.stream;
            if let Some(row) = locked.get(id).and_then(|row| row.if_of(stream)) {
                found.insert(stream, row);
            } else {
                self.ids.remove(stream);
            }
        }
        let plan = dedup::plan(&mut found, chunks, limits.message);
        rows::insert::<DB>(&mut tx, &plan.records, limits.statement).await?;
        for gap in &plan.gaps {
            rows::insert_gap::<DB>(&mut tx, gap).await?;
        }
        if !plan.moved.is_empty() {
            rows::advance::<DB>(&mut tx, &plan.moved).await?;
        }
        tx.commit().await?;
        Ok(plan.results)
    }
}

#[async_trait]
impl<DB: SqlDialect> Sink for SqlSink<DB> {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        Ok(self.open_row(origin, fence).await?.position)
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> WriteResults {
        let (mut ids, mut known, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in chunks {
            match self.id(chunk).await {
                Ok(id) => {
                    ids.push(id);
                    known.push(chunk.clone());
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
        }
        let mut stored = if known.is_empty() {
            Vec::new().into_iter()
        } else {
            self.store(&ids, &known).await.into_iter()
        };
        let results = refused.into_iter().map(|refused| match refused {
            Some(error) => Err(error),
            None => stored.next().unwrap_or_else(no_result),
        });
        results.collect()
    }
}

/// Creates the stream's row or raises its fence; `None` when somebody has opened it under a larger one. One
/// transaction, so that a writer under an older fence has either finished or is refused.
async fn open_in<DB: SqlDialect>(
    connection: &mut DB::Connection,
    origin: &Origin,
    fence: Fence,
) -> Result<Option<StreamRow>, Error> {
    let mut tx = connection.begin_with(DB::BEGIN).await?;
    let row = match rows::find::<DB>(&mut tx, &origin.stream).await? {
        Some(row) if row.fence > fence => return Ok(None),
        Some(row) => {
            rows::reopen::<DB>(&mut tx, row.id, origin, fence).await?;
            StreamRow { fence, ..row }
        }
        None => StreamRow {
            id: rows::create::<DB>(&mut tx, origin, fence).await?,
            fence,
            position: None,
            seq: 0,
        },
    };
    tx.commit().await?;
    Ok(Some(row))
}

fn no_result() -> Result<(), SinkError> {
    Err(SinkError::Again {
        after: None,
        why: "podlog has no result for this chunk, which is a bug; it is written again".into(),
    })
}
