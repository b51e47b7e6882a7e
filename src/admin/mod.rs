//! `podlog locks`: lists the claims, or releases one, directly in the lock store.
//!
//! Nothing here decides which replica should hold a pod, and only a claim that is named exactly is released.

use std::io::Write;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::Locks;
use crate::config::LockConfig;
use crate::domain::{Escaped, LockKey, LockRow, LockTable};
use crate::exit::Failure;
use crate::locks::{self, Holder, LockStore};

/// Where to look when there is no claim to release.
const SEE_LIST: &str = "see podlog locks list";

/// Opens the store and executes a `podlog locks` command, unless `stop` is cancelled meanwhile. The result goes to
/// standard output.
pub(crate) async fn execute(store: LockConfig, command: Locks, stop: CancellationToken) -> Result<(), Failure> {
    let holder = Holder::without_claims("podlog-locks", store.cluster);
    let work = async {
        let store = locks::open(&store.url, holder).await?;
        let mut out = std::io::stdout();
        match command {
            Locks::List { json, .. } => list(&*store, json, &mut out).await,
            Locks::Release { pod, uid, .. } => release(&*store, &pod, uid.as_deref(), &mut out).await,
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        done = work => done,
    }
}

/// Writes all claims, as a table or as JSON.
pub(crate) async fn list(store: &dyn LockStore, json: bool, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let table = store.table().await?;
    let rows: Vec<PrintedRow> = table.rows.iter().map(|(key, row)| PrintedRow::new(key, row)).collect();
    let written = if json {
        serde_json::to_writer_pretty(&mut *out, &rows)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write_table(&table, &rows, out)
    };
    written.or_else(|e| ignore_closed_output(&e))
}

/// Releases the claim on `NAMESPACE/POD`, and writes when other replicas may take it. Fails when no pod of that name is
/// held, or when several are and `uid` does not select one.
pub(crate) async fn release(
    store: &dyn LockStore,
    pod: &str,
    uid: Option<&str>,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let Some((namespace, name)) = pod
        .split_once('/')
        .filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains('/'))
    else {
        return Err(Failure::usage(format!("{pod:?} is not the name of a pod")).with_remedy("write NAMESPACE/POD"));
    };
    let table = store.table().await?;
    let named: Vec<(&LockKey, &LockRow)> = table
        .rows
        .iter()
        .filter(|(key, row)| key.pod().is_some() && *row.pod_ref.namespace == *namespace && *row.pod_ref.pod == *name)
        .filter(|(key, _)| uid.is_none_or(|uid| key.pod().is_some_and(|own| own.as_str() == uid)))
        .collect();
    let is_held = |row: &LockRow| row.owner.is_some() && !row.is_force_released();
    let held: Vec<_> = named.iter().filter(|(_, row)| is_held(row)).collect();
    let (key, row) = match held.as_slice() {
        [(key, row)] => (*key, *row),
        [] => {
            return Err(Failure::failed(format!("{pod}: {}", nothing_held(&named))).with_remedy(SEE_LIST));
        }
        several => {
            let list: Vec<String> = several.iter().map(|(key, row)| describe(key, row)).collect();
            return Err(Failure::usage(format!(
                "{pod}: {} pods of this name are held ({})",
                several.len(),
                list.join(", ")
            ))
            .with_remedy("select one with --uid"));
        }
    };
    if !store.force_release(key).await? {
        return Err(Failure::failed(format!("{pod}: its row was deleted meanwhile")).with_remedy(SEE_LIST));
    }
    let when = if row.expires_in > 0 {
        format!("when the claim expires in {}", seconds(row.expires_in))
    } else {
        "at once".to_owned()
    };
    writeln!(
        out,
        "released {pod}: {}; the holder stops at its next renewal, and other replicas may take the pod {when} (plus the takeover grace)",
        describe(key, row)
    )
    .or_else(|e| ignore_closed_output(&e))
}

fn nothing_held(named: &[(&LockKey, &LockRow)]) -> &'static str {
    if named.is_empty() {
        "there is no such pod in the table"
    } else if named.iter().any(|(_, row)| row.is_force_released()) {
        "it is released already, and is taken when its previous claim has expired"
    } else if named.iter().all(|(_, row)| row.finished) {
        "it is collected to its end, so no replica holds it"
    } else {
        "no replica holds it"
    }
}

