//! The cluster: the API server, each right by asking for it, the pods, and one real read of a log.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::{DEADLINE, finding_of};
use crate::cli::units::show;
use crate::cluster::{ApiError, Cluster, LogError, LogQuery, Scope, list_pods, open_log, rule};
use crate::config::Config;
use crate::domain::{Cause, Finding, Phase, Pod, ReplicaId, State};
use crate::exit::Failure;
use crate::metrics::Metrics;

const LISTING: &str = "listing pods";
const READING: &str = "reading a log";

/// The rights that podlog needs.
const RIGHTS: [(&str, &str); 4] = [
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "pods"),
    ("get", "pods/log"),
];

/// Pods whose logs are tried: one may vanish at the moment it is asked for.
const TRIES: usize = 3;

/// What was found.
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    pub(super) cluster: Option<Cluster>,
    /// The pods that are selected, when all could be listed.
    pub(super) pods: Option<Vec<Pod>>,
    /// Whether logs come over HTTP/2, when one was read.
    pub(super) http2: Option<bool>,
}

pub(super) async fn diagnose(config: &Config) -> Found {
    let scope = config.scope();
    let mut found = Found {
        findings: Vec::new(),
        cluster: None,
        pods: None,
        http2: None,
    };
    let cluster = match connect(config).await {
        Ok((finding, cluster)) => {
            found.findings.push(finding);
            cluster
        }
        Err(finding) => {
            let rest = ["rights", LISTING, READING];
            let skipped = rest.map(|subject| Finding::skipped(subject, "the API server was not reached"));
            found.findings = [vec![finding], skipped.to_vec()].concat();
            return found;
        }
    };
    let who = cluster.user().await.ok().filter(|who| !who.is_empty());
    let who = who.unwrap_or_else(|| "this user".into());
    let mut all = Some(Vec::new());
    for namespace in scope.list_namespaces() {
        if let Some(name) = namespace {
            found.findings.push(exists(&cluster, name).await);
        }
        let (findings, may_list) = rights(&cluster, namespace, &who).await;
        found.findings.extend(findings);
        let (finding, pods) = list(&cluster, &scope, namespace, may_list).await;
        found.findings.push(finding);
        all = all.zip(pods).map(|(all, pods)| [all, pods].concat());
    }
    found
        .findings
        .extend(all.as_deref().and_then(|pods| crowded(pods, config)));
    let (finding, http2) = read(&cluster, all.as_deref()).await;
    found.findings.push(finding);
    (found.cluster, found.pods, found.http2) = (Some(cluster), all, http2);
    found
}

fn place(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "in all namespaces".into(), |name| format!("in namespace {name}"))
}

async fn connect(config: &Config) -> Result<(Finding, Cluster), Finding> {
    let subject = "connection";
    let made = timeout(DEADLINE, Cluster::connect(&config.access(), Metrics::default())).await;
    let late = Failure::refused(format!(
        "the credentials were not made within {DEADLINE:?}; look at the exec plugin in the kubeconfig"
    ));
    let failure = match made {
        Ok(Ok(cluster)) => match cluster.version().await {
            Ok(version) => return Ok((Finding::ok(subject, format!("Kubernetes {version} answers")), cluster)),
            Err(error) => error.into(),
        },
        Ok(Err(error)) => error.into(),
        Err(_) => late,
    };
    Err(finding_of(subject, &failure))
}

async fn exists(cluster: &Cluster, name: &str) -> Finding {
    let subject = format!("namespace {name}");
    match cluster.has_namespace(name).await {
        Ok(true) => Finding::ok(subject, "exists"),
        Ok(false) => Finding::failed(
            Cause::Refused,
            subject,
            "does not exist",
            "create it, or correct --namespace",
        ),
        Err(ApiError::Forbidden(_)) => Finding::skipped(
            subject,
            "these credentials may not look at namespaces, which podlog need not",
        ),
        Err(error) => finding_of(&subject, &error.into()),
    }
}

