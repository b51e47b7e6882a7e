//! `podlog check`: checks everything that `podlog run` needs, and reports what is missing.
//!
//! It uses the same code as `podlog run` to open things. It checks every part, even when others fail, and leaves
//! nothing behind. It collects nothing and repairs nothing.

mod cluster;
mod config;
mod host;
mod locks;
mod logs;
mod prerequisites;
mod report;
mod sink;

use std::io::Write as _;

use tokio_util::sync::CancellationToken;

use crate::config::{Config, Unreadable};
use crate::domain::Finding;
use crate::exit::Failure;
pub(crate) use report::{Part, Report};

/// Checks everything and prints the findings. Fails with the status that `podlog run` would end with.
pub async fn execute(config: Result<Config, Unreadable>, json: bool, stop: CancellationToken) -> Result<(), Failure> {
    let report = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Failure::failed("stopped before everything was checked")),
        report = diagnose(config) => report,
    };
    let text = if json { report.json() } else { report.text() };
    // The output may be closed, as in `podlog check | head`; that is not a failure.
    std::io::stdout().write_all(text.as_bytes()).ok();
    report.outcome()
}

/// Checks everything.
pub(crate) async fn diagnose(config: Result<Config, Unreadable>) -> Report {
    let config = match config {
        Ok(config) => config,
        Err(unreadable) => return without_settings(&unreadable),
    };
    let (locks, sink, cluster) = tokio::join!(
        locks::diagnose(&config),
        sink::diagnose(&config),
        cluster::diagnose(&config)
    );
    let mut cluster_findings = cluster.findings;
    let (api, replicas) = (cluster.cluster.as_ref(), locks.replicas.as_deref());
    cluster_findings.push(cluster::grace(api, replicas.unwrap_or_default(), config.grace).await);
    let load = host::Load {
        pods: cluster.pods,
        http2: cluster.http2,
        replicas: replicas.map_or(0, <[_]>::len),
    };
    let host = host::diagnose(&config, &load).await;
    Report::new(vec![
        (Part::Settings, config::diagnose(&config)),
        (Part::Locks, locks.findings),
        (Part::Sink, sink),
        (Part::Cluster, cluster_findings),
        (Part::Host, host),
    ])
}

/// The report when the settings cannot be read: nothing else can be checked.
fn without_settings(Unreadable(failures): &Unreadable) -> Report {
    let rest = [Part::Locks, Part::Sink, Part::Cluster, Part::Host];
    let rest = rest.map(|part| {
        (
            part,
            vec![Finding::skipped("everything", "the settings cannot be read")],
        )
    });
    Report::new(
        [
            vec![(
                Part::Settings,
                failures.iter().map(|failure| failure.to_finding("reading")).collect(),
            )],
            rest.to_vec(),
        ]
        .concat(),
    )
}
