//! The rendered objects, for several sets of values.

use std::process::Command;

use serde_json::{Value, json};

use super::{RenderedObjects, objects, set, sets, word};

#[test]
fn the_minimal_values_render_three_complete_replicas() {
    let Some(all) = objects(&set("minimal"), &[]) else {
        return;
    };
    let mut names = all.names();
    names.sort();
    let expected = [
        "ClusterRole ns-rel-podlog",
        "ClusterRoleBinding ns-rel-podlog",
        "ConfigMap rel-podlog",
        "Deployment rel-podlog",
        "Pod rel-podlog-check",
        "PodDisruptionBudget rel-podlog",
        "Secret rel-podlog",
        "Service rel-podlog",
        "ServiceAccount rel-podlog",
    ];
    assert_eq!(names, expected);
    assert_eq!(all.one("Deployment")["spec"]["replicas"], 3);
    let spec = all.replicas();
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    let spread = spec["topologySpreadConstraints"].as_array().unwrap();
    let keys: Vec<&str> = spread.iter().map(|one| word(&one["topologyKey"])).collect();
    assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
    let container = &spec["containers"][0];
    assert_eq!(container["args"], json!(["run", "--config=/etc/podlog/podlog.toml"]));
    for (probe, path) in [
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "http"}));
    }
    assert!(
        container["resources"]["limits"]["cpu"].is_null(),
        "throttled replicas lose their claims"
    );
}

/// Whether labels have all of a selector's.
fn selects(selector: &Value, labels: &Value) -> bool {
    let mut pairs = selector.as_object().unwrap().iter();
    pairs.all(|(key, value)| labels[key] == *value)
}

#[test]
fn every_selector_matches_the_replicas_and_no_other_pod() {
    for (name, path) in sets() {
        let Some(all) = objects(&path, &[]) else { return };
        let deployment = &all.one("Deployment")["spec"];
        let mut selectors = vec![deployment["selector"]["matchLabels"].clone()];
        selectors.extend(
            all.of_kind("Service")
                .iter()
                .map(|service| service["spec"]["selector"].clone()),
        );
        selectors.extend(
            all.of_kind("PodDisruptionBudget")
                .iter()
                .map(|one| one["spec"]["selector"]["matchLabels"].clone()),
        );
        for constraint in deployment["template"]["spec"]["topologySpreadConstraints"]
            .as_array()
            .unwrap()
        {
            selectors.push(constraint["labelSelector"]["matchLabels"].clone());
        }
        let replica = &deployment["template"]["metadata"]["labels"];
        let others: Vec<&Value> = ["Job", "StatefulSet"]
            .iter()
            .flat_map(|kind| all.of_kind(kind))
            .collect();
        let mut labels: Vec<&Value> = others
            .iter()
            .map(|one| &one["spec"]["template"]["metadata"]["labels"])
            .collect();
        labels.extend(all.of_kind("Pod").iter().map(|pod| &pod["metadata"]["labels"]));
        for selector in selectors {
            if selector["app.kubernetes.io/name"] == "podlog-mysql" {
                continue;
            }
            assert!(selects(&selector, replica), "{name}: {selector}");
            assert!(
                !labels.iter().any(|labels| selects(&selector, labels)),
                "{name}: {selector}"
            );
        }
        // podlog excludes its own logs by this label.
        assert_eq!(replica["app.kubernetes.io/name"], "podlog", "{name}");
    }
}

#[test]
fn every_object_has_the_label_of_its_release() {
    for (name, path) in sets() {
        let Some(all) = objects(&path, &[]) else { return };
        for (object, shown) in all.0.iter().zip(all.names()) {
            let of = &object["metadata"]["labels"]["app.kubernetes.io/instance"];
            assert!(shown == "ConfigMap rel-more" || *of == "rel", "{name}: {shown}");
        }
    }
}

/// What `podlog run` makes of the settings file.
fn understood(all: &RenderedObjects) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("podlog.toml");
    std::fs::write(&file, all.settings()).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_podlog"));
    let urls = ["--lock=mysql://u@h/d", "--sink=mysql://u@h/d"];
    let output = run
        .args(["run", "--print-config", "--config"])
        .arg(&file)
        .args(urls)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", all.settings());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn podlog_accepts_the_rendered_settings_file() {
    for (name, path) in sets() {
        let Some(all) = objects(&path, &[]) else { return };
        let shown = understood(&all);
        assert!(shown.contains("http = \"0.0.0.0:9464\" # /"), "{name}: {shown}");
    }
    let Some(all) = objects(&set("everything"), &[]) else {
        return;
    };
    let shown = understood(&all);
    let lines = [
        r#"cluster = "east" #"#,
        r#"ttl = "40s" #"#,
        "max-streams = 1000000 #",
        "opt-in = true #",
        r#"selector = "app=shop,tier!=test" #"#,
        "# field-selector is not set",
    ];
    for line in lines {
        assert!(shown.contains(line), "{line} not in\n{shown}");
    }
}