/// Asks for each right. Answers also whether pods may be listed.
async fn rights(cluster: &Cluster, namespace: Option<&str>, who: &str) -> (Vec<Finding>, bool) {
    let (mut findings, mut may_list) = (Vec::new(), true);
    for (verb, resource) in RIGHTS {
        let subject = format!("{verb} {resource} {}", place(namespace));
        let finding = match cluster.may(verb, resource, namespace).await {
            Ok(true) => Finding::ok(subject, "allowed"),
            Ok(false) => {
                let role =
                    namespace.map_or_else(|| "a ClusterRole".into(), |name| format!("a Role in namespace {name}"));
                let remedy = format!("bind {role} with the rule: {}", rule(verb, resource));
                Finding::failed(Cause::Refused, subject, format!("{who} has not this right"), remedy)
            }
            Err(error) => finding_of(&subject, &error.into()),
        };
        may_list &= verb != "list" || !finding.has_failed();
        findings.push(finding);
    }
    (findings, may_list)
}

async fn list(cluster: &Cluster, scope: &Scope, namespace: Option<&str>, may: bool) -> (Finding, Option<Vec<Pod>>) {
    let subject = format!("{LISTING} {}", place(namespace));
    if !may {
        return (Finding::skipped(subject, "the right is missing"), None);
    }
    if scope.check().is_err() {
        return (Finding::skipped(subject, "the selection is wrong"), None);
    }
    match list_pods(cluster, scope, namespace).await {
        Ok(pods) if pods.is_empty() => {
            let remedy = "should that be unexpected, look at --selector, --field-selector and --opt-in";
            (Finding::warning(subject, "no pod is selected now", remedy), Some(pods))
        }
        Ok(pods) => (
            Finding::ok(subject, format!("{} pods are selected now", pods.len())),
            Some(pods),
        ),
        Err(error) => (finding_of(&subject, &error.into()), None),
    }
}

/// How many containers run in these pods: each is a stream.
pub(super) fn running(pods: &[Pod]) -> usize {
    pods.iter().map(streams).sum()
}

fn streams(pod: &Pod) -> usize {
    let runs = |state: &State| matches!(state, State::Running(_));
    pod.containers.iter().filter(|container| runs(&container.state)).count()
}

/// Nodes with more containers than streams are allowed.
fn crowded(pods: &[Pod], config: &Config) -> Option<Finding> {
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods {
        *nodes.entry(pod.node.as_deref().unwrap_or_default()).or_default() += streams(pod);
    }
    let limit = config.streams.per_node;
    let (node, count) = nodes
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .filter(|(_, count)| *count > limit)?;
    Some(Finding::warning(
        "streams per node",
        format!(
            "{count} containers run on node {node}, and --streams-per-node is {limit}; the others are read every {}",
            show(config.selection.poll)
        ),
        "raise it together with fs.inotify.max_user_instances of the nodes, if that is too slow",
    ))
}

