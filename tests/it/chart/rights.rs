//! What the rendered objects are permitted to do: RBAC rules, security contexts, secrets and network policies.

use serde_json::{Value, json};

use super::{NAMESPACE, RenderedObjects, objects, set, sets, word};

/// Everything podlog needs in a cluster, and nothing else.
fn rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ])
}

fn bound_to_the_replicas(objects: &RenderedObjects, binding: &Value, role: &Value) {
    assert_eq!(binding["roleRef"]["kind"], role["kind"]);
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let account = &objects.replicas()["serviceAccountName"];
    let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]);
    assert_eq!(binding["subjects"], subjects);
}

#[test]
fn in_all_namespaces_the_replicas_may_only_read_pods_and_their_logs() {
    let Some(all) = objects(&set("minimal"), &[]) else {
        return;
    };
    assert!(all.of_kind("Role").is_empty() && all.of_kind("RoleBinding").is_empty());
    let role = all.one("ClusterRole");
    assert_eq!(role["rules"], rules());
    bound_to_the_replicas(&all, all.one("ClusterRoleBinding"), role);
    assert!(!all.settings().contains("namespace"), "{}", all.settings());
}

#[test]
fn with_listed_namespaces_there_are_permissions_only_in_them() {
    let Some(all) = objects(&set("namespaces"), &[]) else {
        return;
    };
    assert!(all.of_kind("ClusterRole").is_empty() && all.of_kind("ClusterRoleBinding").is_empty());
    let (roles, bindings) = (all.of_kind("Role"), all.of_kind("RoleBinding"));
    let places = |objects: &[&Value]| -> Vec<String> {
        objects
            .iter()
            .map(|object| word(&object["metadata"]["namespace"]).to_owned())
            .collect()
    };
    assert_eq!(places(&roles), ["shop", "billing"]);
    assert_eq!(places(&bindings), ["shop", "billing"]);
    for (role, binding) in roles.iter().zip(bindings) {
        assert_eq!(role["rules"], rules());
        bound_to_the_replicas(&all, binding, role);
    }
    assert!(
        all.settings().contains(r#"namespace = ["shop","billing"]"#),
        "{}",
        all.settings()
    );
}

#[test]
fn without_rbac_no_roles_are_created() {
    let Some(all) = objects(&set("namespaces"), &["rbac.create=false"]) else {
        return;
    };
    assert!(
        !all.names().iter().any(|name| name.contains("Role")),
        "{:?}",
        all.names()
    );
}

#[test]
fn only_pods_that_call_the_api_server_have_a_token() {
    for (name, path) in sets() {
        let Some(all) = objects(&path, &[]) else { return };
        for account in all.of_kind("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{name}");
        }
        for (pod, spec) in all.pods() {
            let asks = pod.starts_with("Deployment ") || pod.starts_with("Pod ");
            assert_eq!(spec["automountServiceAccountToken"], asks, "{name}: {pod}");
        }
    }
}

#[test]
fn every_container_meets_the_restricted_pod_security_standard() {
    for (name, path) in sets() {
        let Some(all) = objects(&path, &[]) else { return };
        for (pod, spec) in all.pods() {
            let context = &spec["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{name}: {pod}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}: {pod}");
            for container in spec["containers"].as_array().unwrap() {
                if container["name"] == "beside" {
                    continue;
                }
                let expected = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]}});
                assert_eq!(container["securityContext"], expected, "{name}: {pod}");
            }
            let user = if pod.ends_with("-mysql") { 999 } else { 65532 };
            assert_eq!(context["runAsUser"], user, "{name}: {pod}");
            let open = ["hostNetwork", "hostPID", "hostIPC"]
                .iter()
                .any(|key| !spec[key].is_null());
            let host = spec["volumes"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|volume| !volume["hostPath"].is_null());
            assert!(!open && !host, "{name}: {pod} touches the node");
        }
    }
}

#[test]
fn passwords_are_only_in_secrets() {
    for (name, path) in sets() {
        let Some(all) = objects(&path, &[]) else { return };
        for (object, shown) in all.0.iter().zip(all.names()) {
            let text = object.to_string();
            if object["kind"] != "Secret" {
                assert!(!text.contains("hidden"), "{name}: {shown} holds a password: {text}");
                assert!(!text.contains("mysql://"), "{name}: {shown} holds a URL: {text}");
            }
        }
    }
}

#[test]
fn an_existing_secret_is_only_read() {
    let Some(all) = objects(&set("existing-secret"), &[]) else {
        return;
    };
    assert!(all.of_kind("Secret").is_empty(), "{:?}", all.names());
    let env = &all.replicas()["containers"][0]["env"];
    let from = |name: &str| {
        let entries = env.as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
        entry["valueFrom"]["secretKeyRef"].clone()
    };
    assert_eq!(from("PODLOG_LOCK"), json!({"name": "my-databases", "key": "LOCK"}));
    assert_eq!(from("PODLOG_SINK"), json!({"name": "my-databases", "key": "SINK"}));
    let password = json!({"name": "my-databases", "key": "lock-password", "optional": true});
    assert_eq!(from("PODLOG_LOCK_PASSWORD"), password);
}

#[test]
fn the_network_policy_allows_egress_only_to_dns_the_api_server_and_the_databases() {
    let Some(all) = objects(&set("minimal"), &["networkPolicy.enabled=true"]) else {
        return;
    };
    let policy = &all.one("NetworkPolicy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        policy["ingress"],
        json!([{"ports": [{"port": 9464, "protocol": "TCP"}]}])
    );
    let tcp = |ports: &[u16]| -> Value {
        ports
            .iter()
            .map(|port| json!({"port": port, "protocol": "TCP"}))
            .collect()
    };
    let names = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
    let expected = json!([{"ports": names}, {"ports": tcp(&[443, 6443])}, {"ports": tcp(&[3306])}]);
    assert_eq!(policy["egress"], expected);
}
