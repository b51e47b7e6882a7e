//! Claims in an `SQLite` file: the embedded default, for replicas on one machine.
//!
//! Several processes share the file. Never put it on a network file system: its locks are not
//! reliable there. Times are the database's; one fence is given out per transaction.

mod diagnose;
mod jobs;
mod session;
mod statements;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

pub(super) use self::diagnose::diagnose;
use self::jobs::{
    Acquire, Ask, Evict, Forget, Me, Migrate, Read, Refuse, Release as ReleaseJob, Renew, Touch, Version,
};
use self::session::{Session, explain};
use self::statements as sql;
use super::batch::{ROWS, STORED_ROWS, check_checkpoint, check_name, cut, sorted};
use super::{Holder, LockError, LockStore, schema};
use crate::domain::{About, Claim, Fence, LockKey, LockRow, LockTable, Release, Renewal, Verdict, Want};

/// How long a migration may take, waiting for those of other processes included.
const MIGRATION: Duration = Duration::from_secs(30);

/// The lock store of one holder in a file. One connection; calls queue.
#[derive(Debug)]
pub(super) struct SqliteLocks {
    session: Session,
    me: Me,
}

impl SqliteLocks {
    /// Opens the file and checks its tables.
    pub(super) async fn open(path: &Path, holder: Holder) -> Result<Self, LockError> {
        let session = Session::open(path, false).await?;
        let standing = session.run(&Version).await?;
        schema::check(&format!("the lock file {}", path.display()), standing)?;
        session.run(&Touch).await?;
        Ok(Self {
            session,
            me: Me::new(&holder),
        })
    }
}

/// Makes the tables, and the file if need be.
pub(super) async fn migrate(path: &Path) -> Result<(), LockError> {
    let session = Session::open(path, true).await?;
    let name = format!("the lock file {}", path.display());
    let migrated = session.run_for(&Migrate, MIGRATION).await;
    session.close().await;
    migrated?.map_err(|error| schema::failed(&name, error, |error| explain(path, error)))
}

#[async_trait]
impl LockStore for SqliteLocks {
    async fn acquire(&self, wants: &[Want]) -> Result<Vec<Claim>, LockError> {
        let mut sorted = sorted(wants, |want| &want.key)?;
        sorted.dedup_by(|a, b| a.0 == b.0);
        let mut claims = Vec::new();
        for wants in cut(&sorted, ROWS, |_| 0) {
            claims.extend(self.session.run(&Acquire { me: &self.me, wants }).await?);
        }
        Ok(claims)
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Verdict>, LockError> {
        for renewal in renewals {
            check_checkpoint(&renewal.key, renewal.checkpoint.as_deref())?;
        }
        let sorted = sorted(renewals, |renewal| &renewal.key)?;
        let mut held = HashSet::with_capacity(renewals.len());
        for renewals in cut(&sorted, STORED_ROWS, |renewal| {
            renewal.checkpoint.as_ref().map_or(0, Vec::len)
        }) {
            held.extend(self.session.run(&Renew { me: &self.me, renewals }).await?);
        }
        let verdict = |renewal: &Renewal| {
            let is_held = held.contains(&(renewal.key.to_string(), renewal.fence));
            if is_held { Verdict::Held } else { Verdict::Lost }
        };
        Ok(renewals.iter().map(verdict).collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), LockError> {
        for release in releases {
            check_checkpoint(&release.claim.key, release.checkpoint.as_deref())?;
        }
        let sorted = sorted(releases, |release| &release.claim.key)?;
        for releases in cut(&sorted, STORED_ROWS, |release| {
            release.checkpoint.as_ref().map_or(0, Vec::len)
        }) {
            self.session.run(&ReleaseJob { me: &self.me, releases }).await?;
        }
        Ok(())
    }

    async fn ask(&self, rows: &[(LockKey, Fence)]) -> Result<(), LockError> {
        let sorted = sorted(rows, |(key, _)| key)?;
        for rows in cut(&sorted, ROWS, |_| 0) {
            self.session.run(&Ask { me: &self.me, rows }).await?;
        }
        Ok(())
    }

    async fn refuse(&self, rows: &[(LockKey, Fence)]) -> Result<(), LockError> {
        let sorted = sorted(rows, |(key, _)| key)?;
        for rows in cut(&sorted, ROWS, |_| 0) {
            self.session.run(&Refuse { me: &self.me, rows }).await?;
        }
        Ok(())
    }

    async fn forget(&self, keys: &[LockKey]) -> Result<u64, LockError> {
        let sorted = sorted(keys, |key| key)?;
        let mut gone = 0;
        for keys in cut(&sorted, ROWS, |_| 0) {
            gone += self.session.run(&Forget { me: &self.me, keys }).await?;
        }
        Ok(gone)
    }

    async fn evict(&self, key: &LockKey) -> Result<bool, LockError> {
        let key = key.to_string();
        check_name("lock key", &key)?;
        self.session
            .run(&Evict {
                me: &self.me,
                key: &key,
            })
            .await
    }

    async fn table(&self) -> Result<LockTable, LockError> {
        let rows = self
            .session
            .run(&Read {
                text: sql::TABLE,
                cluster: &self.me.cluster,
            })
            .await?;
        let path = self.session.path();
        let mut table = table_of(&rows).map_err(|error| explain(path, &error))?;
        table.server = path.display().to_string().into();
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
        // A row that podlog did not write is nobody's business here.
        let Some(key) = LockKey::parse(&id) else { continue };
        let about = About {
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
            wanted_by: text(row, "wanted_by")?.map(Into::into),
            about,
            checkpoint_len: row.try_get::<Option<i64>, _>("checkpoint_len")?.unwrap_or(0) as u32,
        };
        table.rows.insert(key, seen);
    }
    Ok(table)
}
