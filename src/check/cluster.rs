//! Checks the cluster: the API server, each right and the list of pods. It changes nothing there, and reads no log:
//! `logs` does.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::logs::{self, READING};
use super::prerequisites::DEADLINE;
use crate::cli::units::show;
use crate::cluster::{ApiError, Cluster, Scope, list_pods, rule};
use crate::config::Config;
use crate::domain::{Cause, ContainerState, Finding, Pod, ReplicaId};
use crate::exit::Failure;
use crate::metrics::Metrics;

const LISTING: &str = "listing pods";

/// The rights that podlog needs.
const RIGHTS: [(&str, &str); 4] = [
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "pods"),
    ("get", "pods/log"),
];

/// The most replicas whose pods are looked for.
const TRIES: usize = 3;

/// The findings, and what other checks need.
pub(super) struct ClusterFindings {
    pub(super) findings: Vec<Finding>,
    pub(super) cluster: Option<Cluster>,
    /// The selected pods; `None` unless all could be listed.
    pub(super) pods: Option<Vec<Pod>>,
    /// Whether the API server speaks HTTP/2; `None` if no log was read.
    pub(super) http2: Option<bool>,
}

pub(super) async fn diagnose(config: &Config) -> ClusterFindings {
    let scope = config.scope();
    let mut found = ClusterFindings {
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
    let (findings, http2) = logs::read(&cluster, all.as_deref()).await;
    found.findings.extend(findings);
    (found.cluster, found.pods, found.http2) = (Some(cluster), all, http2);
    found
}

fn scope_text(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "in all namespaces".into(), |name| format!("in namespace {name}"))
}

async fn connect(config: &Config) -> Result<(Finding, Cluster), Finding> {
    let subject = "connection";
    let made = timeout(DEADLINE, Cluster::connect(&config.access(), Metrics::default())).await;
    let timed_out = Failure::refused(format!("the credentials were not ready within {DEADLINE:?}"))
        .with_remedy("check the exec plugin in the kubeconfig");
    let failure = match made {
        Ok(Ok(cluster)) => match cluster.version().await {
            Ok(version) => return Ok((Finding::ok(subject, format!("Kubernetes {version} answers")), cluster)),
            Err(error) => error.into(),
        },
        Ok(Err(error)) => error.into(),
        Err(_) => timed_out,
    };
    Err(failure.to_finding(subject))
}

async fn exists(cluster: &Cluster, name: &str) -> Finding {
    let subject = format!("namespace {name}");
    match cluster.has_namespace(name).await {
        Ok(true) => Finding::ok(subject, "exists"),
        // `podlog run` starts, and collects its pods once it exists.
        Ok(false) => Finding::warning(subject, "does not exist", "create it, or correct --namespace"),
        Err(ApiError::Forbidden(_)) => Finding::skipped(
            subject,
            "these credentials may not get namespaces, and podlog does not need to",
        ),
        Err(error) => Failure::from(error).to_finding(subject),
    }
}

/// Checks each right. Also returns whether pods may be listed.
async fn rights(cluster: &Cluster, namespace: Option<&str>, who: &str) -> (Vec<Finding>, bool) {
    let (mut findings, mut may_list) = (Vec::new(), true);
    for (verb, resource) in RIGHTS {
        let subject = format!("{verb} {resource} {}", scope_text(namespace));
        let finding = match cluster.may(verb, resource, namespace).await {
            Ok(true) => Finding::ok(subject, "allowed"),
            Ok(false) => {
                let role =
                    namespace.map_or_else(|| "a ClusterRole".into(), |name| format!("a Role in namespace {name}"));
                let remedy = format!("bind {role} with the rule: {}", rule(verb, resource));
                Finding::failed(
                    Cause::Refused,
                    subject,
                    format!("{who} does not have this right"),
                    remedy,
                )
            }
            Err(error) => Failure::from(error).to_finding(subject),
        };
        may_list &= verb != "list" || !finding.has_failed();
        findings.push(finding);
    }
    (findings, may_list)
}

