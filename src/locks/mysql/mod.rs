//! Claims in `MySQL` or `MariaDB`: the production store.
//!
//! Cuts the callers' batches, runs each as one job on the store's single connection and translates
//! rows to values. Times are the server's (`UTC_TIMESTAMP`); the clock of this machine is never
//! compared with them.

mod diagnose;
mod fault;
mod jobs;
mod session;
mod statements;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Row as _};
use tokio::time::timeout;
use url::Url;

pub(super) use self::diagnose::diagnose;
use self::jobs::{Acquire, Bind, Me, Read, Renew, Rights, Write};
use self::session::Session;
use self::statements as sql;
use super::batch::{Keyed, ROWS, Row, STORED_ROWS, check_checkpoint, check_name, cut, pack, sorted};
use super::{DEAD, Holder, LockError, LockStore, schema};
use crate::clock::Clock;
use crate::db::version::SchemaState;
use crate::domain::claim::EVICTED;
use crate::domain::{
    About, AfterRelease, Claim, Fence, LockKey, LockRow, LockTable, Release, Renewal, ReplicaId, Verdict, Want,
};

/// How long another replica's migration is waited for, and how long one may take.
const MIGRATION_WAIT: u32 = 30;
const MIGRATION: Duration = Duration::from_mins(2);

/// The lock store of one holder in a `MySQL` or `MariaDB` database. One connection; calls queue.
#[derive(Debug)]
pub(super) struct MySqlLocks {
    session: Session,
    me: Me,
    /// Orders the renewals of this process, whichever store sends them.
    clock: Clock,
}

impl MySqlLocks {
    /// Connects and checks rights and tables.
    pub(super) async fn open(url: &Url, name: String, holder: Holder) -> Result<Self, LockError> {
        let options = session::options(url, &name)?;
        let (mut conn, settings) = session::connect(&options, &name).await?;
        let standing = standing(&mut conn)
            .await
            .map_err(|error| fault::explain(&name, &error))?;
        schema::check(&name, standing)?;
        let session = Session::new(options, name, conn);
        session.run(&Rights).await?;
        Ok(Self {
            session,
            me: Me::new(&holder, settings.is_mariadb()),
            clock: Clock::boottime(),
        })
    }

    async fn write(&self, text: &'static str, bind: Vec<Bind<'_>>) -> Result<u64, LockError> {
        self.session.run(&Write { text, bind }).await
    }

    /// Runs a statement for rows named by key and fence.
    async fn write_fenced(&self, text: &'static str, rows: &[(LockKey, Fence)], twice: bool) -> Result<(), LockError> {
        let sorted = sorted(rows, |(key, _)| key)?;
        for batch in cut(&sorted, ROWS, |_| 0) {
            let packed = pack(batch.iter().map(|(key, (_, fence))| (fenced(key, *fence), None)));
            let mut bind = vec![
                Bind::Rows(&packed.rows),
                Bind::Bytes(&self.me.cluster),
                Bind::Bytes(&self.me.replica),
            ];
            if twice {
                bind.push(Bind::Bytes(&self.me.replica));
            }
            self.write(text, bind).await?;
        }
        Ok(())
    }

    /// Renews one group, of which either all or none carry checkpoints.
    async fn renew_group<'a>(
        &self,
        group: &[Keyed<'a, Renewal>],
        verdicts: &mut HashMap<(&'a LockKey, Fence), Verdict>,
    ) -> Result<(), LockError> {
        let stores = group.first().is_some_and(|(_, renewal)| renewal.checkpoint.is_some());
        let rows = if stores { STORED_ROWS } else { ROWS };
        for renewals in cut(group, rows, |renewal| renewal.checkpoint.as_ref().map_or(0, Vec::len)) {
            let sent = u64::try_from(self.clock.now().as_micros()).unwrap_or(u64::MAX);
            let job = Renew {
                me: &self.me,
                renewals,
                sent,
            };
            let batch = self.session.run(&job).await?;
            let keys = renewals.iter().map(|(_, renewal)| (&renewal.key, renewal.fence));
            verdicts.extend(keys.zip(batch));
        }
        Ok(())
    }
}

fn fenced(key: &str, fence: Fence) -> Row<'_> {
    Row {
        f: Some(fence.0),
        ..Row::key(key)
    }
}

