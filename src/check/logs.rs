//! Checks the logs: one running pod of each node is read and followed for a moment, because what keeps a log from being
//! read is mostly a matter of the node. It stores nothing, and prints no line of a log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::prerequisites::DEADLINE;
use crate::cluster::{Cluster, LogError, LogQuery, open_log};
use crate::domain::line_decoder::{Batch, LineDecoder, ResumeMode};
use crate::domain::unstamped::Unstamped;
use crate::domain::{Cause, ContainerState, Finding, Message, Pod};

/// The subject of the findings.
pub(super) const READING: &str = "reading a log";

/// The most pods of a node that are tried: a pod may be deleted just before its log is read.
const TRIES: usize = 3;

/// Number of nodes that are read at once.
const NODES_AT_ONCE: usize = 16;

/// The longest time for all nodes. In 30 s, 300 nodes can be read (16 at once, 1.5 s each).
const TOTAL: Duration = Duration::from_secs(30);

/// How long a stream must stay open.
const FOLLOWED: Duration = Duration::from_secs(1);

/// The most failures that are listed one by one.
const LISTED: usize = 10;

/// The longest line that is looked at.
const MAX_LINE: usize = 64 * 1024;

/// A container that may be read.
struct Candidate<'a> {
    pod: &'a Pod,
    container: &'a Arc<str>,
    /// Whether its instance runs, so that its log can be followed.
    runs: bool,
}

/// What reading a log of one node has shown.
enum NodeLog {
    /// It can be read.
    Read { found: String, http2: bool },
    /// There is nothing to read yet.
    NotYet(String),
    /// It cannot be read.
    Failed(Cause, Message),
}

/// Reads a log of each node. Also returns whether that was over HTTP/2.
pub(super) async fn read(cluster: &Cluster, pods: Option<&[Pod]>) -> (Vec<Finding>, Option<bool>) {
    let Some(pods) = pods else {
        return (vec![Finding::skipped(READING, "the pods could not be listed")], None);
    };
    let nodes = candidates(pods);
    let all = nodes.len();
    let reads: Vec<BoxFuture<'_, (&str, NodeLog)>> = nodes
        .into_iter()
        .map(|(node, candidates)| read_node(cluster, node, candidates).boxed())
        .collect();
    let mut reads = futures::stream::iter(reads).buffer_unordered(NODES_AT_ONCE);
    let (until, mut results) = (Instant::now() + TOTAL, BTreeMap::new());
    while let Ok(Some((node, result))) = timeout_at(until, reads.next()).await {
        results.insert(node, result);
    }
    summary(&results, all, without_id(pods))
}

/// The containers to try on each node: running ones first, because the logs of ended pods may be deleted.
fn candidates(pods: &[Pod]) -> BTreeMap<&str, Vec<Candidate<'_>>> {
    let mut nodes: BTreeMap<&str, Vec<Candidate<'_>>> = BTreeMap::new();
    for pod in pods {
        let Some(node) = pod.node.as_deref() else { continue };
        let found = pod.containers.iter().find_map(|container| {
            let runs = matches!(container.state, ContainerState::Running(_));
            runs.then_some((container, true))
        });
        let ended = || {
            pod.containers
                .iter()
                .find(|container| container.state.instance().is_some())
        };
        let Some((container, runs)) = found.or_else(|| ended().map(|container| (container, false))) else {
            continue;
        };
        nodes.entry(node).or_default().push(Candidate {
            pod,
            container: &container.name,
            runs,
        });
    }
    for candidates in nodes.values_mut() {
        candidates.sort_by_key(|candidate| !candidate.runs);
        candidates.truncate(TRIES);
    }
    // Ended pods show nothing about a node that has no running one, unless there is no other.
    if nodes.values().any(|candidates| candidates[0].runs) {
        nodes.retain(|_, candidates| candidates[0].runs);
    }
    nodes
}

