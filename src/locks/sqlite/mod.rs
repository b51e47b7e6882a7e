//! Claims in an `SQLite` file: the embedded default, for replicas on one machine.
//!
//! Several processes share the file. Never put it on a network file system: its locks are not
//! reliable there. Times are the database's; one fence is given out per transaction.

mod jobs;
mod statements;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite};

use self::jobs::{AcquireJob, FencedWriteJob, RenewJob, TableJob};
use self::statements as sql;
pub(super) use self::statements::{PRIVILEGES, PROBE};
use super::batch::{Keyed, Packed};
use super::batched_store::{BatchStore, RowOperation};
use super::jobs::{BoundHolder, WriteJob};
use super::store::{DEAD_REPLICA_TTL, Holder, STATE_FINISHED, STATEMENT_DEADLINE};
use crate::db::database::{Database, DatabaseKind};
use crate::db::open::open;
use crate::db::session::Session;
use crate::db::statement::Value;
use crate::domain::claim::FORCE_RELEASED;
use crate::domain::{
    AcquireRequest, BackendError, Claim, Fence, LockKey, LockRow, LockTable, PodRef, Renewal, RenewalOutcome,
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
            holder: holder.into(),
        })
    }
}

#[async_trait]
impl BatchStore for SqliteLocks {
    const PLAIN_RENEWALS_APART: bool = false;

    async fn acquire_batch(&self, requests: &[Keyed<'_, AcquireRequest>]) -> Result<Vec<Claim>, BackendError> {
        let holder = &self.holder;
        self.session.run(&AcquireJob { holder, requests }).await
    }

    async fn renew_batch(&self, renewals: &[Keyed<'_, Renewal>]) -> Result<Vec<RenewalOutcome>, BackendError> {
        let holder = &self.holder;
        self.session.run(&RenewJob { holder, renewals }).await
    }

    async fn release_batch(&self, releases: &Packed) -> Result<(), BackendError> {
        let holder = &self.holder;
        let job = FencedWriteJob {
            text: sql::RELEASE,
            values: &[
                releases.rows.as_str().into(),
                Value::Name(&holder.cluster),
                Value::Name(&holder.replica),
                Value::Bytes(&releases.blob),
                holder.ttl.into(),
            ],
        };
        self.session.run(&job).await.map(drop)
    }

    async fn change_rows(&self, operation: RowOperation, rows: &str) -> Result<u64, BackendError> {
        let replica = Value::Name(&self.holder.replica);
        let (text, last) = match operation {
            RowOperation::ReleaseAndDelete => (sql::RELEASE_AND_DELETE, replica),
            RowOperation::RequestHandover => (sql::REQUEST_HANDOVER, replica),
            RowOperation::DeclineHandover => (sql::DECLINE_HANDOVER, replica),
            RowOperation::DeleteRows => (sql::DELETE_ROWS, (DEAD_REPLICA_TTL.as_micros() as i64).into()),
        };
        let values = &[rows.into(), Value::Name(&self.holder.cluster), last];
        self.session.run(&WriteJob { text, values }).await
    }

    async fn force_release_row(&self, key: &str) -> Result<bool, BackendError> {
        let job = FencedWriteJob {
            text: sql::FORCE_RELEASE,
            values: &[&self.holder.cluster, key, FORCE_RELEASED].map(Value::Name),
        };
        Ok(self.session.run(&job).await? > 0)
    }

    async fn read_table(&self) -> Result<LockTable, BackendError> {
        let cluster = &self.holder.cluster;
        let rows = self.session.run(&TableJob { cluster }).await?;
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
            finished: row.try_get::<i64, _>("state")? == i64::from(STATE_FINISHED),
            requested_by: text(row, "wanted_by")?.map(Into::into),
            pod_ref,
            checkpoint_len: row.try_get::<Option<i64>, _>("checkpoint_len")?.unwrap_or(0) as u32,
        };
        table.rows.insert(key, seen);
    }
    Ok(table)
}