#[test]
fn only_changed_settings_and_passwords_restart_the_replicas() {
    let sums = |more: &[&str]| -> Option<Value> {
        let all = objects(&set("mysql-sink"), more)?;
        Some(all.one("Deployment")["spec"]["template"].clone())
    };
    let Some(before) = sums(&[]) else { return };
    for change in ["settings.ttl=30s", "lock.password=another", "namespaces={shop}"] {
        assert_ne!(sums(&[change]).unwrap(), before, "{change}");
    }
    for change in [
        "replicas=7",
        "service.port=80",
        "podDisruptionBudget.enabled=false",
        "networkPolicy.enabled=true",
    ] {
        assert_eq!(sums(&[change]).unwrap(), before, "{change}");
    }
}

#[test]
fn all_options_can_be_enabled_together() {
    let Some(all) = objects(&set("everything"), &[]) else {
        return;
    };
    let kinds = [
        "HorizontalPodAutoscaler",
        "VerticalPodAutoscaler",
        "NetworkPolicy",
        "ServiceMonitor",
        "PrometheusRule",
    ];
    for kind in kinds {
        assert_eq!(all.one(kind)["metadata"]["name"], "collector");
    }
    let deployment = &all.one("Deployment")["spec"];
    assert!(
        deployment["replicas"].is_null(),
        "the autoscaler's number would be undone by every upgrade"
    );
    let spec = all.replicas();
    // 45.5 s are rounded up, and 10 s more.
    assert_eq!(spec["terminationGracePeriodSeconds"], 56);
    assert_eq!(spec["priorityClassName"], "high");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
    let names = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| word(&one["name"]).to_owned())
            .collect()
    };
    assert_eq!(names(&spec["containers"]), ["podlog", "beside"]);
    assert_eq!(names(&spec["initContainers"]), ["before"]);
    assert_eq!(names(&spec["volumes"]), ["settings", "ca"]);
    let container = &spec["containers"][0];
    assert!(
        word(&container["image"]).contains("@sha256:0123"),
        "{}",
        container["image"]
    );
    assert_eq!(container["args"][2], "--log-level=debug");
    assert!(names(&container["env"]).contains(&"RUST_BACKTRACE".to_owned()));
    assert_eq!(container["envFrom"][0]["configMapRef"]["name"], "more");
    let board = all
        .of_kind("ConfigMap")
        .iter()
        .find_map(|map| map["data"]["podlog.json"].as_str())
        .map(str::to_owned);
    let board: Value = serde_json::from_str(&board.unwrap()).unwrap();
    assert!(board["panels"].as_array().unwrap().len() >= 10);
}

#[test]
fn a_job_migrates_before_the_replicas_and_they_do_not_migrate() {
    for (name, secret) in [
        ("migrate-job", "podlog-owner"),
        ("migrate-job-own-secret", "rel-podlog-migrate"),
    ] {
        let Some(all) = objects(&set(name), &[]) else { return };
        assert!(all.settings().contains("no-migrate = true"), "{name}");
        let job = all.one("Job");
        assert_eq!(
            job["metadata"]["annotations"]["helm.sh/hook"],
            "pre-install,pre-upgrade"
        );
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["migrate"]));
        let url = &container["env"][1];
        assert_eq!(url["valueFrom"]["secretKeyRef"]["name"], secret, "{url}");
        // A Secret of the release does not exist yet when the hook runs: the Job's must be a hook before it.
        let hooks = all
            .of_kind("Secret")
            .into_iter()
            .filter(|one| one["metadata"]["name"] == secret);
        let weights: Vec<&str> = hooks
            .map(|one| word(&one["metadata"]["annotations"]["helm.sh/hook-weight"]))
            .collect();
        assert_eq!(weights, if name == "migrate-job" { vec![] } else { vec!["-5"] });
    }
    let Some(all) = objects(&set("minimal"), &[]) else {
        return;
    };
    assert!(all.of_kind("Job").is_empty() && all.settings().contains("no-migrate = false"));
}

#[test]
fn the_replicas_use_the_demo_database() {
    let Some(all) = objects(&set("mysql-demo"), &[]) else {
        return;
    };
    assert_eq!(all.one("StatefulSet")["metadata"]["name"], "rel-podlog-mysql");
    let secrets = all.of_kind("Secret");
    let own = secrets
        .iter()
        .find(|one| one["metadata"]["name"] == "rel-podlog")
        .unwrap();
    // mysql://podlog@rel-podlog-mysql:3306/podlog
    let url = "bXlzcWw6Ly9wb2Rsb2dAcmVsLXBvZGxvZy1teXNxbDozMzA2L3BvZGxvZw==";
    assert_eq!(
        (word(&own["data"]["lock-url"]), word(&own["data"]["sink-url"])),
        (url, url)
    );
    let env = all.replicas()["containers"][0]["env"].as_array().unwrap();
    for name in ["PODLOG_LOCK_PASSWORD", "PODLOG_SINK_PASSWORD"] {
        let entry = env.iter().find(|entry| entry["name"] == name).unwrap();
        let from = &entry["valueFrom"]["secretKeyRef"];
        assert_eq!(
            (word(&from["name"]), word(&from["key"])),
            ("rel-podlog-mysql", "password")
        );
    }
}
