//! Claims in `MySQL` or `MariaDB`: the production store.
//!
//! Runs each batch as one job on the store's single connection, and translates rows to values. Times are the server's
//! (`UTC_TIMESTAMP`); the clock of this machine is never compared with them.

mod jobs;
mod statements;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlRow;
use sqlx::{MySql, Row as _};

use self::jobs::{AcquireJob, RenewJob, TableJob, Variants};
use self::statements as sql;
pub(super) use self::statements::{PRIVILEGES, PROBE};
use super::batch::{Keyed, Packed};
use super::batched_store::{BatchStore, RowOperation};
use super::jobs::{BoundHolder, WriteJob};
use super::store::{DEAD_REPLICA_TTL, Holder, STATE_FINISHED, STATEMENT_DEADLINE};
use crate::clock::Clock;
use crate::db::database::{Database, DatabaseKind};
use crate::db::mysql::server::SessionLimits;
use crate::db::open::open;
use crate::db::session::Session;
use crate::db::statement::Value;
use crate::domain::claim::FORCE_RELEASED;
use crate::domain::{
    AcquireRequest, BackendError, Claim, Fence, LockKey, LockRow, LockTable, PodRef, Renewal, RenewalOutcome, ReplicaId,
};

/// A statement that waited for a row lock, fell back and read the rows again must fit into the statement deadline of 3 s. An
/// attempt to connect need not: the next call continues it.
pub(super) const LIMITS: SessionLimits = SessionLimits {
    connect: Duration::from_secs(10),
    lock_wait: Duration::from_secs(1),
    table_wait: Some(Duration::from_secs(2)),
    idle: Duration::from_mins(10),
    read: None,
};

/// The lock store of one holder in a `MySQL` or `MariaDB` database. One connection; calls queue.
#[derive(Debug)]
pub(super) struct MySqlLocks {
    session: Session<MySql>,
    holder: BoundHolder,
    variants: Variants,
    /// Orders the renewals of this process, whichever store sends them.
    clock: Clock,
}

impl MySqlLocks {
    /// Connects, and checks server, tables and privileges.
    pub(super) async fn open(db: Database<MySql>, holder: Holder) -> Result<Self, BackendError> {
        let (conn, server) = open(&db, &LIMITS).await?;
        Ok(Self {
            session: Session::new(db, LIMITS, STATEMENT_DEADLINE, conn),
            holder: holder.into(),
            variants: Variants::new(server.is_mariadb()),
            clock: Clock::boottime(),
        })
    }

    async fn write(&self, text: &'static str, values: &[Value<'_>]) -> Result<u64, BackendError> {
        self.session.run(&WriteJob { text, values }).await
    }
}

#[async_trait]
impl BatchStore for MySqlLocks {
    // A statement that stores nothing need not carry the stored checkpoints around.
    const PLAIN_RENEWALS_APART: bool = true;

    async fn acquire_batch(&self, requests: &[Keyed<'_, AcquireRequest>]) -> Result<Vec<Claim>, BackendError> {
        let (holder, variants) = (&self.holder, self.variants);
        let job = AcquireJob {
            holder,
            variants,
            requests,
        };
        self.session.run(&job).await
    }

    async fn renew_batch(&self, renewals: &[Keyed<'_, Renewal>]) -> Result<Vec<RenewalOutcome>, BackendError> {
        let job = RenewJob {
            holder: &self.holder,
            variants: self.variants,
            renewals,
            sent: u64::try_from(self.clock.now().as_micros()).unwrap_or(u64::MAX),
        };
        self.session.run(&job).await
    }

    async fn release_batch(&self, releases: &Packed) -> Result<(), BackendError> {
        let holder = &self.holder;
        let values = [
            releases.rows.as_str().into(),
            Value::Name(&holder.cluster),
            holder.ttl.into(),
            Value::Bytes(&releases.blob),
            Value::Name(&holder.replica),
        ];
        self.write(sql::RELEASE, &values).await.map(drop)
    }

    async fn change_rows(&self, operation: RowOperation, rows: &str) -> Result<u64, BackendError> {
        let replica = Value::Name(&self.holder.replica);
        let (text, more): (_, &[_]) = match operation {
            RowOperation::ReleaseAndDelete => (sql::RELEASE_AND_DELETE, &[replica]),
            RowOperation::RequestHandover => (sql::REQUEST_HANDOVER, &[replica, replica]),
            RowOperation::DeclineHandover => (sql::DECLINE_HANDOVER, &[replica]),
            RowOperation::DeleteRows => (
                sql::DELETE_ROWS,
                &[Value::Number(Some(DEAD_REPLICA_TTL.as_secs() as i64))],
            ),
        };
        let rows = [rows.into(), Value::Name(&self.holder.cluster)];
        self.write(text, &[&rows, more].concat()).await
    }

    async fn force_release_row(&self, key: &str) -> Result<bool, BackendError> {
        let values = [FORCE_RELEASED, &self.holder.cluster, key].map(Value::Name);
        // The fence always changes, so the count is exact however the server counts.
        Ok(self.write(sql::FORCE_RELEASE, &values).await? > 0)
    }

    async fn read_table(&self) -> Result<LockTable, BackendError> {
        let job = TableJob {
            text: self.variants.table,
            cluster: &self.holder.cluster,
        };
        let rows = self.session.run(&job).await?;
        table_of(&rows).map_err(|error| MySql::explain(self.session.database(), &error))
    }
}

fn table_of(rows: &[MySqlRow]) -> Result<LockTable, sqlx::Error> {
    let mut table = LockTable::default();
    if let Some(first) = rows.first() {
        table.now = Duration::from_micros(first.try_get("now")?);
        table.server = first.try_get::<String, _>("server")?.into();
    }
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    for row in rows {
        let Some(id) = row.try_get::<Option<Vec<u8>>, _>("id")?.map(lossy) else {
            continue; // The line that is there when the table is empty.
        };
        // Rows that podlog did not write are ignored.
        let Some(key) = LockKey::parse(&id) else { continue };
        let name = |column| -> Result<Option<ReplicaId>, sqlx::Error> {
            Ok(row
                .try_get::<Option<Vec<u8>>, _>(column)?
                .map(|bytes| lossy(bytes).into()))
        };
        let pod_ref = PodRef {
            namespace: row.try_get::<String, _>("namespace")?.into(),
            pod: row.try_get::<String, _>("pod")?.into(),
            node: row.try_get::<String, _>("node")?.into(),
        };
        let seen = LockRow {
            owner: name("owner")?,
            fence: Fence(row.try_get("fence")?),
            expires_in: row.try_get::<i64, _>("expires_in")?.div_euclid(1000),
            finished: row.try_get::<u8, _>("state")? == STATE_FINISHED,
            requested_by: name("wanted_by")?,
            pod_ref,
            checkpoint_len: row.try_get::<Option<i64>, _>("checkpoint_len")?.unwrap_or(0) as u32,
        };
        table.rows.insert(key, seen);
    }
    Ok(table)
}
