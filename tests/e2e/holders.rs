//! The history of which replica holds which pod, recorded by reading the lock table again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::{MySqlConnection, Row};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often the table is read.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// The holder of each pod by UID; pods that nobody holds are not in it.
pub(crate) type HolderByPod = BTreeMap<String, String>;

/// Reads the lock table in the background and keeps every change.
pub(crate) struct HolderHistory {
    seen: Arc<Mutex<Vec<(Instant, HolderByPod)>>>,
    /// Ends the reading when dropped.
    _task: JoinSet<()>,
}

impl HolderHistory {
    pub(crate) fn watch(mut sql: MySqlConnection) -> Self {
        let seen: Arc<Mutex<Vec<(Instant, HolderByPod)>>> = Arc::default();
        let mut task = JoinSet::new();
        let out = seen.clone();
        task.spawn(async move {
            loop {
                record_change(&out, holders(&mut sql).await);
                sleep(POLL).await;
            }
        });
        Self { seen, _task: task }
    }

    /// The pods that a replica holds now.
    pub(crate) fn held_by(&self, replica: &str) -> BTreeSet<String> {
        let seen = self.seen.lock().unwrap();
        let Some((_, table)) = seen.last() else {
            return BTreeSet::new();
        };
        let own = |owner: &str| is_of(owner, replica);
        table
            .iter()
            .filter(|(_, owner)| own(owner))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// For each of these pods the time from `since` until another replica held it; none for those
    /// that nobody else has held.
    pub(crate) fn takeovers(
        &self,
        pods: &BTreeSet<String>,
        from: &str,
        since: Instant,
    ) -> BTreeMap<String, Option<Duration>> {
        let seen = self.seen.lock().unwrap();
        let taken = |uid: &String| {
            let other = |table: &HolderByPod| table.get(uid).is_some_and(|owner| !is_of(owner, from));
            seen.iter()
                .find(|(at, table)| *at >= since && other(table))
                .map(|(at, _)| *at - since)
        };
        pods.iter().map(|uid| (uid.clone(), taken(uid))).collect()
    }

    /// How many pods each replica holds now.
    pub(crate) fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        if let Some((_, table)) = self.seen.lock().unwrap().last() {
            for owner in table.values() {
                *shares.entry(owner.clone()).or_default() += 1;
            }
        }
        shares
    }

    /// The pods that had more than one holder, or none for a while.
    pub(crate) fn moved(&self) -> BTreeSet<String> {
        let mut first: HolderByPod = HolderByPod::new();
        let mut moved = BTreeSet::new();
        for (_, table) in self.seen.lock().unwrap().iter() {
            for (uid, owner) in table {
                if first.entry(uid.clone()).or_insert_with(|| owner.clone()) != owner {
                    moved.insert(uid.clone());
                }
            }
        }
        moved
    }
}

fn record_change(seen: &Mutex<Vec<(Instant, HolderByPod)>>, table: HolderByPod) {
    let mut seen = seen.lock().unwrap();
    if seen.last().is_none_or(|(_, last)| *last != table) {
        seen.push((Instant::now(), table));
    }
}

/// Whether this owner is a process of the replica of that name: the name and a suffix.
fn is_of(owner: &str, replica: &str) -> bool {
    owner.strip_prefix(replica).is_some_and(|rest| rest.starts_with('#'))
}

async fn holders(sql: &mut MySqlConnection) -> HolderByPod {
    // Until the first replica has made the table there is none.
    let query = "SELECT CONVERT(id USING utf8mb4) AS id, CONVERT(owner USING utf8mb4) AS owner \
        FROM distributed_lock WHERE id LIKE 'pod/%' AND owner IS NOT NULL";
    let rows = sqlx::query(query).fetch_all(sql).await.unwrap_or_default();
    let held = rows.iter().map(|row| {
        let id: String = row.get("id");
        (id.trim_start_matches("pod/").to_owned(), row.get("owner"))
    });
    held.collect()
}
