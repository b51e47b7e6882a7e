//! Behaviour that tests can cause only on the simulated cluster: streams that are cut, muted, blocked or too old, and
//! all kinds of faults. The tests use a paused clock, and a port only where they test connections.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use kube_sim::{Cut, Fault, SimBody, SimCluster, SimSettings, Target, Text, Verb};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::test_cluster::{ask, cluster, open, running, serve, whole};

async fn frame(body: &mut SimBody) -> String {
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    String::from_utf8(frame.to_vec()).unwrap()
}

/// An hour of silence, which is nothing on a paused clock.
async fn silent(body: &mut SimBody) -> bool {
    let hour = Duration::from_hours(1);
    tokio::time::timeout(hour, body.frame()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_follows_a_log_sends_each_line_in_its_own_frame() {
    let cluster = cluster();
    let pod = running(&cluster);
    pod.line("app", "one\ntwo").unwrap();
    let mut log = open(&cluster, "follow=true").await;
    assert_eq!(frame(&mut log).await, "one\n");
    assert_eq!(frame(&mut log).await, "two\n");
    assert!(silent(&mut log).await);
    pod.write("app", &Text::err("three")).unwrap();
    assert_eq!(frame(&mut log).await, "three\n");
    pod.exit("app", 0).unwrap();
    assert!(log.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn in_a_crash_loop_the_last_instance_is_readable_and_older_ones_are_gone() {
    let cluster = cluster();
    let pod = running(&cluster);
    let mut ids = Vec::new();
    for round in ["first", "second", "third"] {
        pod.line("app", round).unwrap();
        pod.exit("app", 1).unwrap();
        assert_eq!(whole(open(&cluster, "").await).await, format!("{round}\n"));
        pod.set_waiting("app", "CrashLoopBackOff").unwrap();
        assert_eq!(whole(open(&cluster, "follow=true").await).await, format!("{round}\n"));
        ids.push(pod.start("app").unwrap());
    }
    assert_eq!(whole(open(&cluster, "").await).await, "");
    assert_eq!(whole(open(&cluster, "previous=true").await).await, "third\n");
    let pods: Api<Pod> = Api::namespaced(Client::new(cluster.service(), "shop"), "shop");
    let status = pods
        .get("cart-0")
        .await
        .unwrap()
        .status
        .unwrap()
        .container_statuses
        .unwrap();
    assert_eq!(status[0].restart_count, 3);
    assert_eq!(status[0].container_id, ids.pop());
    let last = status[0].last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.container_id, ids.pop());
    let truth = cluster.written();
    let lines: Vec<_> = truth
        .iter()
        .flat_map(|t| &t.lines)
        .map(|line| &line.message[..])
        .collect();
    assert_eq!(lines, [b"first".as_slice(), b"second", b"third"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_misses_a_file_and_sees_another_twice() {
    let cluster = SimCluster::new(SimSettings {
        buffer_bytes: 8,
        ..SimSettings::default()
    });
    let pod = running(&cluster);
    let mut log = open(&cluster, "follow=true").await;
    for file in ["a", "b", "c"] {
        for _ in 0..100 {
            pod.line("app", file).unwrap();
        }
        pod.rotate("app").unwrap();
    }
    pod.line("app", "d").unwrap();
    let mut seen = String::new();
    let hour = Duration::from_hours(1);
    while let Ok(frame) = tokio::time::timeout(hour, frame(&mut log)).await {
        seen += &frame;
    }
    assert_eq!(seen, "a\n".repeat(100) + &"d\n".repeat(3));
    assert_eq!(cluster.lines_written(), 301);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_cleanly_after_four_hours() {
    let cluster = cluster();
    running(&cluster);
    let mut log = open(&cluster, "follow=true").await;
    let started = tokio::time::Instant::now();
    assert!(log.frame().await.is_none());
    assert_eq!(started.elapsed(), Duration::from_hours(4));
}

#[tokio::test(start_paused = true)]
async fn streams_can_be_cut_muted_and_unmuted() {
    let cluster = cluster();
    let pod = running(&cluster);
    let target = Target::logs_of("shop", "cart-0").container("app");
    let mut first = open(&cluster, "follow=true").await;
    assert_eq!(cluster.streams().len(), 1);
    assert_eq!(cluster.mute(&target), 1);
    pod.line("app", "one").unwrap();
    assert!(silent(&mut first).await);
    assert_eq!(cluster.unmute(&target), 1);
    assert_eq!(frame(&mut first).await, "one\n");
    assert_eq!(cluster.cut(&target, Cut::Clean), 1);
    assert!(first.frame().await.is_none());
    let mut second = open(&cluster, "follow=true").await;
    cluster.cut(&target, Cut::Reset);
    assert!(second.frame().await.unwrap().is_err());
    drop((first, second));
    assert!(cluster.streams().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_injected_as_often_as_requested() {
    let cluster = cluster();
    let pod = running(&cluster);
    pod.line("app", "0123456789").unwrap();
    let target = || Target::logs_of("shop", "cart-0");
    let uri = "/api/v1/namespaces/shop/pods/cart-0/log";
    let busy = Fault::Refuse {
        status: 429,
        retry_after: Some(7),
    };
    cluster.inject(target(), busy, 2);
    for status in [429, 429, 200] {
        let response = ask(&cluster, uri).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
    cluster.inject(
        target(),
        Fault::Cut {
            after: 4,
            how: Cut::Clean,
        },
        1,
    );
    assert_eq!(whole(open(&cluster, "").await).await, "0123");
    cluster.inject(target(), Fault::Mute { after: 4 }, 1);
    let mut log = open(&cluster, "").await;
    assert_eq!(frame(&mut log).await, "0123");
    assert!(silent(&mut log).await);
    let text = "failed to create fsnotify watcher: too many open files";
    let say = |replaces_log| Fault::KubeletMessage {
        text: text.into(),
        replaces_log,
    };
    cluster.inject(target(), say(false), 1);
    assert_eq!(whole(open(&cluster, "").await).await, format!("0123456789\n{text}"));
    cluster.inject(target(), say(true), 1);
    assert_eq!(whole(open(&cluster, "").await).await, text);
    cluster.inject(target(), Fault::Disconnect, 1);
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    assert!(cluster.service().oneshot(request).await.is_err());
    let before = tokio::time::Instant::now();
    cluster.inject(target(), Fault::Delay(Duration::from_secs(9)), 1);
    assert_eq!(whole(open(&cluster, "").await).await, "0123456789\n");
    assert_eq!(before.elapsed(), Duration::from_secs(9));
    assert_eq!(cluster.requests()[&Verb::Log], 9);
}

#[tokio::test]
async fn one_http2_connection_carries_many_streams_and_all_end_with_the_server() {
    let cluster = cluster();
    let pod = running(&cluster);
    let (stop, mut server) = (CancellationToken::new(), JoinSet::new());
    let port = serve(&cluster, &mut server, &stop).await;
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.unwrap();
    let mut client = JoinSet::new();
    client.spawn(async move { drop(connection.await) });
    let mut logs = Vec::new();
    for _ in 0..50 {
        let uri = format!("http://sim:{port}/api/v1/namespaces/shop/pods/cart-0/log?follow=true");
        let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        logs.push(sender.send_request(request).await.unwrap().into_body());
    }
    assert_eq!(cluster.streams().len(), 50);
    pod.line("app", "to all").unwrap();
    for log in &mut logs {
        let data = log.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "to all\n");
    }
    stop.cancel();
    for log in logs {
        let rest = log.collect().await.unwrap().to_bytes();
        assert_eq!(rest, "", "a clean end");
    }
    server.join_next().await.unwrap().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
