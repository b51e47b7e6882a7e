//! The stored lines, read from where the replicas store them, and the written lines in the same form.
//!
//! The audit must not depend on podlog's own code. So tables are read with separate SQL statements, and files as JSON.
//! Nothing here writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use tokio::time::timeout;

use super::files::{Files, StoredStreams};
use crate::domain::StreamId;
use crate::exit::Failure;
use kube_sim::WrittenLog;
use kube_sim::audit::{LineDigest, StoredStream};

/// How long it may take to count the lines, or to read this many lines.
const DEADLINE: Duration = Duration::from_secs(10);
const LINES: u64 = 100_000;

/// How long to wait for a table that a replica is creating.
const BUSY: Duration = Duration::from_secs(4);

/// Where the replicas store records.
#[derive(Debug)]
pub(super) enum Records {
    /// In one SQLite file.
    Tables(PathBuf, SqliteConnection),
    /// In one directory for each replica.
    Files(Vec<Files>),
}

impl Records {
    /// Opens the SQLite file, whose tables exist.
    pub(super) async fn tables(path: &Path) -> Result<Self, Failure> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY)
            .pragma("query_only", "ON");
        let conn = SqliteConnection::connect_with(&options)
            .await
            .map_err(|e| failed(path, &e))?;
        Ok(Self::Tables(path.to_owned(), conn))
    }

    /// One directory for each replica.
    pub(super) fn files(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::Files(dirs.into_iter().map(Files::new).collect())
    }

    /// How many lines are stored, including duplicates.
    pub(super) async fn count(&mut self) -> Result<u64, Failure> {
        match self {
            Self::Tables(path, conn) => {
                let sum = sqlx::query_scalar("SELECT COALESCE(SUM(seq), 0) FROM log_stream");
                let sum: i64 = with_deadline(path, DEADLINE, sum.fetch_one(conn)).await?;
                Ok(sum.cast_unsigned())
            }
            Self::Files(all) => {
                for files in all.iter_mut() {
                    files.read_new()?;
                }
                Ok(all.iter().map(Files::count).sum())
            }
        }
    }

    /// Everything that is stored.
    pub(super) async fn read(&mut self) -> Result<StoredStreams, Failure> {
        let lines = self.count().await?;
        match self {
            Self::Tables(path, conn) => {
                let parts = u32::try_from(lines.div_ceil(LINES)).unwrap_or(u32::MAX);
                with_deadline(path, DEADLINE.saturating_mul(parts.max(1)), tables(conn)).await
            }
            Self::Files(all) => {
                let mut streams = StoredStreams::new();
                for files in all {
                    files.read_new()?;
                    for (stream, stored) in files.streams() {
                        streams.entry(stream.clone()).or_default().append(stored);
                    }
                }
                Ok(streams)
            }
        }
    }

    /// Whether bytes that are not UTF-8 are stored as U+FFFD.
    pub(super) fn is_lossy(&self) -> bool {
        matches!(self, Self::Files(_))
    }
}

async fn tables(conn: &mut SqliteConnection) -> Result<StoredStreams, sqlx::Error> {
    let mut by_id: BTreeMap<i64, (StreamId, StoredStream)> = BTreeMap::new();
    // One snapshot for all three tables.
    let mut tx = conn.begin().await?;
    let find = "SELECT id, uid, container, container_id FROM log_stream";
    let mut rows = sqlx::query_as::<_, (i64, String, String, String)>(find).fetch(&mut *tx);
    while let Some((id, uid, container, container_id)) = rows.try_next().await? {
        let stream = StreamId {
            uid: uid.into(),
            container: container.into(),
            container_id: container_id.into(),
        };
        by_id.insert(id, (stream, StoredStream::default()));
    }
    drop(rows);
    let find = "SELECT stream, time_ns, message FROM log_record ORDER BY stream, seq";
    let mut rows = sqlx::query_as::<_, (i64, i64, Vec<u8>)>(find).fetch(&mut *tx);
    while let Some((id, time, message)) = rows.try_next().await? {
        if let Some((_, stored)) = by_id.get_mut(&id) {
            stored.lines.push(LineDigest::new(time, &message));
        }
    }
    drop(rows);
    // The records of a stream are numbered from 0 without holes, so the number says how many records come before the
    // gap.
    let find = "SELECT stream, seq FROM log_gap";
    let mut rows = sqlx::query_as::<_, (i64, i64)>(find).fetch(&mut *tx);
    while let Some((id, seq)) = rows.try_next().await? {
        if let Some((_, stored)) = by_id.get_mut(&id) {
            stored.gaps.push(usize::try_from(seq).unwrap_or(0));
        }
    }
    drop(rows);
    tx.commit().await?;
    Ok(by_id.into_values().collect())
}

async fn with_deadline<T>(
    path: &Path,
    deadline: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failure> {
    match timeout(deadline, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(path, &error)),
        Err(_) => Err(
            Failure::failed(format!("{} was not read within {deadline:?}", path.display()))
                .with_remedy("the machine is too busy"),
        ),
    }
}

fn failed(path: &Path, error: &sqlx::Error) -> Failure {
    Failure::failed(format!("{} cannot be read: {error}", path.display())).with_remedy("is the disk full?")
}

/// The logs of the latest instance of each container of these pods, which the API server serves.
pub(super) fn present_instances(logs: Vec<WrittenLog>, pods: &BTreeSet<&str>) -> Vec<WrittenLog> {
    let there = logs.into_iter().filter(|log| pods.contains(log.instance.uid.as_str()));
    // Logs are in the order of their starts, so the latest replaces earlier ones.
    let place = |log: WrittenLog| ((log.instance.uid.clone(), log.instance.container.clone()), log);
    let latest: BTreeMap<_, _> = there.map(place).collect();
    latest.into_values().collect()
}

/// The written lines of each stream. `lossy` is that of [`Records::is_lossy`].
pub(super) fn written_by_stream(logs: &[WrittenLog], lossy: bool) -> BTreeMap<StreamId, Vec<LineDigest>> {
    let entry = |time, message: &[u8]| {
        if lossy {
            LineDigest::new(time, String::from_utf8_lossy(message).as_bytes())
        } else {
            LineDigest::new(time, message)
        }
    };
    let stream = |logs: &WrittenLog| {
        let instance = &logs.instance;
        let id = instance.container_id.split_once("://");
        let lines = logs.lines.iter().map(|line| entry(line.time, &line.message)).collect();
        let stream = StreamId {
            uid: instance.uid.as_str().into(),
            container: instance.container.as_str().into(),
            container_id: id.map_or(instance.container_id.as_str(), |(_, id)| id).into(),
        };
        (stream, lines)
    };
    logs.iter().map(stream).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_sim::{PodSpec, SimCluster, SimSettings};

    #[test]
    fn the_present_instances_are_the_latest_of_pods_that_exist() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let sim = SimCluster::new(SimSettings::default());
        let pod = |name| sim.create(PodSpec::new("shop", name).node("n").app("app")).unwrap();
        let (stays, goes) = (pod("stays"), pod("goes"));
        for pod in [&stays, &goes] {
            pod.start("app").unwrap();
            pod.restart("app", 1).unwrap();
        }
        goes.remove().unwrap();
        let uids = [stays.uid()].into();
        let found: Vec<_> = present_instances(sim.written(), &uids)
            .into_iter()
            .map(|log| log.instance)
            .collect();
        assert!(
            found.len() == 1 && found[0].pod == "stays" && found[0].restart_count == 1,
            "{found:?}"
        );
    }
}
