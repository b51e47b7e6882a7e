//! Checks the sink: its own findings, and whether `podlog run` can open it. It stores no record.

use tokio::time::timeout;

use super::prerequisites::{DEADLINE, is_ready};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::diagnose::TABLES;
use crate::domain::Finding;
use crate::exit::Failure;
use crate::metrics::Metrics;
use crate::sinks::{self, DiagnoseOptions, SinkUrl};

const OPENING: &str = "opening";

pub(super) async fn diagnose(config: &Config) -> Vec<Finding> {
    let url = &config.sink.url;
    let options = DiagnoseOptions {
        migrates: config.migrate,
        retains: config.sink.retain.is_some(),
        max_line: config.streams.max_line,
    };
    let mut findings = sinks::diagnose(url, options).await;
    // Opening a file sink would create directories, and opening stdout checks nothing.
    if url.is_transactional() {
        findings.push(if is_ready(&findings, TABLES) {
            open(config, url).await
        } else {
            Finding::skipped(OPENING, "the sink is not ready")
        });
    }
    findings
}

/// Opens the sink as `podlog run` does.
async fn open(config: &Config, url: &SinkUrl) -> Finding {
    let metrics = Metrics::default();
    let opening = sinks::open(url, Clock::boottime(), &metrics, config.sink.timeout);
    match timeout(DEADLINE, opening).await {
        Ok(Ok(_)) => Finding::ok(OPENING, "works as in `podlog run`"),
        Ok(Err(error)) => Failure::from(error).to_finding(OPENING),
        Err(_) => {
            let timed_out = Failure::unreachable(format!("{url} did not answer within {DEADLINE:?}"))
                .with_remedy("check whether it is overloaded");
            timed_out.to_finding(OPENING)
        }
    }
}
