//! What a replica does with fewer permissions than it needs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::Records;
use crate::fixture::{self, Fixture, create, create_namespace, delete_namespace, pod, until};
use crate::replica::execute;

const SOON: Duration = Duration::from_secs(40);

fn pods() -> Value {
    json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]})
}

fn logs() -> Value {
    json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]})
}

/// Waits until a pod's container has stored this many lines.
pub(crate) async fn stored(fixture: &Fixture, pod: &str, lines: usize) {
    until("the lines are stored", SOON, async || {
        let records = Records::load(&mut fixture.sql().await).await;
        let streams = records.of_pod(pod);
        let found: usize = streams.iter().map(|(_, lines)| lines.len()).sum();
        (found >= lines)
            .then_some(())
            .ok_or(format!("{pod}: {found} of {lines}"))
    })
    .await;
}

/// Waits until the first replica has created the tables.
pub(crate) async fn tables(fixture: &Fixture) {
    until("the tables exist", SOON, async || {
        let mut sql = fixture.sql().await;
        let asked = sqlx::query("SELECT COUNT(*) FROM log_gap").fetch_one(&mut sql).await;
        asked.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_in_the_listed_namespaces_are_enough() {
    fixture::run(async |fixture| {
        let kubeconfig = fixture
            .kubeconfig(&[(&fixture.namespace, json!([pods(), logs()]))])
            .await;
        fixture
            .create(&pod("one", "Never", "echo n=1 one; sleep 1; echo n=2 two"))
            .await;
        let path = kubeconfig.to_str().unwrap();
        let mut replica = fixture.replica_with("a", &["--kubeconfig", path, "--namespace", &fixture.namespace]);
        tables(&fixture).await;
        stored(&fixture, "one", 2).await;
        let warned = |line: &str| line.contains(" WARN ") && line.contains("podlog::");
        assert!(!replica.log_text().lines().any(warned), "{}", replica.log_text());
        replica.terminate();
        replica.ended().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_named_and_the_other_namespace_is_still_collected() {
    fixture::run(async |fixture| {
        let other = format!("{}-other", fixture.namespace);
        create_namespace(&fixture.kube, &other).await;
        let rights = [
            (&*fixture.namespace, json!([pods(), logs()])),
            (&*other, json!([pods()])),
        ];
        let kubeconfig = fixture.kubeconfig(&rights).await;
        fixture
            .create(&pod("one", "Never", "echo n=1 one; sleep 1; echo n=2 two"))
            .await;
        create(
            &fixture.kube,
            &other,
            &pod("unread", "Never", "echo n=1 one; sleep 600"),
        )
        .await;
        let (path, both) = (kubeconfig.to_str().unwrap(), format!("{},{other}", fixture.namespace));
        let mut replica = fixture.replica_with("a", &["--kubeconfig", path, "--namespace", &both]);
        tables(&fixture).await;
        stored(&fixture, "one", 2).await;
        until("the missing permission is named", SOON, async || {
            let words = replica.log_text();
            let named = words.lines().any(|line| {
                let parts = [
                    "may not get pods/log",
                    &other,
                    "Role",
                    r#"resources: ["pods/log"], verbs: ["get"]"#,
                ];
                parts.iter().all(|part| line.replace('\\', "").contains(part))
            });
            named.then_some(()).ok_or(words)
        })
        .await;
        assert!(replica.is_running());
        delete_namespace(&fixture.kube, &other).await;
        replica.terminate();
        replica.ended().await;
    })
    .await;
}

/// The permissions that podlog needs, each as a rule of its own, without one of them.
fn rules_without(missing: Option<usize>) -> Value {
    let kept = NEEDED.iter().enumerate().filter(|(index, _)| Some(*index) != missing);
    kept.map(|(_, (verb, resource))| json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]}))
        .collect()
}

const NEEDED: [(&str, &str); 4] = [
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "pods"),
    ("get", "pods/log"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_each_missing_permission_and_passes_with_all() {
    fixture::run(async |fixture| {
        let kubeconfig = fixture.kubeconfig(&[(&fixture.namespace, rules_without(None))]).await;
        fixture.create(&pod("one", "Never", "echo n=1 one; sleep 600")).await;
        fixture.all_started().await;
        let path = kubeconfig.to_str().unwrap();
        let args = [
            "check",
            "--json",
            "--http=off",
            "--kubeconfig",
            path,
            "--namespace",
            &fixture.namespace,
        ];
        for missing in [None, Some(0), Some(1), Some(2), Some(3)] {
            fixture.set_rules(rules_without(missing)).await;
            let named = missing.map(|index| {
                let (verb, resource) = NEEDED[index];
                let rule = format!(r#"- {{apiGroups: [""], resources: ["{resource}"], verbs: ["{verb}"]}}"#);
                (format!("{verb} {resource} in namespace {}", fixture.namespace), rule)
            });
            // The API server takes a moment to apply new rules.
            until("what is missing is named and nothing else", SOON, async || {
                let output = execute(&fixture.url, &args);
                let report: Value = serde_json::from_slice(&output.stdout).unwrap();
                let refused = report["facts"].as_array().unwrap().iter();
                let refused =
                    refused.filter(|fact| fact["fact"].as_str().unwrap().contains("does not have this right"));
                let found: Vec<_> = refused
                    .map(|fact| (fact["subject"].to_string(), fact["remedy"].to_string()))
                    .collect();
                let as_meant = match (&named, found.as_slice()) {
                    (None, []) => output.status.code() == Some(0),
                    (Some((subject, rule)), [(one, remedy)]) => {
                        let told = one.contains(subject.as_str()) && remedy.replace('\\', "").contains(rule.as_str());
                        told && output.status.code() == Some(4)
                    }
                    _ => false,
                };
                as_meant.then_some(()).ok_or(report.to_string())
            })
            .await;
        }
    })
    .await;
}