/// The containers that run although their status has no ID of the instance, as `namespace/pod`.
fn without_id(pods: &[Pod]) -> Option<Finding> {
    let unnamed = pods.iter().filter(|pod| {
        let mut states = pod.containers.iter().map(|container| &container.state);
        states.any(|state| matches!(state, ContainerState::RunningWithoutId))
    });
    let names: Vec<String> = unnamed.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let first = names.first()?;
    Some(Finding::failed(
        Cause::Refused,
        READING,
        format!(
            "the status of {} pods shows running containers without containerID, so their logs cannot be read, for example {first}",
            names.len()
        ),
        "the kubelet must set status.containerStatuses[].containerID",
    ))
}

async fn read_node<'a>(cluster: &Cluster, node: &'a str, candidates: Vec<Candidate<'a>>) -> (&'a str, NodeLog) {
    let mut result = NodeLog::NotYet(format!("no selected pod of node {node} has a log yet"));
    for candidate in &candidates {
        result = read_log(cluster, node, candidate).await;
        if !matches!(result, NodeLog::NotYet(_)) {
            break;
        }
    }
    (node, result)
}

async fn read_log(cluster: &Cluster, node: &str, candidate: &Candidate<'_>) -> NodeLog {
    let (pod, container) = (candidate.pod, candidate.container);
    let name = format!("{}/{}, container {container}", pod.namespace, pod.name);
    let query = LogQuery {
        namespace: pod.namespace.to_string(),
        pod: pod.name.to_string(),
        container: container.to_string(),
        follow: false,
        previous: false,
        since: None,
        // From the beginning, as `podlog run` reads it: a log may be damaged there and have good last lines.
        tail_lines: None,
    };
    let read = timeout(DEADLINE, first_lines(cluster, &query, node)).await;
    let (bytes, http2) = match read.unwrap_or_else(|_| Err(no_answer().into())) {
        Ok(read) => read,
        Err(LogFault::Error(error)) => return failed(&name, node, &error),
        Err(LogFault::Unstamped(message)) => {
            let text = format!("{name} on node {node}: {}", message.text);
            return NodeLog::Failed(Cause::Refused, Message::new(text, message.remedy));
        }
    };
    if candidate.runs {
        match ends_at_once(cluster, &query, pod).await {
            Ok(false) => {}
            Ok(true) => {
                let text = format!("{name} on node {node}: its stream ends at once, although the container runs");
                let remedy = "use a kubelet that keeps streams open (the providers of virtual nodes do not all), and check proxies between podlog and the API server";
                return NodeLog::Failed(Cause::Refused, Message::new(text, remedy));
            }
            Err(error) => return failed(&name, node, &error),
        }
    }
    let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
    let found = format!("{bytes} bytes of {name} came over {version}");
    NodeLog::Read { found, http2 }
}

/// Why the beginning of a log is of no use.
enum LogFault {
    Error(LogError),
    Unstamped(Message),
}

impl From<LogError> for LogFault {
    fn from(error: LogError) -> Self {
        Self::Error(error)
    }
}

fn no_answer() -> LogError {
    LogError::unavailable(format!("no answer within {DEADLINE:?}"))
}

/// Reads the first lines. Returns how many bytes came, and whether it was over HTTP/2.
async fn first_lines(cluster: &Cluster, query: &LogQuery, node: &str) -> Result<(usize, bool), LogFault> {
    let mut stream = open_log(cluster, query).await?;
    let (mut decoder, mut batch, mut bytes) = (LineDecoder::new(MAX_LINE), Batch::default(), 0);
    decoder.begin(ResumeMode::All);
    while decoder.stats().lines == 0
        && let Some(some) = stream.next().await?
    {
        bytes += some.len();
        decoder.feed(&some, &mut batch);
        batch = Batch::default();
    }
    decoder.finish(false, &mut batch);
    let stats = decoder.stats();
    if stats.ends_in_kubelet_message && stats.lines == 0 {
        let (Unstamped::KubeletError(message) | Unstamped::NoTimestamps(message)) =
            Unstamped::new(decoder.unstamped_line(), stats.lines, node);
        return Err(LogFault::Unstamped(message));
    }
    Ok((bytes, stream.version() == http::Version::HTTP_2))
}

