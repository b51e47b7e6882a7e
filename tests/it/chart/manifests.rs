//! The manifests for `kubectl apply -k`: that they are made from the chart, and what the overlays change.

use std::process::Command;

use serde_json::json;

use super::{RenderedObjects, word};
use crate::{servers, tidy};

#[test]
fn the_manifests_are_what_the_chart_renders() {
    if Command::new("helm").arg("version").output().is_err() {
        return servers::skip("helm cannot be run; put it on the PATH");
    }
    let script = tidy::root().join("scripts/manifests");
    let output = Command::new(script).arg("--check").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

fn overlay(name: &str) -> Option<RenderedObjects> {
    let folder = tidy::root().join("manifests/overlays").join(name);
    let output = match Command::new("kubectl").arg("kustomize").arg(folder).output() {
        Ok(output) => output,
        Err(error) => {
            servers::skip(&format!("kubectl cannot be run: {error}; put it on the PATH"));
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(RenderedObjects::read(&String::from_utf8(output.stdout).unwrap()))
}

/// The replicas must find the Secret under the name that kustomize gave it.
fn finds_its_secret(all: &RenderedObjects) {
    let secrets = all.of_kind("Secret");
    let named: Vec<&str> = secrets.iter().map(|one| word(&one["metadata"]["name"])).collect();
    let env = all.replicas()["containers"][0]["env"].as_array().unwrap();
    let from = env.iter().map(|entry| &entry["valueFrom"]["secretKeyRef"]);
    let from: Vec<&str> = from
        .filter(|from| !from.is_null())
        .map(|from| word(&from["name"]))
        .collect();
    assert_eq!(from.len(), 4);
    assert!(from.iter().all(|name| named.contains(name)), "{from:?} of {named:?}");
}

#[test]
fn the_overlay_for_an_existing_database_is_complete() {
    let Some(all) = overlay("external-mysql") else { return };
    finds_its_secret(&all);
    assert_eq!(all.of_kind("ClusterRole").len(), 1);
    assert_eq!(all.one("Namespace")["metadata"]["name"], "podlog");
    for (object, name) in all.0.iter().zip(all.names()) {
        let label = &object["metadata"]["labels"]["app.kubernetes.io/instance"];
        assert!(object["kind"] == "Secret" || *label == "podlog", "{name}");
    }
}

#[test]
fn the_overlay_for_one_namespace_grants_permissions_only_there() {
    let Some(all) = overlay("one-namespace") else { return };
    finds_its_secret(&all);
    assert!(all.of_kind("ClusterRole").is_empty() && all.of_kind("ClusterRoleBinding").is_empty());
    let (role, binding) = (all.one("Role"), all.one("RoleBinding"));
    assert_eq!(role["metadata"]["namespace"], "shop");
    assert_eq!(binding["metadata"]["namespace"], "shop");
    let account = all.one("ServiceAccount")["metadata"].clone();
    let subjects = json!([{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}]);
    assert_eq!(binding["subjects"], subjects);
    assert_eq!(account["namespace"], "podlog");
    assert!(all.settings().contains(r#"namespace = ["shop"]"#));
}

#[test]
fn the_overlay_with_the_demo_database_uses_it() {
    let Some(all) = overlay("demo-mysql") else { return };
    finds_its_secret(&all);
    let database = all.one("StatefulSet");
    assert_eq!(database["metadata"]["name"], "podlog-mysql");
    let secrets = all.of_kind("Secret");
    let data = |key: &str| {
        let secret = secrets.iter().find(|one| !one["data"][key].is_null());
        secret.unwrap()["data"][key].clone()
    };
    assert_eq!(data("password"), data("lock-password"));
    assert_eq!(data("password"), data("sink-password"));
}