fn describe(key: &LockKey, row: &LockRow) -> String {
    let uid = key.pod().map(ToString::to_string).unwrap_or_default();
    let owner = row
        .owner
        .as_ref()
        .map_or_else(|| "no replica".to_owned(), ToString::to_string);
    Escaped(format!("uid {uid} held by {owner}")).to_string()
}

/// A closed output, as in `podlog locks list | head`, is not a failure.
fn ignore_closed_output(error: &std::io::Error) -> Result<(), Failure> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::failed(format!("cannot write to standard output: {error}"))
            .with_remedy("the list is incomplete; run it again")),
    }
}

/// A row as it is printed.
#[derive(Debug, Serialize)]
struct PrintedRow {
    kind: &'static str,
    namespace: String,
    pod: String,
    id: String,
    holder: Option<String>,
    state: &'static str,
    expires_in_ms: i64,
    fence: u64,
    wanted_by: Option<String>,
    node: String,
    checkpoint_bytes: u32,
}

impl PrintedRow {
    fn new(key: &LockKey, row: &LockRow) -> Self {
        let (kind, id) = match key {
            LockKey::Pod(uid) => ("pod", uid.to_string()),
            LockKey::Replica(id) => ("replica", id.to_string()),
            LockKey::Duty(name) => ("duty", name.to_string()),
        };
        Self {
            kind,
            namespace: row.pod_ref.namespace.to_string(),
            pod: row.pod_ref.pod.to_string(),
            id,
            holder: row.owner.as_ref().map(ToString::to_string),
            state: match (&row.owner, row.finished, row.expires_in > 0) {
                (_, true, _) => "finished",
                (None, ..) => "free",
                (Some(_), ..) if row.is_force_released() => "released",
                (Some(_), _, true) => "held",
                (Some(_), _, false) => "expired",
            },
            expires_in_ms: row.expires_in,
            fence: row.fence.0,
            wanted_by: row.requested_by.as_ref().map(ToString::to_string),
            node: row.pod_ref.node.to_string(),
            checkpoint_bytes: row.checkpoint_len,
        }
    }

    fn cells(&self) -> [String; 8] {
        let name = if self.kind == "pod" { &self.pod } else { self.kind };
        let left = if self.holder.is_some() {
            seconds(self.expires_in_ms)
        } else {
            "-".to_owned()
        };
        // The database may contain anything.
        [
            or_dash(&self.namespace),
            or_dash(name),
            self.id.clone(),
            self.holder.clone().unwrap_or_else(|| "-".to_owned()),
            self.state.to_owned(),
            left,
            self.wanted_by.clone().unwrap_or_else(|| "-".to_owned()),
            or_dash(&self.node),
        ]
        .map(|cell| Escaped(cell).to_string())
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

fn seconds(ms: i64) -> String {
    format!(
        "{}{}.{}s",
        if ms < 0 { "-" } else { "" },
        ms.unsigned_abs() / 1000,
        ms.unsigned_abs() % 1000 / 100
    )
}

const HEADERS: [&str; 8] = [
    "NAMESPACE",
    "POD",
    "ID",
    "HOLDER",
    "STATE",
    "EXPIRES",
    "WANTED BY",
    "NODE",
];

fn write_table(table: &LockTable, rows: &[PrintedRow], out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    let cells: Vec<[String; 8]> = rows.iter().map(PrintedRow::cells).collect();
    let mut widths = HEADERS.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[&str]| {
        let padded: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    writeln!(out, "{}", line(&HEADERS))?;
    for row in &cells {
        writeln!(out, "{}", line(&row.each_ref().map(String::as_str)))?;
    }
    let count = |kind, state| rows.iter().filter(|row| row.kind == kind && row.state == state).count();
    writeln!(
        out,
        "\n{} replicas alive; pods: {} held, {} free, {} expired, {} finished",
        table.live_replicas().count(),
        count("pod", "held"),
        count("pod", "free"),
        count("pod", "expired"),
        count("pod", "finished")
    )
}

#[cfg(test)]
mod tests;