/// Whether a stream of the log ends at once although the same instance still runs.
async fn ends_at_once(cluster: &Cluster, query: &LogQuery, pod: &Pod) -> Result<bool, LogError> {
    let query = LogQuery {
        follow: true,
        tail_lines: Some(1),
        ..query.clone()
    };
    let mut stream = timeout(DEADLINE, open_log(cluster, &query))
        .await
        .unwrap_or_else(|_| Err(no_answer()))?;
    let end = async {
        while stream.next().await?.is_some() {}
        Ok(())
    };
    match timeout(FOLLOWED, end).await {
        Err(_) => Ok(false),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => {
            let now = cluster.pod(&pod.namespace, &pod.name).await.ok().flatten();
            let state = |pod: &Pod| pod.container(&query.container).map(|container| container.state.clone());
            Ok(now.is_some_and(|now| now.uid == pod.uid && state(&now) == state(pod)))
        }
    }
}

fn failed(name: &str, node: &str, error: &LogError) -> NodeLog {
    let message = error.message();
    let cause = match error {
        LogError::NotFound | LogError::NoStatus(_) | LogError::Waiting | LogError::NotScheduled => {
            return NodeLog::NotYet(format!("{name}: {}", message.text));
        }
        LogError::Forbidden(_)
        | LogError::Rejected(_)
        | LogError::KubeletRefused(_)
        | LogError::KubeletRejected(_)
        | LogError::NoPrevious => Cause::Refused,
        LogError::KubeletUnreachable(_)
        | LogError::KubeletFailed(_)
        | LogError::Proxy(_)
        | LogError::Throttled { .. }
        | LogError::Unavailable(_) => Cause::Unreachable,
    };
    let remedy = if message.remedy.is_empty() {
        "check that the kubelet of its node answers the API server".into()
    } else {
        message.remedy
    };
    NodeLog::Failed(
        cause,
        Message::new(format!("{name} on node {node}: {}", message.text), remedy),
    )
}

/// The findings about all nodes. `all`: how many there are.
fn summary(results: &BTreeMap<&str, NodeLog>, all: usize, without_id: Option<Finding>) -> (Vec<Finding>, Option<bool>) {
    let mut findings: Vec<Finding> = without_id.into_iter().collect();
    let (mut read, mut failed, mut first, mut not_yet) = (0, 0, None, None::<&String>);
    for (node, result) in results {
        match result {
            NodeLog::Read { found, http2 } => {
                read += 1;
                first.get_or_insert((found, *http2));
            }
            NodeLog::NotYet(why) => drop(not_yet.get_or_insert(why)),
            NodeLog::Failed(cause, message) => {
                failed += 1;
                if failed <= LISTED {
                    findings.push(Finding::failed(*cause, READING, &*message.text, &*message.remedy));
                } else if failed == LISTED + 1 {
                    let text = format!("logs of more nodes cannot be read, for example of node {node}");
                    findings.push(Finding::failed(*cause, READING, text, &*message.remedy));
                }
            }
        }
    }
    let of = format!("of {all} nodes, the logs of {read} can be read and those of {failed} cannot");
    match (first, not_yet) {
        (Some((found, _)), _) if results.len() < all => findings.push(Finding::warning(
            READING,
            format!(
                "{found}; {of}; the others were not tried, because {} s were over",
                TOTAL.as_secs()
            ),
            "run podlog check again with --namespace or --selector to try the others",
        )),
        (Some((found, _)), Some(why)) => findings.push(Finding::warning(
            READING,
            format!("{found}; {of}; others have no log, for example {why}"),
            "run podlog check again; if it stays like this, look at the kubelet of that node",
        )),
        (Some((found, _)), None) => findings.push(Finding::ok(READING, format!("{found}; {of}"))),
        (None, Some(why)) if findings.is_empty() => findings.push(Finding::skipped(READING, why)),
        (None, None) if findings.is_empty() => {
            findings.push(Finding::skipped(READING, "no selected pod has a log yet"));
        }
        (None, _) => {}
    }
    (findings, first.map(|(_, http2)| http2))
}
