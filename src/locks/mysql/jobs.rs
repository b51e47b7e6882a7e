//! The statements as jobs: what is bound to them, in which order they run, and what their answers mean.
//!
//! Each job may be run again from its beginning after any failure. None trusts the number of changed rows: what is held
//! is read back.

use std::collections::{HashMap, HashSet};

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Row as _};

use super::super::batch::{Keyed, Packed, PackedRow, pack_renewals, pack_rows};
use super::super::jobs::BoundHolder;
use super::statements as sql;
use crate::db::mysql::errors::is_lock_wait;
use crate::db::session::Job;
use crate::domain::{AcquireRequest, Claim, Fence, Renewal, RenewalOutcome};

/// The statements that differ between the servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variants {
    /// Which rows no other transaction locks.
    unlocked: &'static str,
    /// All rows.
    pub(super) table: &'static str,
}

impl Variants {
    pub(super) fn new(is_mariadb: bool) -> Self {
        let (unlocked, table) = if is_mariadb {
            (sql::UNLOCKED_MARIADB, sql::TABLE_MARIADB)
        } else {
            (sql::UNLOCKED_MYSQL, sql::TABLE_MYSQL)
        };
        Self { unlocked, table }
    }
}

/// Whether another transaction holds one of the rows.
fn is_locked<T>(result: &Result<T, sqlx::Error>) -> bool {
    result.as_ref().is_err_and(is_lock_wait)
}

fn text(row: &MySqlRow, column: &str) -> Result<String, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    String::from_utf8(bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> String {
    pack_rows(keys.into_iter().map(PackedRow::key))
}

/// Locks those of these rows that no other transaction locks, and returns their keys.
async fn lock_available(
    conn: &mut MySqlConnection,
    unlocked: &'static str,
    cluster: &str,
    rows: &str,
) -> Result<HashSet<String>, sqlx::Error> {
    let found = sqlx::query(unlocked)
        .bind(rows)
        .bind(cluster.as_bytes())
        .fetch_all(conn)
        .await?;
    found.iter().map(|row| text(row, "id")).collect()
}

/// Acquires a batch.
pub(super) struct AcquireJob<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) variants: Variants,
    pub(super) requests: &'a [Keyed<'a, AcquireRequest>],
}

impl Job<MySqlConnection> for AcquireJob<'_> {
    type Answer = Vec<Claim>;

    async fn run(&self, conn: &mut MySqlConnection) -> Result<Vec<Claim>, sqlx::Error> {
        let seen = self.read_current(conn).await?;
        let fence = |key: &str| seen.get(key).copied();
        let existing: Vec<_> = self
            .requests
            .iter()
            .filter(|(key, _)| matches!(fence(key), Some((_, true))))
            .collect();
        let absent: Vec<_> = self.requests.iter().filter(|(key, _)| fence(key).is_none()).collect();
        if !existing.is_empty() {
            self.acquire_existing(conn, &existing, &seen).await?;
        }
        if !absent.is_empty() {
            let inserted = self.acquire_absent(conn, &absent).await;
            // Another transaction locks the place of one of the rows. The next call inserts the rest of this batch.
            if !is_locked(&inserted) {
                inserted?;
            }
        }
        let tried = existing
            .into_iter()
            .chain(absent)
            .map(|(key, request)| (key.as_str(), *request));
        self.read_back(conn, &tried.collect(), &seen).await
    }
}

/// Fence and whether it can be acquired, by key.
type CurrentRows = HashMap<String, (u64, bool)>;

impl AcquireJob<'_> {
    async fn read_current(&self, conn: &mut MySqlConnection) -> Result<CurrentRows, sqlx::Error> {
        let rows = sqlx::query(sql::READ_CURRENT)
            .bind(self.holder.replica.as_bytes())
            .bind(self.holder.takeover_grace)
            .bind(keys(self.requests.iter().map(|(key, _)| key.as_str())))
            .bind(self.holder.cluster.as_bytes())
            .fetch_all(conn)
            .await?;
        rows.iter()
            .map(|row| {
                Ok((
                    text(row, "id")?,
                    (row.try_get("fence")?, row.try_get::<i64, _>("acquirable")? == 1),
                ))
            })
            .collect()
    }

    async fn acquire_existing(
        &self,
        conn: &mut MySqlConnection,
        existing: &[&Keyed<'_, AcquireRequest>],
        seen: &CurrentRows,
    ) -> Result<(), sqlx::Error> {
        let all = Self::pack(existing, seen);
        let outcome = self.update(conn, &all).await;
        if !is_locked(&outcome) {
            return outcome;
        }
        let mut transaction = conn.begin().await?;
        let free = lock_available(&mut transaction, self.variants.unlocked, &self.holder.cluster, &all).await?;
        let unlocked: Vec<_> = existing.iter().filter(|(key, _)| free.contains(key)).copied().collect();
        self.update(&mut transaction, &Self::pack(&unlocked, seen)).await?;
        transaction.commit().await
    }

    fn pack<'a>(requests: &[&'a Keyed<'a, AcquireRequest>], seen: &CurrentRows) -> String {
        let fence = |key: &str| seen.get(key).map(|(fence, _)| *fence);
        pack_rows(
            requests
                .iter()
                .map(|(key, request)| PackedRow::acquired(key, request, fence(key))),
        )
    }

    async fn update(&self, conn: &mut MySqlConnection, rows: &str) -> Result<(), sqlx::Error> {
        sqlx::query(sql::ACQUIRE_EXISTING)
            .bind(rows)
            .bind(self.holder.cluster.as_bytes())
            .bind(self.holder.replica.as_bytes())
            .bind(self.holder.ttl)
            .bind(self.holder.replica.as_bytes())
            .bind(self.holder.takeover_grace)
            .execute(conn)
            .await
            .map(drop)
    }

    async fn acquire_absent(
        &self,
        conn: &mut MySqlConnection,
        absent: &[&Keyed<'_, AcquireRequest>],
    ) -> Result<(), sqlx::Error> {
        sqlx::query(sql::ACQUIRE_ABSENT)
            .bind(self.holder.cluster.as_bytes())
            .bind(self.holder.replica.as_bytes())
            .bind(self.holder.ttl)
            .bind(Self::pack(absent, &CurrentRows::new()))
            .execute(conn)
            .await
            .map(drop)
    }

    /// The claims on the tried rows. A row whose fence is not larger than the one that was read is of an earlier claim.
    async fn read_back(
        &self,
        conn: &mut MySqlConnection,
        tried: &HashMap<&str, &AcquireRequest>,
        seen: &CurrentRows,
    ) -> Result<Vec<Claim>, sqlx::Error> {
        if tried.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(sql::ACQUIRED)
            .bind(keys(tried.keys().copied()))
            .bind(self.holder.cluster.as_bytes())
            .bind(self.holder.replica.as_bytes())
            .fetch_all(conn)
            .await?;
        let mut claims = Vec::with_capacity(rows.len());
        for row in &rows {
            let (key, fence): (_, u64) = (text(row, "id")?, row.try_get("fence")?);
            let previous = seen.get(&key).map_or(0, |(fence, _)| *fence);
            if let Some(request) = tried.get(key.as_str()).filter(|_| fence > previous) {
                claims.push(Claim {
                    key: request.key.clone(),
                    fence: Fence(fence),
                    previous: Fence(previous),
                    checkpoint: row.try_get::<Option<Vec<u8>>, _>("checkpoint")?.unwrap_or_default(),
                });
            }
        }
        Ok(claims)
    }
}

