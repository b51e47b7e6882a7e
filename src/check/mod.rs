//! `podlog check`: is everything there that `podlog run` needs, and what is missing?
//!
//! Looks with the same code that `podlog run` opens things with, at every part whatever became of the others,
//! and leaves nothing behind. It collects nothing and repairs nothing.

mod cluster;
mod config;
mod host;
mod locks;
mod report;
mod sink;

use std::io::Write as _;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::{Finding, Outcome};
use crate::exit::Failure;
pub use report::{Part, Report};

/// How long one question to something outside may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Looks at everything and prints what was found. Fails with the status that `podlog run` would end with.
pub async fn check(config: Result<Config, Failure>, json: bool, stop: CancellationToken) -> Result<(), Failure> {
    let report = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Failure::unclean("stopped before everything was looked at")),
        report = diagnose(config) => report,
    };
    let text = if json { report.json() } else { report.text() };
    // Nobody may be reading any more, as in `podlog check | head`; that is no failure.
    std::io::stdout().write_all(text.as_bytes()).ok();
    report.outcome()
}

/// Looks at everything.
pub async fn diagnose(config: Result<Config, Failure>) -> Report {
    let config = match config {
        Ok(config) => config,
        Err(failure) => return refused(&failure),
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

/// Settings that cannot even be read: nothing else can be looked at.
fn refused(failure: &Failure) -> Report {
    let rest = [Part::Locks, Part::Sink, Part::Cluster, Part::Host];
    let rest = rest.map(|part| {
        (
            part,
            vec![Finding::skipped("everything", "the settings cannot be read")],
        )
    });
    Report::new(
        [
            vec![(Part::Settings, vec![finding_of("reading", failure)])],
            rest.to_vec(),
        ]
        .concat(),
    )
}

/// Whether all is there that opening needs: nothing failed or was skipped, and the tables are as they must be.
fn ready(findings: &[Finding], tables: &str) -> bool {
    findings.iter().all(|finding| match finding.outcome {
        Outcome::Ok => true,
        Outcome::Warning => finding.subject != tables,
        Outcome::Failed(_) | Outcome::Skipped => false,
    })
}

/// A failure as a finding. Its line ends in the remedy.
fn finding_of(subject: &str, failure: &Failure) -> Finding {
    let line = failure.to_string();
    let (found, remedy) = line.rsplit_once("; ").unwrap_or((&line, ""));
    Finding::failed(failure.cause(), subject, found, remedy)
}