async fn list(cluster: &Cluster, scope: &Scope, namespace: Option<&str>, may: bool) -> (Finding, Option<Vec<Pod>>) {
    let subject = format!("{LISTING} {}", scope_text(namespace));
    if !may {
        return (Finding::skipped(subject, "the right is missing"), None);
    }
    if scope.check().is_err() {
        return (Finding::skipped(subject, "the selection is wrong"), None);
    }
    match list_pods(cluster, scope, namespace).await {
        Ok(pods) if pods.is_empty() => {
            let remedy = "if that is unexpected, check --selector, --field-selector and --opt-in";
            (Finding::warning(subject, "no pod is selected now", remedy), Some(pods))
        }
        Ok(pods) => (
            Finding::ok(subject, format!("{} pods are selected now", pods.len())),
            Some(pods),
        ),
        Err(error) => (Failure::from(error).to_finding(subject), None),
    }
}

/// How many containers of these pods are running. Each needs a stream.
pub(super) fn running(pods: &[Pod]) -> usize {
    pods.iter().map(streams).sum()
}

fn streams(pod: &Pod) -> usize {
    let runs = |state: &ContainerState| matches!(state, ContainerState::Running(_) | ContainerState::RunningWithoutId);
    pod.containers.iter().filter(|container| runs(&container.state)).count()
}

/// Warns about the node with the most containers, if it has more than --streams-per-node.
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
        "if that is too slow, raise --streams-per-node, and fs.inotify.max_user_instances on the nodes",
    ))
}

/// Compares --grace with the termination grace period of the replicas, if they are pods.
pub(super) async fn grace(cluster: Option<&Cluster>, replicas: &[ReplicaId], grace: Duration) -> Finding {
    let subject = "grace";
    let Some(cluster) = cluster else {
        return Finding::skipped(subject, "the API server was not reached");
    };
    let Some(namespace) = own_namespace() else {
        return Finding::skipped(
            subject,
            "podlog check does not run in a pod, so the pods of the replicas are not known",
        );
    };
    // A replica ID is `name#suffix`. The name is that of the pod, unless --replica-id is set.
    let names = replicas
        .iter()
        .filter_map(|id| id.as_str().rsplit_once('#'))
        .map(|(name, _)| name.to_owned());
    for name in names.take(TRIES) {
        if let Ok(Some(given)) = cluster.termination_grace(&namespace, &name).await {
            return compare_grace(&name, given, grace);
        }
    }
    Finding::skipped(
        subject,
        format!("no pod of a replica was found in namespace {namespace}"),
    )
}

fn compare_grace(pod: &str, given: Duration, grace: Duration) -> Finding {
    let found = format!(
        "--grace is {}, the grace period of pod {pod} is {}",
        show(grace),
        show(given)
    );
    if given > grace {
        return Finding::ok("grace", found);
    }
    let remedy = format!("set terminationGracePeriodSeconds to {} or more", grace.as_secs() + 5);
    Finding::warning(
        "grace",
        format!("{found}: it may be killed before it has released its claims"),
        remedy,
    )
}

/// The namespace of the pod in which this process runs.
fn own_namespace() -> Option<String> {
    let configured = std::env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty());
    let mounted = || std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok();
    configured.or_else(mounted).map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Outcome;

    #[test]
    fn the_grace_period_of_a_pod_must_be_longer_than_the_grace_of_podlog() {
        let seconds = Duration::from_secs;
        assert_eq!(compare_grace("a", seconds(30), seconds(20)).outcome, Outcome::Ok);
        let short = compare_grace("a", seconds(20), seconds(20));
        assert_eq!(short.outcome, Outcome::Warning);
        assert!(
            short.message.remedy.contains("to 25 or more"),
            "{}",
            short.message.remedy
        );
    }
}
