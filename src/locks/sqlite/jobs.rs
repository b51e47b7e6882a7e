//! The statements as jobs: what is bound to them, in which transaction they run, and what their answers mean.
//!
//! Every job that writes takes the file's write lock with its first statement, so none can fail
//! half-way because another process wrote in between.

use std::collections::HashMap;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row as _};

use super::super::batch::{Keyed, Packed, Row, pack, readable};
use super::super::store::{DEAD_REPLICA_TTL, Holder};
use super::statements as sql;
use crate::db::session::Job;
use crate::db::sqlite::BEGIN;
use crate::domain::claim::FORCE_RELEASED;
use crate::domain::{AcquireRequest, AfterRelease, Claim, Fence, LockKey, Renewal};

/// Whose statements they are, as they are bound.
#[derive(Clone, Debug)]
pub(super) struct BoundHolder {
    pub(super) replica: String,
    pub(super) cluster: String,
    /// Microseconds.
    ttl: i64,
    /// Microseconds.
    takeover_grace: i64,
}

impl BoundHolder {
    pub(super) fn new(holder: &Holder) -> Self {
        let micros = |time: std::time::Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Self {
            replica: holder.replica.to_string(),
            cluster: holder.cluster.clone(),
            ttl: micros(holder.ttl),
            takeover_grace: micros(holder.takeover_grace),
        }
    }
}

fn fence_of(row: &SqliteRow, column: &str) -> Result<Fence, sqlx::Error> {
    Ok(Fence(row.try_get::<i64, _>(column)?.unsigned_abs()))
}

fn fenced(key: &str, fence: Fence) -> Row<'_> {
    Row {
        fence: Some(fence.0),
        ..Row::key(key)
    }
}

/// Draws a fence: it and the time, in microseconds.
async fn draw(conn: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query(sql::DRAW).fetch_one(conn).await?;
    Ok((row.try_get("fence")?, row.try_get("now")?))
}

/// Claims a batch.
pub(super) struct Acquire<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) requests: &'a [Keyed<'a, AcquireRequest>],
}

impl Job<SqliteConnection> for Acquire<'_> {
    type Answer = Vec<Claim>;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<Vec<Claim>, sqlx::Error> {
        // Looks first, so that polling replicas do not queue for the write lock.
        let free = self.acquirable(conn).await?;
        if free.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = conn.begin_with(BEGIN).await?;
        let (fence, now) = draw(&mut transaction).await?;
        let free = self.acquirable(&mut transaction).await?;
        let chosen = self.requests.iter().filter(|(key, _)| free.contains_key(key.as_str()));
        let rows = sqlx::query(sql::ACQUIRE)
            .bind(wanted(chosen))
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

impl Acquire<'_> {
    /// The rows that can be claimed, with their present fences.
    async fn acquirable(&self, conn: &mut SqliteConnection) -> Result<HashMap<&str, (&LockKey, Fence)>, sqlx::Error> {
        let keys = pack(self.requests.iter().map(|(key, _)| (Row::key(key), None)));
        let rows = sqlx::query(sql::READ_CURRENT)
            .bind(keys.rows)
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

fn wanted<'a>(requests: impl Iterator<Item = &'a Keyed<'a, AcquireRequest>>) -> String {
    let row = |(key, request): &'a Keyed<'a, AcquireRequest>| {
        let row = Row {
            namespace: Some(readable(&request.pod_ref.namespace)),
            pod: Some(readable(&request.pod_ref.pod)),
            node: Some(readable(&request.pod_ref.node)),
            ..Row::key(key)
        };
        (row, None)
    };
    pack(requests.map(row)).rows
}

/// Renews a batch; answers what is held.
pub(super) struct Renew<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) renewals: &'a [Keyed<'a, Renewal>],
}

impl Job<SqliteConnection> for Renew<'_> {
    type Answer = Vec<(String, Fence)>;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<Self::Answer, sqlx::Error> {
        let batch = pack(
            self.renewals
                .iter()
                .map(|(key, renewal)| (fenced(key, renewal.fence), renewal.checkpoint.as_deref())),
        );
        let rows = sqlx::query(sql::RENEW)
            .bind(batch.rows)
            .bind(&self.holder.cluster)
            .bind(&self.holder.replica)
            .bind(self.holder.ttl)
            .bind(batch.blob)
            .fetch_all(conn)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("id")?, fence_of(row, "fence")?)))
            .collect()
    }
}

/// Gives a batch back.
pub(super) struct Release<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) releases: &'a [Keyed<'a, crate::domain::Release>],
}

