//! Records in an SQLite file, exactly once: rows and the stream's position in one transaction, checked
//! against the claim's number. Several processes of one machine may write the same file.
//!
//! Transactions are short because the file has one writer at a time, and claims may lie in it too. A
//! commit is on the disk when it is answered. What to store is decided in [`dedup`](super::dedup).

mod diagnose;
mod fault;
mod purge;
mod sql;

use std::collections::HashMap;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqliteConnection, SqlitePool};
use tokio::time::timeout;

use super::dedup::{self, Row};
use super::schema;
use super::sql::{Ids, is_of_a_row, one_by_one};
use super::{Sink, SinkError, SinkOpenError};
use crate::domain::{Chunk, Fence, Origin, Position};
pub(super) use diagnose::diagnose;
pub(super) use fault::refusal;

/// How long a transaction waits for another process's. Less than an attempt's 5 s, so that the answer
/// says what was waited for.
const BUSY: Duration = Duration::from_secs(4);
/// How long opening the file may take.
const CONNECT: Duration = Duration::from_secs(10);
/// SQLite refuses values of more than 1,000,000,000 bytes; a chunk's text is shorter by far.
const LONGEST: usize = 1_000_000_000;

/// How the file is opened, here and for creating its tables.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
}

/// The sink.
#[derive(Debug)]
pub(super) struct SqliteSink {
    /// One connection: the file has one writer, and here they wait in order.
    pool: SqlitePool,
    name: Arc<str>,
    deadline: Duration,
    ids: Ids,
}

impl SqliteSink {
    /// Opens the file, checks the schema and answers what is wrong in plain words.
    pub(super) async fn connect(path: &Path, name: Arc<str>, deadline: Duration) -> Result<Self, SinkOpenError> {
        if !path.exists() {
            return Err(SinkOpenError::refused(
                format!("{name}: there is no such file"),
                "run `podlog migrate`",
            ));
        }
        let options = options(path);
        let first = async {
            let mut conn = SqliteConnection::connect_with(&options).await?;
            let state = schema::sqlite_state(&mut conn).await?;
            conn.close().await?;
            Ok(state)
        };
        match timeout(CONNECT, first).await {
            Ok(Ok(state)) => schema::check(&name, state)?,
            Ok(Err(error)) => return Err(refusal(&name, &error)),
            Err(_) => {
                return Err(SinkOpenError::unavailable(
                    format!("{name}: opening it took more than {CONNECT:?}"),
                    "look whether the disk is overloaded, or another process holds the file",
                ));
            }
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(deadline)
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            name,
            deadline,
            ids: Ids::default(),
        })
    }

    async fn held(&self) -> Result<Held, sqlx::Error> {
        Ok(Held(Some(self.pool.acquire().await?)))
    }

    fn again(&self, error: &sqlx::Error) -> SinkError {
        SinkError::Again {
            after: None,
            why: format!("{}: {}", self.name, fault::cause(error)).into(),
        }
    }

    fn late(&self) -> SinkError {
        let why = format!(
            "{} did not answer within {:?}; its disk is too slow or too busy",
            self.name, self.deadline
        );
        SinkError::Again {
            after: None,
            why: why.into(),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, SinkError> {
        match timeout(self.deadline, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.again(&error)),
            Err(_) => Err(self.late()),
        }
    }

    async fn open_row(&self, origin: &Origin, fence: Fence) -> Result<Row, SinkError> {
        let work = async {
            let mut held = self.held().await?;
            let row = sql::open(held.conn()?, origin, fence).await?;
            held.give_back();
            Ok(row)
        };
        let row = self.in_time(work).await??;
        self.ids.set(&origin.stream, row.id);
        Ok(row)
    }

    /// One transaction for all chunks whose ids are given.
    async fn store(&self, ids: &[i64], chunks: &[Arc<Chunk>]) -> Result<Vec<Result<(), SinkError>>, sqlx::Error> {
        let mut held = self.held().await?;
        let mut tx = held.conn()?.begin_with(sql::BEGIN).await?;
        let found: HashMap<i64, Row> = sql::rows(&mut tx, ids).await?.into_iter().map(|r| (r.id, r)).collect();
        let mut rows = HashMap::new();
        for (id, chunk) in ids.iter().zip(chunks) {
            if let Some(row) = found.get(id) {
                rows.insert(&chunk.origin.stream, *row);
            } else {
                self.ids.forget(&chunk.origin.stream);
            }
        }
        let plan = dedup::plan(&mut rows, chunks, LONGEST);
        sql::insert(&mut tx, &plan.records).await?;
        sql::insert_gaps(&mut tx, &plan.gaps).await?;
        sql::advance(&mut tx, &plan.moved).await?;
        tx.commit().await?;
        held.give_back();
        Ok(plan.answers)
    }

    async fn store_in_time(&self, ids: &[i64], chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        match self.try_to_store(ids, chunks).await {
            Ok(answers) => answers,
            Err((_, true)) if chunks.len() > 1 => {
                one_by_one(ids, chunks, |id, chunk| Box::pin(self.alone(id, chunk))).await
            }
            Err((error, _)) => vec![Err(error); chunks.len()],
        }
    }

    async fn alone(&self, id: &i64, chunk: &Arc<Chunk>) -> Result<(), SinkError> {
        let answers = self.try_to_store(slice::from_ref(id), slice::from_ref(chunk)).await;
        let answer = answers.map_err(|(error, _)| error)?.pop();
        answer.unwrap_or_else(|| Err(self.late()))
    }

    /// The answers, or the failure and whether it is of a row and not of the database.
    async fn try_to_store(
        &self,
        ids: &[i64],
        chunks: &[Arc<Chunk>],
    ) -> Result<Vec<Result<(), SinkError>>, (SinkError, bool)> {
        match timeout(self.deadline, self.store(ids, chunks)).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) => Err((self.again(&error), is_of_a_row(&error))),
            Err(_) => Err((self.late(), false)),
        }
    }
}

#[async_trait]
impl Sink for SqliteSink {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        Ok(self.open_row(origin, fence).await?.position)
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        let mut ids = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            // Streams are opened before they are written, so this is for rows that retention deleted.
            match self.ids.get(&chunk.origin.stream) {
                Some(id) => ids.push(Ok(id)),
                None => ids.push(self.open_row(&chunk.origin, chunk.fence).await.map(|row| row.id)),
            }
        }
        if ids.iter().all(Result::is_ok) {
            let ids: Vec<i64> = ids.into_iter().flatten().collect();
            return self.store_in_time(&ids, chunks).await;
        }
        let known: Vec<i64> = ids.iter().flatten().copied().collect();
        let some: Vec<Arc<Chunk>> = chunks
            .iter()
            .zip(&ids)
            .filter(|(_, id)| id.is_ok())
            .map(|(c, _)| c.clone())
            .collect();
        let mut stored = self.store_in_time(&known, &some).await.into_iter();
        ids.into_iter()
            .map(|id| id.and_then(|_| stored.next().unwrap_or_else(|| Err(self.late()))))
            .collect()
    }
}

/// A connection that goes back to the pool only when its work was done. Otherwise it is closed, which
/// undoes its transaction: it may still be busy, and whoever got it next would wait.
struct Held(Option<PoolConnection<Sqlite>>);

impl Held {
    fn conn(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            drop(conn.detach());
        }
    }
}