#[async_trait]
impl LockStore for MySqlLocks {
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
        // Apart, because a statement that stores nothing need not carry the stored checkpoints around.
        let (store, plain): (Vec<_>, Vec<_>) = sorted(renewals, |renewal| &renewal.key)?
            .into_iter()
            .partition(|(_, renewal)| renewal.checkpoint.is_some());
        let mut verdicts = HashMap::with_capacity(renewals.len());
        self.renew_group(&plain, &mut verdicts).await?;
        self.renew_group(&store, &mut verdicts).await?;
        let verdict = |renewal: &Renewal| verdicts.get(&(&renewal.key, renewal.fence)).copied();
        Ok(renewals
            .iter()
            .map(|renewal| verdict(renewal).unwrap_or(Verdict::Lost))
            .collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), LockError> {
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
                Bind::Rows(&packed.rows),
                Bind::Bytes(&self.me.cluster),
                Bind::Number(self.me.ttl),
                Bind::Bytes(&packed.blob),
                Bind::Bytes(&self.me.replica),
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
                Bind::Rows(&packed.rows),
                Bind::Bytes(&self.me.cluster),
                Bind::Bytes(&self.me.replica),
            ];
            self.write(sql::REMOVE, bind).await?;
        }
        Ok(())
    }

    async fn ask(&self, rows: &[(LockKey, Fence)]) -> Result<(), LockError> {
        self.write_fenced(sql::ASK, rows, true).await
    }

    async fn refuse(&self, rows: &[(LockKey, Fence)]) -> Result<(), LockError> {
        self.write_fenced(sql::REFUSE, rows, false).await
    }

    async fn forget(&self, keys: &[LockKey]) -> Result<u64, LockError> {
        let sorted = sorted(keys, |key| key)?;
        let mut gone = 0;
        for batch in cut(&sorted, ROWS, |_| 0) {
            let packed = pack(batch.iter().map(|(key, _)| (Row::key(key), None)));
            let dead = Bind::Number(DEAD.as_secs() as i64);
            gone += self
                .write(
                    sql::FORGET,
                    vec![Bind::Rows(&packed.rows), Bind::Bytes(&self.me.cluster), dead],
                )
                .await?;
        }
        Ok(gone)
    }

    async fn evict(&self, key: &LockKey) -> Result<bool, LockError> {
        let key = key.to_string();
        check_name("lock key", &key)?;
        // The fence always changes, so the count is exact however the server counts.
        let bind = vec![
            Bind::Bytes(EVICTED.as_bytes()),
            Bind::Bytes(&self.me.cluster),
            Bind::Bytes(key.as_bytes()),
        ];
        Ok(self.write(sql::EVICT, bind).await? > 0)
    }

    async fn table(&self) -> Result<LockTable, LockError> {
        let read = Read {
            text: self.me.table,
            cluster: &self.me.cluster,
        };
        let rows = self.session.run(&read).await?;
        table_of(&rows).map_err(|error| fault::explain(self.session.name(), &error))
    }
}

fn released<'a>(key: &'a str, release: &'a Release) -> (Row<'a>, Option<&'a [u8]>) {
    let (heir, state) = match &release.after {
        AfterRelease::Handed(heir) => (Some(heir.as_str()), None),
        AfterRelease::Finished => (None, Some(2)),
        AfterRelease::Free | AfterRelease::Deleted => (None, None),
    };
    let row = Row {
        o: heir,
        s: state,
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
        // A row that podlog did not write is nobody's business here.
        let Some(key) = LockKey::parse(&id) else { continue };
        let name = |column| -> Result<Option<ReplicaId>, sqlx::Error> {
            Ok(row
                .try_get::<Option<Vec<u8>>, _>(column)?
                .map(|bytes| lossy(bytes).into()))
        };
        let about = About {
            namespace: row.try_get::<String, _>("namespace")?.into(),
            pod: row.try_get::<String, _>("pod")?.into(),
            node: row.try_get::<String, _>("node")?.into(),
        };
        let seen = LockRow {
            owner: name("owner")?,
            fence: Fence(row.try_get("fence")?),
            expires_in: row.try_get::<i64, _>("expires_in")?.div_euclid(1000),
            finished: row.try_get::<u8, _>("state")? == 2,
            wanted_by: name("wanted_by")?,
            about,
            checkpoint_len: row.try_get::<Option<i64>, _>("checkpoint_len")?.unwrap_or(0) as u32,
        };
        table.rows.insert(key, seen);
    }
    Ok(table)
}

/// How the tables stand.
async fn standing(conn: &mut MySqlConnection) -> Result<SchemaState, sqlx::Error> {
    match sqlx::query_as(schema::APPLIED).fetch_all(conn).await {
        Ok(noted) => Ok(schema::standing(noted, &schema::MYSQL)),
        Err(error) if fault::number(&error) == Some(fault::NO_TABLE) => Ok(SchemaState::Missing),
        Err(error) => Err(error),
    }
}

/// Makes the tables, or brings them up to date.
pub(super) async fn migrate(url: &Url, name: String) -> Result<(), LockError> {
    let options = session::options(url, &name)?;
    let (mut conn, _) = session::connect(&options, &name).await?;
    let work = async {
        // Where nothing is to be done, no right to make tables is needed; and tables that newer programs have
        // extended are left alone, which sqlx would call unknown.
        let found = standing(&mut conn)
            .await
            .map_err(|error| fault::explain(&name, &error))?;
        if found.is_done() {
            return Ok(());
        }
        // One name per database, within the 64 characters allowed; the lock goes with the connection. (MySQL 9 has no MD5.)
        let locked: Option<i64> =
            sqlx::query_scalar("SELECT GET_LOCK(CONCAT('podlog locks ', LEFT(SHA2(DATABASE(), 256), 40)), ?)")
                .bind(MIGRATION_WAIT)
                .fetch_one(&mut conn)
                .await
                .map_err(|error| fault::explain(&name, &error))?;
        if locked != Some(1) {
            return Err(LockError::unavailable(
                format!("another process has been migrating {name} for {MIGRATION_WAIT} s"),
                "wait for it, or end it, and try again",
            ));
        }
        let migrated = schema::ours(&schema::MYSQL).run_direct(None, &mut conn, false).await;
        migrated.map_err(|error| schema::failed(&name, error, |error| fault::explain(&name, error)))
    };
    let done = timeout(MIGRATION, work).await.unwrap_or_else(|_| {
        Err(LockError::unavailable(
            format!("migrating {name} took longer than {} s", MIGRATION.as_secs()),
            "look at what the server is doing (SHOW PROCESSLIST) and try again",
        ))
    });
    if done.is_ok() {
        // Only politeness; dropping the connection would free the lock as well.
        timeout(Duration::from_secs(1), conn.close()).await.ok();
    }
    done
}
