//! The statements as jobs: what is bound to them, in which transaction they run, and what their answers mean.
//!
//! Every job that writes takes the file's write lock with its first statement, so none fails
//! half-way because another process wrote in between.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row as _, Sqlite};

use super::super::batch::{Keyed, PackedRow, pack_renewals, pack_rows};
use super::super::jobs::BoundHolder;
use super::statements as sql;
use crate::db::session::Job;
use crate::db::sqlite::BEGIN;
use crate::db::statement::{Execute as _, Value};
use crate::domain::{AcquireRequest, Claim, Fence, LockKey, Renewal, RenewalOutcome};

fn fence_of(row: &SqliteRow, column: &str) -> Result<Fence, sqlx::Error> {
    Ok(Fence(row.try_get::<i64, _>(column)?.unsigned_abs()))
}

/// Draws a fence: it and the time, in microseconds.
async fn draw(conn: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query(sql::DRAW).fetch_one(conn).await?;
    Ok((row.try_get("fence")?, row.try_get("now")?))
}

/// Acquires a batch.
pub(super) struct AcquireJob<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) requests: &'a [Keyed<'a, AcquireRequest>],
}

impl Job<SqliteConnection> for AcquireJob<'_> {
    type Answer = Vec<Claim>;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<Vec<Claim>, sqlx::Error> {
        // Reads first, so that polling replicas do not queue for the write lock.
        let free = self.acquirable(conn).await?;
        if free.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = conn.begin_with(BEGIN).await?;
        let (fence, now) = draw(&mut transaction).await?;
        let free = self.acquirable(&mut transaction).await?;
        let chosen = self.requests.iter().filter(|(key, _)| free.contains_key(key.as_str()));
        let chosen = pack_rows(chosen.map(|(key, request)| PackedRow::acquired(key, request, None)));
        let rows = sqlx::query(sql::ACQUIRE)
            .bind(chosen)
            .bind(&self.holder.cluster)
            .bind(&self.holder.replica)
            .bind(fence)
            .bind(now)
            .bind(self.holder.ttl)
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let mut claims = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: String = row.try_get("id")?;
            if let Some((key, previous)) = free.get(id.as_str()) {
                claims.push(Claim {
                    key: (*key).clone(),
                    fence: Fence(fence.unsigned_abs()),
                    previous: *previous,
                    checkpoint: row.try_get::<Option<Vec<u8>>, _>("checkpoint")?.unwrap_or_default(),
                });
            }
        }
        Ok(claims)
    }
}

impl AcquireJob<'_> {
    /// The rows that can be acquired, with their present fences.
    async fn acquirable(&self, conn: &mut SqliteConnection) -> Result<HashMap<&str, (&LockKey, Fence)>, sqlx::Error> {
        let keys = pack_rows(self.requests.iter().map(|(key, _)| PackedRow::key(key)));
        let rows = sqlx::query(sql::READ_CURRENT)
            .bind(keys)
            .bind(&self.holder.cluster)
            .bind(&self.holder.replica)
            .bind(self.holder.takeover_grace)
            .fetch_all(conn)
            .await?;
        let mut free: HashMap<_, _> = self
            .requests
            .iter()
            .map(|(key, request)| (key.as_str(), (&request.key, Fence(0))))
            .collect();
        for row in &rows {
            let id: String = row.try_get("id")?;
            if row.try_get::<i64, _>("acquirable")? == 1 {
                if let Some((_, fence)) = free.get_mut(id.as_str()) {
                    *fence = fence_of(row, "fence")?;
                }
            } else {
                free.remove(id.as_str());
            }
        }
        Ok(free)
    }
}

/// Renews a batch.
pub(super) struct RenewJob<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) renewals: &'a [Keyed<'a, Renewal>],
}

impl Job<SqliteConnection> for RenewJob<'_> {
    type Answer = Vec<RenewalOutcome>;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<Vec<RenewalOutcome>, sqlx::Error> {
        let batch = pack_renewals(self.renewals);
        let rows = sqlx::query(sql::RENEW)
            .bind(batch.rows)
            .bind(&self.holder.cluster)
            .bind(&self.holder.replica)
            .bind(self.holder.ttl)
            .bind(batch.blob)
            .fetch_all(conn)
            .await?;
        let held = rows.iter().map(|row| Ok((row.try_get("id")?, fence_of(row, "fence")?)));
        let held: HashSet<(String, Fence)> = held.collect::<Result<_, sqlx::Error>>()?;
        let outcome = |(key, renewal): &Keyed<'_, Renewal>| {
            if held.contains(&(key.clone(), renewal.fence)) {
                RenewalOutcome::Held
            } else {
                RenewalOutcome::Lost
            }
        };
        Ok(self.renewals.iter().map(outcome).collect())
    }
}

/// Executes one statement whose first two parameters are a new fence and the time. Returns the number of rows that it
/// has changed.
pub(super) struct FencedWriteJob<'a> {
    pub(super) text: &'static str,
    pub(super) values: &'a [Value<'a>],
}

impl Job<SqliteConnection> for FencedWriteJob<'_> {
    type Answer = u64;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let mut transaction = conn.begin_with(BEGIN).await?;
        let (fence, now) = draw(&mut transaction).await?;
        let drawn = [fence.into(), now.into()].into_iter();
        let arguments = Sqlite::arguments(drawn.chain(self.values.iter().copied()))?;
        let changed = Sqlite::execute(&mut transaction, self.text, arguments).await?;
        transaction.commit().await?;
        Ok(changed)
    }
}

/// Reads the table.
pub(super) struct TableJob<'a> {
    pub(super) cluster: &'a str,
}

impl Job<SqliteConnection> for TableJob<'_> {
    type Answer = Vec<SqliteRow>;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<Vec<SqliteRow>, sqlx::Error> {
        sqlx::query(sql::TABLE).bind(self.cluster).fetch_all(conn).await
    }
}
