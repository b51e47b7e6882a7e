//! What podlog relies on in an API server. Each function is one clause. All clauses are tested on the simulated
//! cluster, in the process and behind a port, and on a real cluster if KUBECONFIG names one, which shows that the
//! simulated one is right.

use futures::{AsyncReadExt, StreamExt, TryStreamExt};
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams, WatchEvent, WatchParams};
use kube::client::Body;

use crate::test_cluster::{RealTestCluster, Script, SimTestCluster, TestCluster, phase};

macro_rules! contract {
    ($($clause:ident),* $(,)?) => {
        mod simulated {
            $(#[tokio::test(start_paused = true)]
            async fn $clause() {
                super::$clause(&super::SimTestCluster::in_process()).await;
            })*
        }
        mod behind_a_port {
            $(#[tokio::test]
            async fn $clause() {
                super::$clause(&super::SimTestCluster::behind_a_port().await).await;
            })*
        }
        mod real {
            $(#[tokio::test]
            async fn $clause() {
                if let Some(cluster) = super::RealTestCluster::from_environment().await {
                    super::$clause(&cluster).await;
                }
            })*
        }
    };
}

contract! {
    a_watch_continues_where_the_list_ended,
    selectors_choose_pods,
    pages_add_up_to_the_list,
    an_unknown_version_is_refused,
    the_status_of_a_finished_pod_has_its_exit_code,
    a_log_contains_the_printed_lines,
    a_stream_that_follows_a_log_ends_when_the_container_ends,
    a_log_can_be_limited,
    since_time_is_truncated_to_whole_seconds,
    invalid_log_parameters_are_refused,
    a_log_request_must_name_the_container_if_a_pod_has_several,
    an_unscheduled_pod_has_an_empty_log,
    the_status_of_a_container_that_cannot_start_has_the_reason,
    a_deleted_pod_has_no_log,
    unknown_paths_and_wrong_methods_are_refused,
}

const PRINTS: Script = Script {
    name: "app",
    prints: &["one", "two", "three"],
    exits: Some(0),
};
const STAYS: Script = Script { exits: None, ..PRINTS };

/// Each clause has pods of its own, because on a real cluster all are played at once.
macro_rules! name {
    ($text:literal) => {
        concat!("podlog-", $text)
    };
}

async fn a_watch_continues_where_the_list_ended(cluster: &impl TestCluster) {
    let name = name!("watched");
    cluster.delete_leftover(name).await;
    let before = cluster.pods().list(&ListParams::default()).await.unwrap();
    let version = before.metadata.resource_version.unwrap();
    cluster.run(name, &[PRINTS]).await;
    cluster.delete(name).await;
    let params = WatchParams::default().labels(&format!("app={name}")).timeout(60);
    let mut events = cluster.pods().watch(&params, &version).await.unwrap().boxed();
    let mut kinds = Vec::new();
    let mut versions = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        let (kind, pod): (_, Pod) = match event {
            WatchEvent::Added(pod) => ("added", pod),
            WatchEvent::Modified(pod) => ("modified", pod),
            WatchEvent::Deleted(pod) => ("deleted", pod),
            other => panic!("{other:?}"),
        };
        assert_eq!(pod.name_any(), name);
        versions.push(pod.resource_version().unwrap().parse::<u64>().unwrap());
        kinds.push(kind);
        if kind == "deleted" {
            break;
        }
    }
    assert!(versions.is_sorted(), "{versions:?}");
    kinds.dedup();
    assert_eq!(kinds, ["added", "modified", "deleted"]);
}

async fn selectors_choose_pods(cluster: &impl TestCluster) {
    let (one, two) = (name!("select-1"), name!("select-2"));
    cluster.run(one, &[STAYS]).await;
    cluster.run(two, &[PRINTS]).await;
    let found = async |params: ListParams| -> Vec<String> {
        let pods = cluster.pods().list(&params).await.unwrap();
        pods.iter().map(ResourceExt::name_any).collect()
    };
    let all = ListParams::default().labels(&format!("app in ({one},{two})"));
    assert_eq!(found(all.clone()).await, [one, two]);
    assert_eq!(found(all.clone().fields("status.phase=Succeeded")).await, [two]);
    assert_eq!(found(all.clone().fields(&format!("metadata.name!={two}"))).await, [one]);
    assert_eq!(found(all.clone().fields("spec.nodeName=nowhere")).await, [""; 0]);
    assert_eq!(
        found(ListParams::default().labels(&format!("app={one},app!={two}"))).await,
        [one]
    );
    assert_eq!(
        found(ListParams::default().labels(&format!("app={one},!app"))).await,
        [""; 0]
    );
    let refused = cluster.get("?fieldSelector=status.reason%3Dx").await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST);
    cluster.delete(one).await;
}

