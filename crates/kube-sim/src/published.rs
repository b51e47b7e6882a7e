//! A pod as the API shows it: its JSON, its row in a table, and the fields that selectors compare. It only converts
//! values.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::clock::format_seconds;
use super::pod::{ContainerKind, LiveContainer, LivePod, RunState, Termination};

/// A pod at one resource version. It never changes.
#[derive(Debug)]
pub(super) struct PublishedPod {
    pub(super) version: u64,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) phase: String,
    pub(super) labels: BTreeMap<String, String>,
    /// The object as JSON.
    pub(super) json: Bytes,
    metadata: Value,
    created: i64,
    ready: String,
    status: String,
    restarts: u32,
}

/// The columns that `kubectl get pods` prints: name, format, and whether only `-o wide` shows it.
const COLUMNS: [(&str, &str, bool); 7] = [
    ("Name", "name", false),
    ("Ready", "", false),
    ("Status", "", false),
    ("Restarts", "", false),
    ("Age", "", false),
    ("IP", "", true),
    ("Node", "", true),
];

/// The column definitions of that table.
pub(super) fn columns() -> Value {
    COLUMNS
        .iter()
        .map(|(name, format, wide)| {
            json!({"name": name, "type": "string", "format": format, "description": name, "priority": u8::from(*wide)})
        })
        .collect()
}

impl PublishedPod {
    /// The pod as it is now, at this resource version.
    pub(super) fn new(pod: &LivePod, version: u64) -> Self {
        let metadata = metadata(pod, version);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec(pod), "status": status(pod),
        });
        let (mut ready, mut total, mut restarts) = (0, 0, 0);
        for container in pod.containers_of(&[ContainerKind::App, ContainerKind::Sidecar]) {
            total += 1;
            ready += u32::from(container.running().is_some());
            restarts += container.restart_count;
        }
        Self {
            version,
            namespace: pod.spec.namespace.clone(),
            name: pod.spec.name.clone(),
            node: pod.spec.node.clone().unwrap_or_default(),
            phase: pod.phase().to_owned(),
            labels: pod.spec.labels.clone(),
            json: Bytes::from(object.to_string()),
            metadata: object["metadata"].clone(),
            created: pod.created,
            ready: format!("{ready}/{total}"),
            status: summary(pod),
            restarts,
        }
    }

    /// The pod as a row of a table. `now` is the time at which its age is computed.
    pub(super) fn row(&self, now: i64) -> Value {
        let age = age((now - self.created) / super::clock::SECOND);
        let restarts = self.restarts.to_string();
        let mut object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"});
        object["metadata"] = self.metadata.clone();
        json!({
            "cells": [self.name, self.ready, self.status, restarts, age, ip(&self.node), self.node], "object": object,
        })
    }
}

/// An age in seconds, as kubectl prints it.
fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn ip(node: &str) -> &'static str {
    if node.is_empty() { "<none>" } else { "127.0.0.1" }
}

fn metadata(pod: &LivePod, version: u64) -> Value {
    let spec = &pod.spec;
    let mut metadata = json!({
        "name": spec.name, "namespace": spec.namespace, "uid": pod.uid,
        "resourceVersion": version.to_string(), "creationTimestamp": format_seconds(pod.created),
    });
    if !spec.labels.is_empty() {
        metadata["labels"] = json!(spec.labels);
    }
    if !spec.annotations.is_empty() {
        metadata["annotations"] = json!(spec.annotations);
    }
    if let Some((kind, name)) = &spec.owner {
        let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        metadata["ownerReferences"] = json!([{
            "apiVersion": version, "kind": kind, "name": name, "uid": format!("uid-of-{name}"), "controller": true,
        }]);
    }
    if let Some(deleted) = pod.deleted {
        metadata["deletionTimestamp"] = json!(format_seconds(deleted));
        metadata["deletionGracePeriodSeconds"] = json!(30);
    }
    metadata
}

fn spec(pod: &LivePod) -> Value {
    let list = |kinds: &[ContainerKind]| -> Vec<Value> {
        pod.containers_of(kinds)
            .map(|container| {
                let mut value = json!({
                    "name": container.name, "image": image(container), "imagePullPolicy": "IfNotPresent", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                });
                if container.kind == ContainerKind::Sidecar {
                    value["restartPolicy"] = json!("Always");
                }
                value
            })
            .collect()
    };
    let mut spec = json!({
        "containers": list(&[ContainerKind::App]), "restartPolicy": pod.spec.restart_policy.name(),
        "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
        "schedulerName": "default-scheduler",
    });
    if let Some(node) = &pod.spec.node {
        spec["nodeName"] = json!(node);
    }
    for (field, kinds) in [
        ("initContainers", &[ContainerKind::Init, ContainerKind::Sidecar][..]),
        ("ephemeralContainers", &[ContainerKind::Ephemeral]),
    ] {
        let containers = list(kinds);
        if !containers.is_empty() {
            spec[field] = json!(containers);
        }
    }
    spec
}

