//! Checks this machine: whether the limit of open files is high enough, and whether the HTTP address is free. It
//! changes no limit.

use std::net::SocketAddr;

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::cluster::running;
use super::prerequisites::DEADLINE;
use crate::cluster::connections;
use crate::config::Config;
use crate::domain::{Cause, Finding, Pod};
use crate::status::server;

/// Open files of every replica: standard streams, the files of the runtimes, signals, and some requests to `--http`.
const BASE: usize = 40;

/// The load that the replicas share.
pub(super) struct Load {
    /// The selected pods, if they are known.
    pub(super) pods: Option<Vec<Pod>>,
    /// Whether the API server speaks HTTP/2, if that is known.
    pub(super) http2: Option<bool>,
    /// Replicas that are alive. 0 counts as 1: the one that will be started.
    pub(super) replicas: usize,
}

pub(super) async fn diagnose(config: &Config, load: &Load) -> Vec<Finding> {
    let mut findings = vec![files(config, load)];
    if let Some(pods) = &load.pods
        && pods.len() > config.max_pods * load.replicas.max(1)
    {
        findings.push(Finding::warning(
            "--max-pods",
            format!(
                "{} pods are selected, more than {} times --max-pods; some would not be collected",
                pods.len(),
                load.replicas.max(1)
            ),
            "start more replicas, or raise --max-pods of all of them",
        ));
    }
    if let Some(address) = config.http {
        findings.push(http(address).await);
    }
    findings
}

fn files(config: &Config, load: &Load) -> Finding {
    let subject = "open files";
    let Some(pods) = &load.pods else {
        return Finding::skipped(subject, "the pods could not be listed");
    };
    let streams = running(pods).div_ceil(load.replicas.max(1)).min(config.streams.open);
    // Unknown if no log was read. API servers usually speak HTTP/2.
    let http2 = load.http2.unwrap_or(true);
    let net = connections(streams, config.selection.namespaces.len().max(1), http2);
    let stores = config.store.url.open_files() + config.sink.url.open_files(streams);
    let what = format!(
        "{streams} streams, with {} replicas, over {net} connections; {stores} for lock store and sink; {BASE} for the rest",
        load.replicas.max(1)
    );
    enough(&what, net + stores + BASE, getrlimit(Resource::Nofile).current)
}

/// Compares the need with the limit; `None` is no limit. A fifth of the limit must be left for more pods.
fn enough(what: &str, need: usize, limit: Option<u64>) -> Finding {
    let subject = "open files";
    let Some(limit) = limit else {
        return Finding::ok(
            subject,
            format!("about {need} are needed ({what}), and there is no limit"),
        );
    };
    let need = need as u64;
    let found = format!("about {need} are needed ({what}), and the limit is {limit}");
    let remedy = "raise it with ulimit -n, LimitNOFILE in systemd, or in the container runtime";
    if need > limit {
        Finding::failed(Cause::Machine, subject, found, remedy)
    } else if need * 5 > limit * 4 {
        Finding::warning(subject, format!("{found}; little is left for more pods"), remedy)
    } else {
        Finding::ok(subject, found)
    }
}

/// Whether the address is free, or a replica listens there already.
async fn http(address: SocketAddr) -> Finding {
    let subject = format!("--http {address}");
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    match server::listen(address).await {
        Ok(_) if in_pod && address.ip().is_loopback() => Finding::warning(
            subject,
            "free, but it cannot be reached from outside this pod",
            "use 0.0.0.0 as the address",
        ),
        Ok(_) => Finding::ok(subject, "free"),
        Err(message) => {
            if let Ok(Ok(true)) = timeout(DEADLINE, answers(address)).await {
                return Finding::ok(subject, "a replica answers there");
            }
            Finding::warning(subject, message.text, message.remedy)
        }
    }
}

/// Whether a replica of podlog listens there. The names of its metrics show it.
async fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).contains("podlog_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Outcome;

    #[test]
    fn the_need_for_open_files_is_compared_with_the_limit() {
        let outcome = |need, limit| enough("", need, limit).outcome;
        assert_eq!(outcome(80, Some(100)), Outcome::Ok);
        assert_eq!(outcome(81, Some(100)), Outcome::Warning);
        assert_eq!(outcome(101, Some(100)), Outcome::Failed(Cause::Machine));
        assert_eq!(outcome(1 << 30, None), Outcome::Ok);
    }

    #[test]
    fn a_hundred_streams_share_a_connection_only_over_http2() {
        // One more stream for the reads beside the open streams, and one connection for lists and watches.
        assert_eq!(connections(0, 1, true), 2);
        assert_eq!(connections(99, 1, true), 2);
        assert_eq!(connections(100, 1, true), 3);
        assert_eq!(connections(8000, 1, true), 82);
        assert_eq!(connections(8000, 1, false), 8003);
    }

    #[tokio::test]
    async fn an_http_address_in_use_is_a_warning() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let finding = tokio::select! {
            finding = http(address) => finding,
            // Accepts the connection and closes it without an answer.
            () = async { loop { drop(taken.accept().await); } } => unreachable!(),
        };
        assert_eq!(finding.outcome, Outcome::Warning, "{finding:?}");
        assert!(
            finding.message.text.contains("in use") && finding.message.remedy.contains("--http off"),
            "{finding:?}"
        );
    }
}