async fn pages_add_up_to_the_list(cluster: &impl TestCluster) {
    let names = [name!("page-1"), name!("page-2"), name!("page-3")];
    for name in names {
        cluster.run_nowhere(name).await;
    }
    let mut seen = Vec::new();
    let mut params = ListParams::default().limit(2).fields("status.phase=Pending");
    loop {
        let page = cluster.pods().list(&params).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert!(
        names
            .iter()
            .all(|name| seen.iter().filter(|seen| seen == name).count() == 1),
        "{seen:?}"
    );
}

/// A version that was compacted away is refused. A real cluster that is younger than its first compaction still
/// has the first one, and then the right answer is everything since: no pod may be missing from it.
async fn an_unknown_version_is_refused(cluster: &impl TestCluster) {
    let name = name!("since-the-beginning");
    cluster.run_nowhere(name).await;
    let (status, answer) = cluster.get("?resourceVersion=nonsense").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let mut events = cluster
        .pods()
        .watch(&WatchParams::default(), "1")
        .await
        .unwrap()
        .boxed();
    let mut first = true;
    loop {
        let event = events.try_next().await.unwrap();
        match event {
            Some(WatchEvent::Error(status)) if first => {
                assert_eq!((status.code, &*status.reason), (410, "Expired"));
                assert!(events.try_next().await.unwrap().is_none());
                break;
            }
            Some(WatchEvent::Added(pod)) if !cluster.has_forgotten() => {
                if pod.name_any() == name {
                    break;
                }
            }
            Some(WatchEvent::Modified(_) | WatchEvent::Deleted(_)) if !first => {}
            Some(WatchEvent::Bookmark(_)) if !cluster.has_forgotten() => {}
            other => panic!("{other:?}"),
        }
        first = false;
    }
    cluster.delete(name).await;
}

async fn the_status_of_a_finished_pod_has_its_exit_code(cluster: &impl TestCluster) {
    let name = name!("failed");
    cluster
        .run(
            name,
            &[Script {
                exits: Some(3),
                ..PRINTS
            }],
        )
        .await;
    let pod = cluster.pods().get(name).await.unwrap();
    assert_eq!(phase(&pod), "Failed");
    let status = &pod.status.unwrap().container_statuses.unwrap()[0];
    let ended = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(ended.exit_code, 3);
    assert_eq!(ended.container_id, status.container_id);
    assert!(ended.container_id.as_ref().unwrap().contains("://"));
    assert!(ended.finished_at >= ended.started_at);
    assert_eq!(status.restart_count, 0);
}

async fn a_log_contains_the_printed_lines(cluster: &impl TestCluster) {
    let name = name!("printed");
    cluster.run(name, &[PRINTS]).await;
    assert_eq!(
        cluster.get(&format!("/{name}/log")).await,
        (StatusCode::OK, "one\ntwo\nthree\n".into())
    );
    let (_, stamped) = cluster.get(&format!("/{name}/log?timestamps=true")).await;
    let mut before = None;
    for line in stamped.lines() {
        let (stamp, _) = line.split_once(' ').unwrap();
        let digits = stamp.split_once('.').unwrap().1;
        assert_eq!(digits.chars().take_while(char::is_ascii_digit).count(), 9, "{line}");
        let stamp = Some(stamp.parse::<jiff::Timestamp>().unwrap());
        assert!(stamp >= before);
        before = stamp;
    }
}

async fn a_stream_that_follows_a_log_ends_when_the_container_ends(cluster: &impl TestCluster) {
    let name = name!("followed");
    cluster.run(name, &[PRINTS]).await;
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut text = String::new();
    let mut stream = Box::pin(cluster.pods().log_stream(name, &params).await.unwrap());
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "one\ntwo\nthree\n");
}