/// Reads one line of one log. Answers also whether that came over HTTP/2.
async fn read(cluster: &Cluster, pods: Option<&[Pod]>) -> (Finding, Option<bool>) {
    let Some(pods) = pods else {
        return (Finding::skipped(READING, "the pods could not be listed"), None);
    };
    let mut finding = Finding::skipped(READING, "no selected pod has a log yet");
    // Those that run first: the logs of ended ones may be gone.
    let has = pods.iter().filter(|pod| pod.has_log());
    let (mut first, rest): (Vec<&Pod>, Vec<&Pod>) = has.partition(|pod| pod.phase == Phase::Running);
    first.extend(rest);
    for pod in first.into_iter().take(TRIES) {
        let ran = pod
            .containers
            .iter()
            .find(|container| container.state.instance().is_some());
        let Some(container) = ran else { continue };
        let query = LogQuery {
            namespace: pod.namespace.to_string(),
            pod: pod.name.to_string(),
            container: container.name.to_string(),
            follow: false,
            previous: false,
            since: None,
            tail_lines: Some(1),
        };
        let name = format!("{}/{}, container {}", pod.namespace, pod.name, container.name);
        match timeout(DEADLINE, last_line(cluster, &query)).await {
            Ok(Ok((bytes, http2))) => {
                let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
                let found = format!("{bytes} bytes of {name} came over {version}");
                return (Finding::ok(READING, found), Some(http2));
            }
            Ok(Err(LogError::NotFound | LogError::Waiting | LogError::NotScheduled)) => {
                finding = Finding::skipped(READING, format!("{name} went away meanwhile"));
            }
            Ok(Err(error)) => finding = unread(&name, &error),
            Err(_) => {
                let late = LogError::unavailable(format!("no answer within {DEADLINE:?}"));
                finding = unread(&name, &late);
            }
        }
    }
    (finding, None)
}

fn unread(name: &str, error: &LogError) -> Finding {
    let found = format!("{name}: {error}");
    match error {
        LogError::Forbidden(_) | LogError::Rejected(_) => Finding::failed(Cause::Refused, READING, found, ""),
        _ => Finding::failed(
            Cause::Unreachable,
            READING,
            found,
            "look whether the kubelet of its node answers the API server",
        ),
    }
}

async fn last_line(cluster: &Cluster, query: &LogQuery) -> Result<(usize, bool), LogError> {
    let mut stream = open_log(cluster, query).await?;
    let mut bytes = 0;
    while let Some(some) = stream.next().await? {
        bytes += some.len();
    }
    Ok((bytes, stream.version() == http::Version::HTTP_2))
}

/// Compares the time a replica takes to end with what Kubernetes gives it, where the replicas are pods.
pub(super) async fn grace(cluster: Option<&Cluster>, replicas: &[ReplicaId], grace: Duration) -> Finding {
    let subject = "grace";
    let Some(cluster) = cluster else {
        return Finding::skipped(subject, "the API server was not reached");
    };
    let Some(namespace) = own_namespace() else {
        return Finding::skipped(subject, "this is no pod, so the pods of the replicas are not known");
    };
    // `name#suffix`, where the name is that of the pod unless --replica-id says otherwise.
    let names = replicas
        .iter()
        .filter_map(|id| id.as_str().rsplit_once('#'))
        .map(|(name, _)| name.to_owned());
    for name in names.take(TRIES) {
        if let Ok(Some(given)) = cluster.termination_grace(&namespace, &name).await {
            return suffices(&name, given, grace);
        }
    }
    Finding::skipped(
        subject,
        format!("no pod of a replica was found in namespace {namespace}"),
    )
}

fn suffices(pod: &str, given: Duration, grace: Duration) -> Finding {
    let found = format!("--grace is {}, pod {pod} is given {} to end", show(grace), show(given));
    if given > grace {
        return Finding::ok("grace", found);
    }
    let remedy = format!("set terminationGracePeriodSeconds to {} or more", grace.as_secs() + 5);
    Finding::warning(
        "grace",
        format!("{found}: it may be killed before its claims are given back"),
        remedy,
    )
}

/// The namespace of the pod this runs in.
fn own_namespace() -> Option<String> {
    let told = std::env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty());
    let mounted = || std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok();
    told.or_else(mounted).map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Outcome;

    #[test]
    fn a_pod_must_be_given_more_time_than_it_takes() {
        let seconds = Duration::from_secs;
        assert_eq!(suffices("a", seconds(30), seconds(20)).outcome, Outcome::Ok);
        let short = suffices("a", seconds(20), seconds(20));
        assert_eq!(short.outcome, Outcome::Warning);
        assert!(
            short.message.remedy.contains("to 25 or more"),
            "{}",
            short.message.remedy
        );
    }
}