fn status(pod: &LivePod) -> Value {
    let mut status = json!({"phase": pod.phase(), "conditions": conditions(pod), "qosClass": "BestEffort"});
    if let Some((_, reason)) = &pod.phase {
        status["reason"] = json!(reason);
    }
    if pod.spec.node.is_none() {
        return status;
    }
    status["hostIP"] = json!("127.0.0.1");
    status["podIP"] = json!("127.0.0.1");
    status["startTime"] = json!(format_seconds(pod.created));
    for (field, kinds) in [
        (
            "initContainerStatuses",
            &[ContainerKind::Init, ContainerKind::Sidecar][..],
        ),
        ("containerStatuses", &[ContainerKind::App]),
        ("ephemeralContainerStatuses", &[ContainerKind::Ephemeral]),
    ] {
        let statuses: Vec<Value> = pod.containers_of(kinds).map(container_status).collect();
        if !statuses.is_empty() {
            status[field] = json!(statuses);
        }
    }
    status
}

fn conditions(pod: &LivePod) -> Value {
    let ready = pod.initialized() && pod.containers_of(&[ContainerKind::App]).all(|c| c.running().is_some());
    [
        ("PodScheduled", pod.spec.node.is_some()),
        ("Initialized", pod.initialized()),
        ("ContainersReady", ready),
        ("Ready", ready),
    ]
    .iter()
    .map(|(kind, holds)| {
        let status = if *holds { "True" } else { "False" };
        json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": format_seconds(pod.created)})
    })
    .collect()
}

fn container_status(container: &LiveContainer) -> Value {
    let running = container.running().is_some();
    let id = container.logs().next().map(|log| log.instance().container_id.as_str());
    json!({
        "name": container.name, "image": image(container), "imageID": format!("sim/{}@sha256:{}", container.name, "0".repeat(64)),
        "containerID": id.unwrap_or_default(), "restartCount": container.restart_count,
        "ready": running, "started": running,
        "state": state(&container.state),
        "lastState": container.last.as_ref().map_or_else(|| json!({}), |termination| json!({"terminated": terminated(termination)})),
    })
}

fn image(container: &LiveContainer) -> String {
    format!("sim/{}:1", container.name)
}

fn state(state: &RunState) -> Value {
    match state {
        RunState::Waiting { reason } => json!({"waiting": {"reason": reason}}),
        RunState::Running { since, .. } => json!({"running": {"startedAt": format_seconds(*since)}}),
        RunState::Terminated(termination) => json!({"terminated": terminated(termination)}),
    }
}

fn terminated(termination: &Termination) -> Value {
    json!({
        "exitCode": termination.code, "reason": reason(termination.code),
        "startedAt": format_seconds(termination.started), "finishedAt": format_seconds(termination.finished),
        "containerID": termination.log.instance().container_id,
    })
}

fn reason(code: i32) -> &'static str {
    if code == 0 { "Completed" } else { "Error" }
}

/// The text of the `STATUS` column.
fn summary(pod: &LivePod) -> String {
    if pod.deleted.is_some() {
        return "Terminating".to_owned();
    }
    if let Some((_, reason)) = &pod.phase {
        return reason.clone();
    }
    if !pod.initialized() && pod.spec.node.is_some() {
        let total = pod
            .containers_of(&[ContainerKind::Init, ContainerKind::Sidecar])
            .count();
        let done = pod
            .containers_of(&[ContainerKind::Init, ContainerKind::Sidecar])
            .filter(|c| !matches!(c.state, RunState::Waiting { .. }))
            .count();
        return format!("Init:{done}/{total}");
    }
    let mut word = pod.phase().to_owned();
    for container in pod.containers_of(&[ContainerKind::App]) {
        match &container.state {
            RunState::Running { .. } => return "Running".to_owned(),
            RunState::Waiting { reason } if pod.spec.node.is_some() => word.clone_from(reason),
            RunState::Waiting { .. } => {}
            RunState::Terminated(termination) => reason(termination.code).clone_into(&mut word),
        }
    }
    word
}
