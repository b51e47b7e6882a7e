//! Checks the lock store: its own findings, whether `podlog run` can open it, and which replicas use it. It changes no
//! row.

use tokio::time::timeout;

use super::prerequisites::{DEADLINE, is_ready};
use crate::config::Config;
use crate::db::diagnose::TABLES;
use crate::domain::{Finding, ReplicaId};
use crate::exit::Failure;
use crate::locks::{self, LockUrl};

const CLAIMS: &str = "claims";

/// The findings, and what other checks need.
pub(super) struct LockFindings {
    pub(super) findings: Vec<Finding>,
    /// The replicas that are alive; `None` if the table could not be read.
    pub(super) replicas: Option<Vec<ReplicaId>>,
}

pub(super) async fn diagnose(config: &Config) -> LockFindings {
    let url = &config.store.url;
    let mut findings = locks::diagnose(url, config.migrate).await;
    let mut replicas = None;
    if is_ready(&findings, TABLES) {
        match claims(config, url).await {
            Ok((finding, alive)) => {
                findings.push(finding);
                replicas = Some(alive);
            }
            Err(failure) => findings.push(failure.to_finding(CLAIMS)),
        }
    } else {
        findings.push(Finding::skipped(CLAIMS, "the lock store is not ready"));
    }
    LockFindings { findings, replicas }
}

/// Opens the store as `podlog run` does, and reads its table.
async fn claims(config: &Config, url: &LockUrl) -> Result<(Finding, Vec<ReplicaId>), Failure> {
    let reading = async {
        let store = locks::open(url, config.holder()).await?;
        store.table().await
    };
    let timed_out = |_| {
        Failure::unreachable(format!("the lock store {url} did not answer within {DEADLINE:?}"))
            .with_remedy("check whether it is overloaded")
    };
    let table = timeout(DEADLINE, reading).await.map_err(timed_out)??;
    let alive: Vec<ReplicaId> = table.live_replicas().cloned().collect();
    let held = table
        .rows
        .iter()
        .filter(|(key, row)| key.pod().is_some() && row.owner.is_some())
        .count();
    let names: Vec<&str> = alive.iter().map(ReplicaId::as_str).collect();
    let who = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    let found = format!(
        "cluster {}: {held} pods are held; replicas alive: {who}",
        config.store.cluster
    );
    Ok((Finding::ok(CLAIMS, found), alive))
}
