//! Behaviour that tests can cause only on the simulated cluster: compaction between two pages, bookmarks in time,
//! deletions step by step. The tests use a paused clock and no port.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use kube_sim::{ContainerKind, Cut, PodSpec, SimCluster, SimSettings, Target};
use serde_json::json;

use crate::test_cluster::{ask, cluster, open, phase, running, whole};

#[tokio::test(start_paused = true)]
async fn compaction_ends_pages_with_410_and_resumed_watches_with_an_error_event() {
    let cluster = cluster();
    for name in ["a", "b", "c"] {
        cluster.create(PodSpec::new("shop", name).app("app")).unwrap();
    }
    let pods: Api<Pod> = Api::all(Client::new(cluster.service(), "default"));
    let page = pods.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(page.metadata.remaining_item_count, Some(1));
    let version = page.metadata.resource_version.unwrap();
    let mut live = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    cluster.compact();
    let next = ListParams::default()
        .limit(2)
        .continue_token(&page.metadata.continue_.unwrap());
    assert!(matches!(pods.list(&next).await, Err(kube::Error::Api(status)) if status.code == 410));
    let mut resumed = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let event = resumed.try_next().await.unwrap();
    assert!(matches!(event, Some(WatchEvent::Error(status)) if status.code == 410));
    // A watch that has delivered everything continues.
    cluster.create(PodSpec::new("shop", "d").app("app")).unwrap();
    match live.try_next().await.unwrap() {
        Some(WatchEvent::Added(pod)) => assert_eq!(pod.name_any(), "d"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_page_shows_the_state_of_the_first() {
    let cluster = cluster();
    let handles: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| cluster.create(PodSpec::new("shop", *name).app("app")).unwrap())
        .collect();
    let pods: Api<Pod> = Api::all(Client::new(cluster.service(), "default"));
    let page = pods.list(&ListParams::default().limit(1)).await.unwrap();
    handles[2].remove().unwrap();
    cluster.create(PodSpec::new("shop", "bb").app("app")).unwrap();
    let next = ListParams::default().continue_token(&page.metadata.continue_.unwrap());
    let rest = pods.list(&next).await.unwrap();
    let names: Vec<_> = rest.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_sends_bookmarks_and_ends_after_its_timeout() {
    let cluster = cluster();
    running(&cluster);
    let pods: Api<Pod> = Api::all(Client::new(cluster.service(), "default"));
    let params = WatchParams::default().timeout(150);
    let events = pods.watch(&params, "0").await.unwrap();
    let events: Vec<_> = events.try_collect().await.unwrap();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Bookmark(_) => "bookmark",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["added", "bookmark", "bookmark", "bookmark"]);
}

#[tokio::test(start_paused = true)]
async fn a_selector_turns_changes_into_additions_and_deletions() {
    let cluster = cluster();
    let pod = running(&cluster);
    let pods: Api<Pod> = Api::all(Client::new(cluster.service(), "default"));
    let params = WatchParams::default().labels("tier=web");
    let mut events = pods.watch(&params, "0").await.unwrap().boxed();
    pod.set_label("tier", "web").unwrap();
    pod.set_label("tier", "db").unwrap();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    assert_eq!(cluster.cut(&Target::watches(), Cut::Clean), 1);
    assert!(events.try_next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn initial_events_are_sent_and_marked_or_refused_as_by_an_older_server() {
    let uri = "/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
               &allowWatchBookmarks=true&timeoutSeconds=1";
    let cluster = cluster();
    running(&cluster);
    let told = whole(ask(&cluster, uri).await.into_body()).await;
    let mut lines = told.lines();
    assert!(lines.next().unwrap().contains(r#""type":"ADDED""#));
    assert!(lines.next().unwrap().contains("k8s.io/initial-events-end"));
    let older = SimCluster::new(SimSettings {
        supports_watch_list: false,
        ..SimSettings::default()
    });
    assert_eq!(ask(&older, uri).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(start_paused = true)]
async fn a_graceful_deletion_marks_the_pod_then_ends_it_then_removes_it() {
    let cluster = cluster();
    let pod = running(&cluster);
    let pods: Api<Pod> = Api::all(Client::new(cluster.service(), "default"));
    let mut events = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let mut seen = Vec::new();
    let delete = pod.delete(Duration::from_secs(30));
    let watch = async {
        while let Some(event) = events.try_next().await.unwrap() {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
                break;
            };
            seen.push((pod.metadata.deletion_timestamp.is_some(), phase(&pod).to_owned()));
        }
    };
    let (deleted, ()) = tokio::join!(delete, watch);
    deleted.unwrap();
    let expected = [(false, "Running"), (true, "Running"), (true, "Failed")];
    assert_eq!(seen, expected.map(|(deleted, phase)| (deleted, phase.to_owned())));
    assert!(pod.line("app", "too late").is_err());
}

#[tokio::test(start_paused = true)]
async fn every_type_of_container_is_in_its_status_list() {
    let cluster = cluster();
    let spec = PodSpec::new("shop", "cart-0").node("n1").app("app");
    let spec = spec
        .container(ContainerKind::Init, "init")
        .container(ContainerKind::Sidecar, "proxy");
    let pod = cluster.create(spec).unwrap();
    let pods: Api<Pod> = Api::namespaced(Client::new(cluster.service(), "shop"), "shop");
    let found = async || phase(&pods.get("cart-0").await.unwrap()).to_owned();
    pod.start("init").unwrap();
    assert_eq!(found().await, "Pending");
    pod.exit("init", 0).unwrap();
    pod.start("proxy").unwrap();
    pod.start("app").unwrap();
    assert_eq!(found().await, "Running");
    pod.add_ephemeral("debug").unwrap();
    pod.line("debug", "here").unwrap();
    assert_eq!(whole(open(&cluster, "container=debug").await).await, "here\n");
    let shown = pods.get("cart-0").await.unwrap();
    let (spec, status) = (shown.spec.unwrap(), shown.status.unwrap());
    assert_eq!(
        spec.init_containers.unwrap()[1].restart_policy.as_deref(),
        Some("Always")
    );
    assert_eq!(spec.ephemeral_containers.unwrap()[0].name, "debug");
    assert_eq!(status.init_container_statuses.unwrap().len(), 2);
    assert_eq!(status.ephemeral_container_statuses.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_access_review_is_answered() {
    let client = Client::new(cluster().service(), "default");
    let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let request = Request::post(uri).body(review.to_string().into_bytes()).unwrap();
    let answer: serde_json::Value = client.request(request).await.unwrap();
    assert_eq!(answer["status"]["allowed"], json!(true));
    assert_eq!(answer["spec"], review["spec"]);
}