/// Renews a batch, of which either all rows or none carry checkpoints.
pub(super) struct RenewJob<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) variants: Variants,
    pub(super) renewals: &'a [Keyed<'a, Renewal>],
    /// When this was sent, by the holder's clock, in microseconds.
    pub(super) sent: u64,
}

impl Job<MySqlConnection> for RenewJob<'_> {
    type Answer = Vec<RenewalOutcome>;

    async fn run(&self, conn: &mut MySqlConnection) -> Result<Vec<RenewalOutcome>, sqlx::Error> {
        let all = pack_renewals(self.renewals);
        let updated = self.update(conn, &all).await;
        let mut extended = None;
        if is_locked(&updated) {
            extended = Some(self.update_unlocked(conn, &all.rows).await?);
        } else {
            updated?;
        }
        let found = sqlx::query(sql::HELD)
            .bind(keys(self.renewals.iter().map(|(key, _)| key.as_str())))
            .bind(self.holder.cluster.as_bytes())
            .bind(self.holder.replica.as_bytes())
            .fetch_all(conn)
            .await?;
        let held = found.iter().map(|row| Ok((text(row, "id")?, row.try_get("fence")?)));
        let held: HashSet<(String, u64)> = held.collect::<Result<_, sqlx::Error>>()?;
        let outcome = |(key, renewal): &Keyed<'_, Renewal>| {
            if !held.contains(&(key.clone(), renewal.fence.0)) {
                RenewalOutcome::Lost
            } else if extended.as_ref().is_some_and(|extended| !extended.contains(key)) {
                RenewalOutcome::Busy
            } else {
                RenewalOutcome::Held
            }
        };
        Ok(self.renewals.iter().map(outcome).collect())
    }
}

impl RenewJob<'_> {
    async fn update(&self, conn: &mut MySqlConnection, batch: &Packed) -> Result<(), sqlx::Error> {
        let stores = self.renewals.iter().any(|(_, renewal)| renewal.checkpoint.is_some());
        let mut query = sqlx::query(if stores { sql::RENEW_AND_STORE } else { sql::RENEW })
            .bind(&batch.rows)
            .bind(self.holder.cluster.as_bytes())
            .bind(self.holder.ttl)
            .bind(self.sent);
        if stores {
            query = query.bind(&batch.blob);
        }
        query
            .bind(self.holder.replica.as_bytes())
            .bind(self.sent)
            .execute(conn)
            .await
            .map(drop)
    }

    /// Renews all but the rows that another transaction locks, and returns which it renewed.
    async fn update_unlocked(&self, conn: &mut MySqlConnection, rows: &str) -> Result<HashSet<String>, sqlx::Error> {
        let mut transaction = conn.begin().await?;
        let available = lock_available(&mut transaction, self.variants.unlocked, &self.holder.cluster, rows).await?;
        let some = pack_renewals(self.renewals.iter().filter(|(key, _)| available.contains(key)));
        self.update(&mut transaction, &some).await?;
        transaction.commit().await?;
        Ok(available)
    }
}

/// Reads the table.
pub(super) struct TableJob<'a> {
    pub(super) text: &'static str,
    pub(super) cluster: &'a str,
}

impl Job<MySqlConnection> for TableJob<'_> {
    type Answer = Vec<MySqlRow>;

    async fn run(&self, conn: &mut MySqlConnection) -> Result<Vec<MySqlRow>, sqlx::Error> {
        sqlx::query(self.text)
            .bind(self.cluster.as_bytes())
            .fetch_all(conn)
            .await
    }
}