impl Job<SqliteConnection> for Release<'_> {
    type Answer = ();

    async fn run(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let (kept, gone) = self.pack();
        let mut transaction = conn.begin_with(BEGIN).await?;
        let (fence, now) = draw(&mut transaction).await?;
        sqlx::query(sql::RELEASE)
            .bind(kept.rows)
            .bind(&self.holder.cluster)
            .bind(&self.holder.replica)
            .bind(kept.blob)
            .bind(fence)
            .bind(now)
            .bind(self.holder.ttl)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(sql::RELEASE_AND_DELETE)
            .bind(gone.rows)
            .bind(&self.holder.cluster)
            .bind(&self.holder.replica)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

impl Release<'_> {
    /// Those whose rows stay, and those whose rows go.
    fn pack(&self) -> (Packed, Packed) {
        let (gone, kept): (Vec<_>, Vec<_>) = self
            .releases
            .iter()
            .partition(|(_, release)| release.after == AfterRelease::Deleted);
        let kept = kept.iter().map(|(key, release)| {
            let (receiver, state) = match &release.after {
                AfterRelease::Handed(receiver) => (Some(receiver.as_str()), None),
                AfterRelease::Finished => (None, Some(2)),
                AfterRelease::Free | AfterRelease::Deleted => (None, None),
            };
            let row = Row {
                receiver,
                state,
                ..fenced(key, release.claim.fence)
            };
            (row, release.checkpoint.as_deref())
        });
        let gone = gone
            .iter()
            .map(|(key, release)| (fenced(key, release.claim.fence), None));
        (pack(kept), pack(gone))
    }
}

/// Asks for rows.
pub(super) struct Ask<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) rows: &'a [Keyed<'a, (LockKey, Fence)>],
}

impl Job<SqliteConnection> for Ask<'_> {
    type Answer = ();

    async fn run(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        write_fenced(conn, sql::REQUEST_HANDOVER, self.holder, self.rows).await
    }
}

/// Takes requests back.
pub(super) struct Refuse<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) rows: &'a [Keyed<'a, (LockKey, Fence)>],
}

impl Job<SqliteConnection> for Refuse<'_> {
    type Answer = ();

    async fn run(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        write_fenced(conn, sql::DECLINE_HANDOVER, self.holder, self.rows).await
    }
}

async fn write_fenced(
    conn: &mut SqliteConnection,
    text: &'static str,
    holder: &BoundHolder,
    rows: &[Keyed<'_, (LockKey, Fence)>],
) -> Result<(), sqlx::Error> {
    let batch = pack(rows.iter().map(|(key, (_, fence))| (fenced(key, *fence), None)));
    let query = sqlx::query(text)
        .bind(batch.rows)
        .bind(&holder.cluster)
        .bind(&holder.replica);
    query.execute(conn).await.map(drop)
}

/// Deletes rows that nobody needs.
pub(super) struct DeleteRows<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) keys: &'a [Keyed<'a, LockKey>],
}

impl Job<SqliteConnection> for DeleteRows<'_> {
    type Answer = u64;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let batch = pack(self.keys.iter().map(|(key, _)| (Row::key(key), None)));
        let dead = DEAD_REPLICA_TTL.as_micros() as i64;
        let query = sqlx::query(sql::DELETE_ROWS)
            .bind(batch.rows)
            .bind(&self.holder.cluster)
            .bind(dead);
        Ok(query.execute(conn).await?.rows_affected())
    }
}

/// Takes a row from its holder; answers whether it was there.
pub(super) struct ForceRelease<'a> {
    pub(super) holder: &'a BoundHolder,
    pub(super) key: &'a str,
}

impl Job<SqliteConnection> for ForceRelease<'_> {
    type Answer = bool;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let mut transaction = conn.begin_with(BEGIN).await?;
        let (fence, now) = draw(&mut transaction).await?;
        let query = sqlx::query(sql::FORCE_RELEASE)
            .bind(&self.holder.cluster)
            .bind(self.key)
            .bind(fence)
            .bind(now)
            .bind(FORCE_RELEASED);
        let done = query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }
}

/// Reads the rows of a query.
pub(super) struct Read<'a> {
    pub(super) text: &'static str,
    pub(super) cluster: &'a str,
}

impl Job<SqliteConnection> for Read<'_> {
    type Answer = Vec<SqliteRow>;

    async fn run(&self, conn: &mut SqliteConnection) -> Result<Vec<SqliteRow>, sqlx::Error> {
        sqlx::query(self.text).bind(self.cluster).fetch_all(conn).await
    }
}
