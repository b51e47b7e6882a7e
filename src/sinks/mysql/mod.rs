//! Records in MySQL or MariaDB, exactly once: rows and the stream's position in one transaction,
//! checked against the claim's number.
//!
//! Every call has a deadline. A connection whose call failed or was given up is closed and never used
//! again. What to store is decided in [`dedup`](super::dedup); the statements are in `sql`.

mod diagnose;
mod fault;
mod purge;
mod rights;
mod server;
mod sql;

use std::collections::HashMap;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Executor, MySql, MySqlConnection, MySqlPool};
use tokio::time::timeout;

use self::server::Server;
use self::sql::Sizes;
use super::dedup::{self, Row};
use super::schema;
use super::sql::{Ids, is_of_a_row, one_by_one};
use super::{Sink, SinkError, SinkOpenError};
use crate::domain::{Chunk, Fence, Origin, Position};
pub(super) use diagnose::diagnose;
pub(super) use fault::refusal;

/// Requests under way at the same time; with one more connection for streams being opened and one
/// for retention the pool has five.
pub(super) const IN_FLIGHT: usize = 3;
pub(super) const CONNECTIONS: u32 = IN_FLIGHT as u32 + 2;

/// A server drops a connection, and with it an open transaction and its row locks, when nothing has come for two
/// tries and this: a replica that is frozen in the middle of a write would keep its heir from the streams for hours.
/// With tries of 5 s that is 15 s, sooner than its claims can be taken (20 s ttl - 5 s renewal + 1 s grace = 16 s).
const SILENCE: Duration = Duration::from_secs(5);

/// How long connecting may take when the program starts.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// A MEDIUMBLOB holds 2^24 - 1 bytes.
const LONGEST: usize = (1 << 24) - 1;
/// Of a packet, what a statement needs beside one message.
const PACKET_REST: usize = 4096;

/// The sink.
#[derive(Debug)]
pub(super) struct MySqlSink {
    pool: MySqlPool,
    /// The server and database, for messages; no password.
    name: Arc<str>,
    deadline: Duration,
    ids: Ids,
    /// `None` after a failure: what the server allows may have changed.
    sizes: Mutex<Option<Sizes>>,
}

impl MySqlSink {
    /// Connects, checks the schema and answers what is wrong in plain words.
    pub(super) async fn connect(
        options: MySqlConnectOptions,
        name: Arc<str>,
        deadline: Duration,
    ) -> Result<Self, SinkOpenError> {
        // Outside the pool first, which would hide the true error.
        let first = async {
            let mut conn = MySqlConnection::connect_with(&options).await?;
            prepare(&mut conn, deadline).await?;
            let state = schema::mysql_state(&mut conn).await?;
            let server = Server::ask(&mut conn).await?;
            let sizes = sql::sizes(&mut conn).await?;
            Ok((conn, server, state, sizes))
        };
        let (mut conn, server, state, sizes) = match timeout(CONNECT, first).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(refusal(&name, &error)),
            Err(_) => return Err(unanswered(&name)),
        };
        server.check(&name)?;
        schema::check(&name, state)?;
        let rights = async {
            rights::try_all(&mut conn).await?;
            conn.close().await
        };
        match timeout(CONNECT, rights).await {
            Ok(tried) => tried.map_err(|error| refusal(&name, &error))?,
            Err(_) => return Err(unanswered(&name)),
        }
        let pool = MySqlPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(deadline)
            // Looked at once in this time, so idle connections go before the server drops them.
            .idle_timeout(deadline)
            .after_connect(move |conn, _| Box::pin(prepare(conn, deadline)))
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            name,
            deadline,
            ids: Ids::default(),
            sizes: Mutex::new(Some(sizes)),
        })
    }

    fn known_sizes(&self) -> std::sync::MutexGuard<'_, Option<Sizes>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn held(&self) -> Result<Held, sqlx::Error> {
        Ok(Held(Some(self.pool.acquire().await?)))
    }

    /// Turns a failure into an answer. What the server allows may have changed, so it is asked again.
    fn again(&self, error: &sqlx::Error) -> SinkError {
        *self.known_sizes() = None;
        SinkError::Again {
            after: None,
            why: format!("mysql {}: {}", self.name, fault::cause(error)).into(),
        }
    }

    fn late(&self) -> SinkError {
        let why = format!(
            "mysql {} did not answer within {:?}; it is slow or unreachable",
            self.name, self.deadline
        );
        SinkError::Again {
            after: None,
            why: why.into(),
        }
    }

    async fn open_row(&self, origin: &Origin, fence: Fence) -> Result<Row, SinkError> {
        let work = async {
            let mut held = self.held().await?;
            let row = sql::open(held.conn()?, origin, fence).await?;
            held.give_back();
            Ok(row)
        };
        let row = match timeout(self.deadline, work).await {
            Ok(Ok(row)) => row?,
            Ok(Err(error)) if fault::too_long(&error) => {
                return Err(SinkError::Rejected(
                    format!("a name is too long for its column: {error}").into(),
                ));
            }
            Ok(Err(error)) => return Err(self.again(&error)),
            Err(_) => return Err(self.late()),
        };
        self.ids.set(&origin.stream, row.id);
        Ok(row)
    }

    /// One transaction for all chunks whose ids are given.
    async fn store(&self, ids: &[i64], chunks: &[Arc<Chunk>]) -> Result<Vec<Result<(), SinkError>>, sqlx::Error> {
        let mut held = self.held().await?;
        let conn = held.conn()?;
        let known = *self.known_sizes();
        let sizes = match known {
            Some(sizes) => sizes,
            None => sql::sizes(conn).await?,
        };
        *self.known_sizes() = Some(sizes);
        let mut tx = conn.begin().await?;
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let locked = sql::lock(&mut tx, &sorted).await?.into_iter();
        let found: HashMap<i64, sql::Locked> = locked.map(|row| (row.id, row)).collect();
        let mut rows = HashMap::new();
        for (id, chunk) in ids.iter().zip(chunks) {
            let stream = &chunk.origin.stream;
            if let Some(row) = found.get(id).and_then(|row| row.of(stream)) {
                rows.insert(stream, row);
            } else {
                self.ids.forget(stream);
            }
        }
        let longest = sizes.packet.saturating_sub(PACKET_REST).min(LONGEST);
        let plan = dedup::plan(&mut rows, chunks, longest);
        sql::insert(&mut tx, &plan.records, sizes.statement).await?;
        sql::insert_gaps(&mut tx, &plan.gaps).await?;
        sql::advance(&mut tx, &plan.moved).await?;
        tx.commit().await?;
        held.give_back();
        Ok(plan.answers)
    }
}

#[async_trait]
impl Sink for MySqlSink {
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

impl MySqlSink {
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

fn unanswered(name: &str) -> SinkOpenError {
    SinkOpenError::unavailable(
        format!("mysql {name} did not answer within {CONNECT:?}"),
        "check the address and the network",
    )
}

async fn prepare(conn: &mut MySqlConnection, deadline: Duration) -> Result<(), sqlx::Error> {
    for statement in sql::SESSION {
        conn.execute(statement).await?;
    }
    sql::limit_silence(conn, deadline * 2 + SILENCE).await
}

/// A connection that goes back to the pool only when its work was done. Otherwise it is closed at
/// once: the server may still be busy with it, and whoever got it next would wait.
struct Held(Option<PoolConnection<MySql>>);

impl Held {
    fn conn(&mut self) -> Result<&mut MySqlConnection, sqlx::Error> {
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
