//! What a replica does with fewer rights than it needs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{self, Lab, create, create_namespace, delete_namespace, pod, until};
use crate::reckon::Records;
use crate::replica::Replica;

const SOON: Duration = Duration::from_secs(40);

fn pods() -> Value {
    json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]})
}

fn logs() -> Value {
    json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]})
}

/// Waits until a pod's container has stored so many lines.
pub(crate) async fn stored(lab: &Lab, pod: &str, lines: usize) {
    until("the lines are stored", SOON, async || {
        let records = Records::load(&mut lab.sql().await).await;
        let streams = records.of_pod(pod);
        let found: usize = streams.iter().map(|(_, lines)| lines.len()).sum();
        (found >= lines)
            .then_some(())
            .ok_or(format!("{pod}: {found} of {lines}"))
    })
    .await;
}

/// Waits until the tables are there, which the first replica makes.
pub(crate) async fn tables(lab: &Lab) {
    until("the tables are there", SOON, async || {
        let mut sql = lab.sql().await;
        let asked = sqlx::query("SELECT COUNT(*) FROM log_gap").fetch_one(&mut sql).await;
        asked.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_in_the_listed_namespaces_are_enough() {
    lab::run(async |lab| {
        let kubeconfig = lab.kubeconfig(&[(&lab.namespace, json!([pods(), logs()]))]).await;
        lab.create(&pod("one", "Never", "echo n=1 one; sleep 1; echo n=2 two"))
            .await;
        let path = kubeconfig.to_str().unwrap();
        let mut replica = Replica::start(&lab, "a", &["--kubeconfig", path, "--namespace", &lab.namespace]);
        tables(&lab).await;
        stored(&lab, "one", 2).await;
        let warned = |line: &str| line.contains(" WARN ") && line.contains("podlog::");
        assert!(!replica.words().lines().any(warned), "{}", replica.words());
        replica.ask_to_end();
        replica.ended().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named_and_the_other_namespace_is_collected() {
    lab::run(async |lab| {
        let other = format!("{}-other", lab.namespace);
        create_namespace(&lab.kube, &other).await;
        let rights = [(&*lab.namespace, json!([pods(), logs()])), (&*other, json!([pods()]))];
        let kubeconfig = lab.kubeconfig(&rights).await;
        lab.create(&pod("one", "Never", "echo n=1 one; sleep 1; echo n=2 two"))
            .await;
        create(&lab.kube, &other, &pod("unread", "Never", "echo n=1 one; sleep 600")).await;
        let (path, both) = (kubeconfig.to_str().unwrap(), format!("{},{other}", lab.namespace));
        let mut replica = Replica::start(&lab, "a", &["--kubeconfig", path, "--namespace", &both]);
        tables(&lab).await;
        stored(&lab, "one", 2).await;
        until("the missing right is named", SOON, async || {
            let words = replica.words();
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
        delete_namespace(&lab.kube, &other).await;
        replica.ask_to_end();
        replica.ended().await;
    })
    .await;
}
