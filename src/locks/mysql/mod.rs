//! Claims in `MySQL` or `MariaDB`: the production store.
//!
//! Cuts the callers' batches, runs each as one job on the store's single connection and translates
//! rows to values. Times are the server's (`UTC_TIMESTAMP`); the clock of this machine is never
//! compared with them.

mod jobs;
mod statements;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlRow;
use sqlx::{MySql, Row as _};

use self::jobs::{Acquire, BoundHolder, Param, Read, Renew, Write};
use self::statements as sql;
pub(super) use self::statements::{PRIVILEGES, PROBE};
use super::batch::{Keyed, ROWS, Row, STORED_ROWS, check_checkpoint, check_name, cut, pack, sorted};
use super::store::{DEAD_REPLICA_TTL, Holder, LockStore, STATEMENT_DEADLINE};
use crate::clock::Clock;
use crate::db::backend::{Backend, Database};
use crate::db::mysql::server::SessionLimits;
use crate::db::open::open;
use crate::db::session::Session;
use crate::domain::claim::FORCE_RELEASED;
use crate::domain::{
    AcquireRequest, AfterRelease, BackendError, Claim, Fence, LockKey, LockRow, LockTable, PodRef, Release, Renewal,
    RenewalOutcome, ReplicaId,
};

/// An attempt to connect, and a statement that waited for a row lock, fell back and read the rows again, must both fit
/// into the statement deadline of 3 s.
pub(super) const LIMITS: SessionLimits = SessionLimits {
    connect: Duration::from_secs(2),
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
    /// Orders the renewals of this process, whichever store sends them.
    clock: Clock,
}

impl MySqlLocks {
    /// Connects, and checks server, tables and privileges.
    pub(super) async fn open(db: Database<MySql>, holder: Holder) -> Result<Self, BackendError> {
        let (conn, server) = open(&db, &LIMITS).await?;
        Ok(Self {
            session: Session::new(db, LIMITS, STATEMENT_DEADLINE, conn),
            holder: BoundHolder::new(&holder, server.is_mariadb()),
            clock: Clock::boottime(),
        })
    }

    async fn write(&self, text: &'static str, bind: Vec<Param<'_>>) -> Result<u64, BackendError> {
        self.session.run(&Write { text, bind }).await
    }

    /// Runs a statement for rows named by key and fence.
    async fn write_fenced(
        &self,
        text: &'static str,
        rows: &[(LockKey, Fence)],
        twice: bool,
    ) -> Result<(), BackendError> {
        let sorted = sorted(rows, |(key, _)| key)?;
        for batch in cut(&sorted, ROWS, |_| 0) {
            let packed = pack(batch.iter().map(|(key, (_, fence))| (fenced(key, *fence), None)));
            let mut bind = vec![
                Param::Rows(&packed.rows),
                Param::Bytes(&self.holder.cluster),
                Param::Bytes(&self.holder.replica),
            ];
            if twice {
                bind.push(Param::Bytes(&self.holder.replica));
            }
            self.write(text, bind).await?;
        }
        Ok(())
    }

    /// Renews one group, of which either all or none carry checkpoints.
    async fn renew_group<'a>(
        &self,
        group: &[Keyed<'a, Renewal>],
        outcomes: &mut HashMap<(&'a LockKey, Fence), RenewalOutcome>,
    ) -> Result<(), BackendError> {
        let stores = group.first().is_some_and(|(_, renewal)| renewal.checkpoint.is_some());
        let rows = if stores { STORED_ROWS } else { ROWS };
        for renewals in cut(group, rows, |renewal| renewal.checkpoint.as_ref().map_or(0, Vec::len)) {
            let sent = u64::try_from(self.clock.now().as_micros()).unwrap_or(u64::MAX);
            let job = Renew {
                holder: &self.holder,
                renewals,
                sent,
            };
            let batch = self.session.run(&job).await?;
            let keys = renewals.iter().map(|(_, renewal)| (&renewal.key, renewal.fence));
            outcomes.extend(keys.zip(batch));
        }
        Ok(())
    }
}

fn fenced(key: &str, fence: Fence) -> Row<'_> {
    Row {
        fence: Some(fence.0),
        ..Row::key(key)
    }
}