async fn a_log_can_be_limited(cluster: &impl TestCluster) {
    let name = name!("narrowed");
    cluster.run(name, &[PRINTS]).await;
    for (query, expected) in [
        ("tailLines=1", "three\n"),
        ("tailLines=0", ""),
        ("tailLines=2&follow=true", "two\nthree\n"),
        ("limitBytes=6", "one\ntw"),
        ("sinceSeconds=3600", "one\ntwo\nthree\n"),
        ("container=app&previous=false", "one\ntwo\nthree\n"),
    ] {
        let answer = cluster.get(&format!("/{name}/log?{query}")).await;
        assert_eq!(answer, (StatusCode::OK, expected.to_owned()), "{query}");
    }
}

async fn since_time_is_truncated_to_whole_seconds(cluster: &impl TestCluster) {
    let name = name!("since");
    cluster.run(name, &[PRINTS]).await;
    let (_, stamped) = cluster.get(&format!("/{name}/log?timestamps=true")).await;
    let last = stamped.lines().last().unwrap().split_once(' ').unwrap().0;
    let second = &last.parse::<jiff::Timestamp>().unwrap().to_string()[..19];
    let since = async |time: &str| cluster.get(&format!("/{name}/log?sinceTime={time}")).await;
    let (_, lines) = since(&format!("{second}.999999999Z")).await;
    assert!(lines.ends_with("three\n"), "{lines:?}");
    let (_, none) = since("2199-01-01T00:00:00Z").await;
    assert_eq!(none, "");
}

async fn invalid_log_parameters_are_refused(cluster: &impl TestCluster) {
    let name = name!("refused");
    cluster.run(name, &[PRINTS]).await;
    for (query, status, words) in [
        ("tailLines=-1", 422, "must be greater than or equal to 0"),
        ("limitBytes=0", 422, "must be greater than"),
        ("sinceSeconds=0", 422, "must be greater than"),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422, "at most one of"),
        ("stream=Stdout", 422, "may not be specified"),
        ("tailLines=many", 400, ""),
        ("sinceTime=yesterday", 400, ""),
        ("container=other", 400, "container other is not valid for pod"),
        ("previous=true", 400, "previous terminated container"),
    ] {
        let (found, answer) = cluster.get(&format!("/{name}/log?{query}")).await;
        assert_eq!(found.as_u16(), status, "{query}: {answer}");
        assert!(answer.contains(words), "{query}: {answer}");
        assert!(answer.contains(r#""kind":"Status""#), "{query}: {answer}");
    }
}

async fn a_log_request_must_name_the_container_if_a_pod_has_several(cluster: &impl TestCluster) {
    let name = name!("several");
    let other = Script {
        name: "other",
        prints: &["four"],
        ..PRINTS
    };
    cluster.run(name, &[PRINTS, other]).await;
    let (status, answer) = cluster.get(&format!("/{name}/log")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.contains("a container name must be specified"), "{answer}");
    assert!(answer.contains("[app other]"), "{answer}");
    assert_eq!(cluster.get(&format!("/{name}/log?container=other")).await.1, "four\n");
}

async fn an_unscheduled_pod_has_an_empty_log(cluster: &impl TestCluster) {
    let name = name!("unscheduled");
    cluster.run_nowhere(name).await;
    let answer = cluster.get(&format!("/{name}/log?follow=true")).await;
    assert_eq!(answer, (StatusCode::NO_CONTENT, String::new()));
    cluster.delete(name).await;
}

async fn the_status_of_a_container_that_cannot_start_has_the_reason(cluster: &impl TestCluster) {
    let name = name!("imageless");
    cluster.run_without_image(name).await;
    let (status, answer) = cluster.get(&format!("/{name}/log")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.contains("is waiting to start"), "{answer}");
    assert!(answer.contains("pull"), "{answer}");
    cluster.delete(name).await;
}

async fn a_deleted_pod_has_no_log(cluster: &impl TestCluster) {
    let name = name!("deleted");
    cluster.run(name, &[STAYS]).await;
    cluster.delete(name).await;
    let (status, answer) = cluster.get(&format!("/{name}/log")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(answer.contains(r#""reason":"NotFound""#), "{answer}");
    let error = cluster.pods().get(name).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 404));
}

async fn unknown_paths_and_wrong_methods_are_refused(cluster: &impl TestCluster) {
    let ask = async |method: &str, uri: &str| {
        let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        cluster.send(request).await.0
    };
    assert_eq!(
        ask("GET", "/apis/podlog.invalid/v1/things").await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(ask("PUT", "/api/v1/pods").await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(ask("GET", "/version").await, StatusCode::OK);
}
