//! The Helm chart, rendered and parsed; no cluster is needed. Needs `helm` on the `PATH`, except for tests of the
//! chart's own files.

mod manifests;
mod refusals;
mod rendered;
mod rights;
mod values;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::{servers, tidy};

/// The release and its namespace in all tests.
const RELEASE: &str = "rel";
const NAMESPACE: &str = "ns";

fn folder() -> PathBuf {
    tidy::root().join("charts/podlog")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value sets of the chart, each with its name.
fn sets() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder().join("ci")).unwrap();
    let mut sets: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    sets.sort();
    assert!(sets.len() >= 9, "{sets:?}");
    sets
}

fn set(name: &str) -> PathBuf {
    folder().join(format!("ci/{name}-values.yaml"))
}

/// Runs helm with what it needs to know about the chart; `None` where there is no helm.
fn helm(command: &[&str], values: &[String]) -> Option<Output> {
    let chart = folder();
    let output = Command::new("helm")
        .args(command)
        .arg(chart)
        .args(["--namespace", NAMESPACE])
        .args(values)
        .env_remove("KUBECONFIG")
        .output();
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            servers::skip(&format!("helm cannot be run: {error}; put it on the PATH"));
            None
        }
    }
}

/// Renders the chart with arguments such as `-f FILE` and `--set NAME=VALUE`: the text, or what was wrong.
fn template(values: &[String]) -> Option<Result<String, String>> {
    let output = helm(&["template", RELEASE], values)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Some(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    })
}

/// The objects that a value set makes, with further `NAME=VALUE`.
fn objects(file: &Path, more: &[&str]) -> Option<RenderedObjects> {
    let mut values = vec!["-f".to_owned(), file.to_str().unwrap().to_owned()];
    for pair in more {
        values.extend(["--set".to_owned(), (*pair).to_owned()]);
    }
    let text = template(&values)?.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    Some(RenderedObjects::read(&text))
}

/// Rendered objects.
struct RenderedObjects(Vec<Value>);

impl RenderedObjects {
    fn read(text: &str) -> Self {
        let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        Self(all.into_iter().filter(|object| !object.is_null()).collect())
    }

    fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The only object of a kind.
    fn one(&self, kind: &str) -> &Value {
        let found = self.of_kind(kind);
        assert_eq!(found.len(), 1, "{kind}: {:?}", self.names());
        found[0]
    }

    fn names(&self) -> Vec<String> {
        let name = |object: &Value| format!("{} {}", word(&object["kind"]), word(&object["metadata"]["name"]));
        self.0.iter().map(name).collect()
    }

    fn replicas(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }

    /// The settings file of the replicas.
    fn settings(&self) -> String {
        let maps = self.of_kind("ConfigMap");
        let texts = maps.iter().filter_map(|map| map["data"]["podlog.toml"].as_str());
        let texts: Vec<&str> = texts.collect();
        assert_eq!(texts.len(), 1);
        texts[0].to_owned()
    }

    /// Every pod that can come of these objects, with the name of its object.
    fn pods(&self) -> Vec<(String, &Value)> {
        let pod = |object: &Value| match object["kind"].as_str() {
            Some("Pod") => Some("/spec"),
            Some("Deployment" | "StatefulSet" | "Job") => Some("/spec/template/spec"),
            _ => None,
        };
        let specs = self.0.iter().zip(self.names());
        specs
            .filter_map(|(object, name)| Some((name, object.pointer(pod(object)?)?)))
            .collect()
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