#[async_trait]
impl LockStore for MySqlLocks {
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
        // Apart, because a statement that stores nothing need not carry the stored checkpoints around.
        let (store, plain): (Vec<_>, Vec<_>) = sorted(renewals, |renewal| &renewal.key)?
            .into_iter()
            .partition(|(_, renewal)| renewal.checkpoint.is_some());
        let mut outcomes = HashMap::with_capacity(renewals.len());
        self.renew_group(&plain, &mut outcomes).await?;
        self.renew_group(&store, &mut outcomes).await?;
        let outcome = |renewal: &Renewal| outcomes.get(&(&renewal.key, renewal.fence)).copied();
        Ok(renewals
            .iter()
            .map(|renewal| outcome(renewal).unwrap_or(RenewalOutcome::Lost))
            .collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), BackendError> {
        for release in releases {
            check_checkpoint(&release.claim.key, release.checkpoint.as_deref())?;
        }
        let (gone, kept): (Vec<_>, Vec<_>) = sorted(releases, |release| &release.claim.key)?
            .into_iter()
            .partition(|(_, release)| release.after == AfterRelease::Deleted);
        for batch in cut(&kept, STORED_ROWS, |release| {
            release.checkpoint.as_ref().map_or(0, Vec::len)
        }) {
            let packed = pack(batch.iter().map(|(key, release)| released(key, release)));
            let bind = vec![
                Param::Rows(&packed.rows),
                Param::Bytes(&self.holder.cluster),
                Param::Number(self.holder.ttl),
                Param::Bytes(&packed.blob),
                Param::Bytes(&self.holder.replica),
            ];
            self.write(sql::RELEASE, bind).await?;
        }
        for batch in cut(&gone, ROWS, |_| 0) {
            let packed = pack(
                batch
                    .iter()
                    .map(|(key, release)| (fenced(key, release.claim.fence), None)),
            );
            let bind = vec![
                Param::Rows(&packed.rows),
                Param::Bytes(&self.holder.cluster),
                Param::Bytes(&self.holder.replica),
            ];
            self.write(sql::RELEASE_AND_DELETE, bind).await?;
        }
        Ok(())
    }

    async fn request_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        self.write_fenced(sql::REQUEST_HANDOVER, rows, true).await
    }

    async fn decline_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        self.write_fenced(sql::DECLINE_HANDOVER, rows, false).await
    }

    async fn delete_rows(&self, keys: &[LockKey]) -> Result<u64, BackendError> {
        let sorted = sorted(keys, |key| key)?;
        let mut gone = 0;
        for batch in cut(&sorted, ROWS, |_| 0) {
            let packed = pack(batch.iter().map(|(key, _)| (Row::key(key), None)));
            let dead = Param::Number(DEAD_REPLICA_TTL.as_secs() as i64);
            gone += self
                .write(
                    sql::DELETE_ROWS,
                    vec![Param::Rows(&packed.rows), Param::Bytes(&self.holder.cluster), dead],
                )
                .await?;
        }
        Ok(gone)
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.to_string();
        check_name("lock key", &key)?;
        // The fence always changes, so the count is exact however the server counts.
        let bind = vec![
            Param::Bytes(FORCE_RELEASED.as_bytes()),
            Param::Bytes(&self.holder.cluster),
            Param::Bytes(key.as_bytes()),
        ];
        Ok(self.write(sql::FORCE_RELEASE, bind).await? > 0)
    }

    async fn table(&self) -> Result<LockTable, BackendError> {
        let read = Read {
            text: self.holder.table,
            cluster: &self.holder.cluster,
        };
        let rows = self.session.run(&read).await?;
        table_of(&rows).map_err(|error| MySql::explain(self.session.database(), &error))
    }
}

fn released<'a>(key: &'a str, release: &'a Release) -> (Row<'a>, Option<&'a [u8]>) {
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
            finished: row.try_get::<u8, _>("state")? == 2,
            requested_by: name("wanted_by")?,
            pod_ref,
            checkpoint_len: row.try_get::<Option<i64>, _>("checkpoint_len")?.unwrap_or(0) as u32,
        };
        table.rows.insert(key, seen);
    }
    Ok(table)
}
