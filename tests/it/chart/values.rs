//! The values, their schema, the chart's README and the program agree: every value is described and is in the schema,
//! and every setting of `podlog run` is a value of the chart.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::{folder, read};
use crate::tidy::agree;

/// Settings that have values of their own in the chart, or none because they make no sense in a pod.
const ELSEWHERE: [&str; 11] = [
    "lock",
    "sink",
    "cluster",
    "namespace",
    "http",
    "no-migrate",
    "replica-id",
    "kubeconfig",
    "context",
    "config",
    "print-config",
];

fn values() -> Value {
    serde_saphyr::from_str(&read(&folder().join("values.yaml"))).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&read(&folder().join("values.schema.json"))).unwrap()
}

/// The values that have a comment above them, with it, in the order of the file.
fn described() -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    for line in read(&folder().join("values.yaml")).lines() {
        let text = line.trim_start();
        let depth = (line.len() - text.len()) / 2;
        if let Some(words) = text.strip_prefix("# ") {
            comment.push(words.to_owned());
            continue;
        }
        let said = std::mem::take(&mut comment).join(" ");
        let key = text.split_once(':').map(|(key, _)| key.to_owned());
        if let Some(key) = key.filter(|_| !said.is_empty()) {
            open.truncate(depth);
            open.push(key);
            found.push((open.clone(), said));
        }
    }
    found
}

fn at<'a>(values: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(values, |value, key| &value[key])
}

fn sections(described: &[(Vec<String>, String)]) -> BTreeSet<Vec<String>> {
    let parents = described.iter().map(|(path, _)| path[..path.len() - 1].to_vec());
    parents.collect()
}

#[test]
fn the_readme_of_the_chart_lists_every_value() {
    let (values, described) = (values(), described());
    let sections = sections(&described);
    let mut table = String::from("| value | default | meaning |\n|---|---|---|\n");
    for (path, words) in &described {
        let default = if sections.contains(path) {
            String::new()
        } else {
            format!("`{}`", at(&values, path))
        };
        let words = words.replace('|', "\\|");
        writeln!(table, "| `{}` | {default} | {words} |", path.join(".")).unwrap();
    }
    agree("charts/podlog/README.md", "values", &table);
}

#[test]
fn every_value_is_described() {
    let (values, described) = (values(), described());
    let known: BTreeSet<&Vec<String>> = described.iter().map(|(path, _)| path).collect();
    for section in sections(&described) {
        for key in at(&values, &section).as_object().unwrap().keys() {
            let path: Vec<String> = section.iter().cloned().chain([key.clone()]).collect();
            assert!(known.contains(&path), "{} has no comment", path.join("."));
        }
    }
}

#[test]
fn the_schema_accepts_every_value_of_the_chart_and_no_other() {
    let (values, schema) = (values(), schema());
    for section in sections(&described()) {
        let place = section.iter().fold(&schema, |schema, key| &schema["properties"][key]);
        let name = section.join(".");
        assert_eq!(place["additionalProperties"], false, "{name}");
        let keys = |value: &Value| -> BTreeSet<String> {
            let keys = value.as_object().unwrap().keys().cloned();
            // Helm itself gives `global` to every chart.
            keys.filter(|key| key != "global").collect()
        };
        assert_eq!(keys(&place["properties"]), keys(at(&values, &section)), "{name}");
    }
}

#[test]
fn every_setting_of_podlog_run_is_a_value_of_the_chart_with_the_same_default() {
    let settings = values()["settings"].clone();
    let mut known: BTreeSet<String> = settings.as_object().unwrap().keys().cloned().collect();
    for line in podlog::cli::show::table().lines().skip(2) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let name = cells[0].trim_matches(['|', ' ', '`', '-']);
        if ELSEWHERE.contains(&name) {
            continue;
        }
        assert!(
            known.remove(name),
            "--{name} is missing: add it to settings in values.yaml and values.schema.json, or to ELSEWHERE here"
        );
        let default = match &settings[name] {
            Value::String(text) if text.is_empty() => "-".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        assert_eq!(default, cells[2], "default of {name}");
    }
    assert!(known.is_empty(), "podlog run has no {known:?}");
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart: Value = serde_saphyr::from_str(&read(&folder().join("Chart.yaml"))).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
}
