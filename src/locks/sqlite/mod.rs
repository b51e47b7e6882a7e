//! Claims in an `SQLite` file: the embedded default, for replicas on one machine.
//!
//! Several processes share the file. Never put it on a network file system: its locks are not
//! reliable there. Times are the database's; one fence is given out per transaction.

mod jobs;
mod statements;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite};

use self::jobs::{Acquire, Ask, BoundHolder, DeleteRows, ForceRelease, Read, Refuse, Release as ReleaseJob, Renew};
use self::statements as sql;
pub(super) use self::statements::{PRIVILEGES, PROBE};
use super::batch::{ROWS, STORED_ROWS, check_checkpoint, check_name, cut, sorted};
use super::store::{Holder, LockStore, STATEMENT_DEADLINE};
use crate::db::backend::{Backend, Database};
use crate::db::open::open;
use crate::db::session::Session;
use crate::domain::{
    AcquireRequest, BackendError, Claim, Fence, LockKey, LockRow, LockTable, PodRef, Release, Renewal, RenewalOutcome,
};

/// How long a statement waits for another process's transaction: less than the statement deadline of 3 s.
const BUSY: Duration = Duration::from_secs(2);

/// The lock store of one holder in a file. One connection; calls queue.
#[derive(Debug)]
pub(super) struct SqliteLocks {
    session: Session<Sqlite>,
    holder: BoundHolder,
}

impl SqliteLocks {
    /// Opens the file and checks its tables.
    pub(super) async fn open(db: Database<Sqlite>, holder: Holder) -> Result<Self, BackendError> {
        let (conn, ()) = open(&db, &BUSY).await?;
        Ok(Self {
            session: Session::new(db, BUSY, STATEMENT_DEADLINE, conn),
            holder: BoundHolder::new(&holder),
        })
    }
}

#[async_trait]
impl LockStore for SqliteLocks {
    async fn acquire(&self, requests: &[AcquireRequest]) -> Result<Vec<Claim>, BackendError> {
        let mut sorted = sorted(requests, |request| &request.key)?;
        sorted.dedup_by(|a, b| a.0 == b.0);
        let mut claims = Vec::new();
        for requests in cut(&sorted, ROWS, |_| 0) {
            claims.extend(
                self.session
                    .run(&Acquire {
                        holder: &self.holder,
                        requests,
                    })
                    .await?,
            );
        }
        Ok(claims)
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError> {
        for renewal in renewals {
            check_checkpoint(&renewal.key, renewal.checkpoint.as_deref())?;
        }
        let sorted = sorted(renewals, |renewal| &renewal.key)?;
        let mut held = HashSet::with_capacity(renewals.len());
        for renewals in cut(&sorted, STORED_ROWS, |renewal| {
            renewal.checkpoint.as_ref().map_or(0, Vec::len)
        }) {
            held.extend(
                self.session
                    .run(&Renew {
                        holder: &self.holder,
                        renewals,
                    })
                    .await?,
            );
        }
        let outcome = |renewal: &Renewal| {
            let is_held = held.contains(&(renewal.key.to_string(), renewal.fence));
            if is_held {
                RenewalOutcome::Held
            } else {
                RenewalOutcome::Lost
            }
        };
        Ok(renewals.iter().map(outcome).collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), BackendError> {
        for release in releases {
            check_checkpoint(&release.claim.key, release.checkpoint.as_deref())?;
        }
        let sorted = sorted(releases, |release| &release.claim.key)?;
        for releases in cut(&sorted, STORED_ROWS, |release| {
            release.checkpoint.as_ref().map_or(0, Vec::len)
        }) {
            self.session
                .run(&ReleaseJob {
                    holder: &self.holder,
                    releases,
                })
                .await?;
        }
        Ok(())
    }

    async fn request_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        let sorted = sorted(rows, |(key, _)| key)?;
        for rows in cut(&sorted, ROWS, |_| 0) {
            self.session
                .run(&Ask {
                    holder: &self.holder,
                    rows,
                })
                .await?;
        }
        Ok(())
    }

    async fn decline_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        let sorted = sorted(rows, |(key, _)| key)?;
        for rows in cut(&sorted, ROWS, |_| 0) {
            self.session
                .run(&Refuse {
                    holder: &self.holder,
                    rows,
                })
                .await?;
        }
        Ok(())
    }

    async fn delete_rows(&self, keys: &[LockKey]) -> Result<u64, BackendError> {
        let sorted = sorted(keys, |key| key)?;
        let mut gone = 0;
        for keys in cut(&sorted, ROWS, |_| 0) {
            gone += self
                .session
                .run(&DeleteRows {
                    holder: &self.holder,
                    keys,
                })
                .await?;
        }
        Ok(gone)
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.to_string();
        check_name("lock key", &key)?;
        self.session
            .run(&ForceRelease {
                holder: &self.holder,
                key: &key,
            })
            .await
    }

    async fn table(&self) -> Result<LockTable, BackendError> {
        let rows = self
            .session
            .run(&Read {
                text: sql::TABLE,
                cluster: &self.holder.cluster,
            })
            .await?;
        let mut table = table_of(&rows).map_err(|error| Sqlite::explain(self.session.database(), &error))?;
        table.server = self.session.database().location.display().to_string().into();
        Ok(table)
    }
}

/// Text as far as it is text: anybody may have written the row, and one that is no UTF-8 must not hide the others.
fn text(row: &SqliteRow, column: &str) -> Result<Option<String>, sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get_unchecked(column)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn table_of(rows: &[SqliteRow]) -> Result<LockTable, sqlx::Error> {
    let mut table = LockTable::default();
    for row in rows {
        let now: i64 = row.try_get("now")?;
        table.now = Duration::from_micros(now.unsigned_abs());
        let Some(id) = text(row, "id")? else {
            continue; // The line that is there when the table is empty.
        };
        // Rows that podlog did not write are ignored.
        let Some(key) = LockKey::parse(&id) else { continue };
        let pod_ref = PodRef {
            namespace: text(row, "namespace")?.unwrap_or_default().into(),
            pod: text(row, "pod")?.unwrap_or_default().into(),
            node: text(row, "node")?.unwrap_or_default().into(),
        };
        let seen = LockRow {
            owner: text(row, "owner")?.map(Into::into),
            fence: Fence(row.try_get::<i64, _>("fence")?.unsigned_abs()),
            expires_in: row
                .try_get::<i64, _>("expires_at")?
                .saturating_sub(now)
                .div_euclid(1000),
            finished: row.try_get::<i64, _>("state")? == 2,
            requested_by: text(row, "wanted_by")?.map(Into::into),
            pod_ref,
            checkpoint_len: row.try_get::<Option<i64>, _>("checkpoint_len")?.unwrap_or(0) as u32,
        };
        table.rows.insert(key, seen);
    }
    Ok(table)
}
