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
    let names: Value = [53, 5353]
        .iter()
        .flat_map(|port| ["UDP", "TCP"].map(|protocol| json!({"port": port, "protocol": protocol})))
        .collect();
    let expected = json!([{"ports": names}, {"ports": tcp(&[443, 6443])}, {"ports": tcp(&[3306])}]);
    assert_eq!(policy["egress"], expected);
}

/// The rule of egress to DNS, with these values.
fn dns(values: &[&str]) -> Option<Value> {
    let all = objects(&set("minimal"), &[&["networkPolicy.enabled=true"], values].concat())?;
    Some(all.one("NetworkPolicy")["spec"]["egress"][0].clone())
}

#[test]
fn dns_is_reachable_on_the_ports_of_all_its_pods_and_at_any_address() {
    // 53 for CoreDNS and for node-local DNS, which has a link-local address; 5353 for the pods of OpenShift's DNS.
    let Some(rule) = dns(&[]) else { return };
    assert!(rule["to"].is_null(), "{rule}");
    let ports = rule["ports"].to_string();
    assert!(
        ports.contains(r#""port":53,"#) && ports.contains(r#""port":5353,"#),
        "{ports}"
    );
}

#[test]
fn the_ports_of_dns_are_values() {
    let Some(rule) = dns(&["networkPolicy.dnsPorts={1053}"]) else {
        return;
    };
    assert_eq!(
        rule["ports"],
        json!([{"port": 1053, "protocol": "UDP"}, {"port": 1053, "protocol": "TCP"}])
    );
}

#[test]
fn the_peers_of_dns_are_values_such_as_a_link_local_address() {
    let Some(rule) = dns(&["networkPolicy.dnsTo[0].ipBlock.cidr=169.254.0.0/16"]) else {
        return;
    };
    assert_eq!(rule["to"], json!([{"ipBlock": {"cidr": "169.254.0.0/16"}}]));
}

/// The fields of every security context of the rendered pods that choose a user or a group.
fn chosen_ids(all: &RenderedObjects) -> Vec<String> {
    let mut found = Vec::new();
    for (pod, spec) in all.pods() {
        let containers = spec["containers"].as_array().unwrap().iter();
        let contexts = [&spec["securityContext"]]
            .into_iter()
            .chain(containers.map(|container| &container["securityContext"]));
        for context in contexts {
            let ids = ["runAsUser", "runAsGroup", "fsGroup"].into_iter();
            found.extend(
                ids.filter(|id| !context[*id].is_null())
                    .map(|id| format!("{pod}: {id}")),
            );
        }
    }
    found
}

#[test]
fn on_openshift_the_platform_chooses_users_and_groups_and_everything_else_stays_restricted() {
    // The replicas, the test, the job of the migration and the demo database.
    for name in ["minimal", "migrate-job", "mysql-demo"] {
        let Some(all) = objects(&set(name), &["platform=openshift"]) else {
            return;
        };
        assert_eq!(chosen_ids(&all), Vec::<String>::new(), "{name}");
        for (pod, spec) in all.pods() {
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}: {pod}");
            let container = &spec["containers"][0]["securityContext"];
            assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}), "{name}: {pod}");
        }
    }
}

#[test]
fn security_contexts_may_be_emptied() {
    for (name, empty) in [
        ("minimal", &["podSecurityContext=null", "securityContext=null"][..]),
        ("migrate-job", &["podSecurityContext=null", "securityContext=null"]),
        (
            "mysql-demo",
            &[
                "podSecurityContext=null",
                "securityContext=null",
                "mysql.podSecurityContext=null",
                "mysql.securityContext=null",
            ],
        ),
    ] {
        let Some(all) = objects(&set(name), empty) else { return };
        for (pod, spec) in all.pods() {
            let container = &spec["containers"][0];
            assert!(
                spec["securityContext"].is_null() && container["securityContext"].is_null(),
                "{name}: {pod}"
            );
        }
    }
}

#[test]
fn a_single_user_or_group_may_be_left_to_the_platform() {
    let keys = ["podSecurityContext", "mysql.podSecurityContext"];
    let ids = ["runAsUser", "runAsGroup", "fsGroup"];
    let none: Vec<String> = keys
        .iter()
        .flat_map(|key| ids.map(|id| format!("{key}.{id}=null")))
        .collect();
    let none: Vec<&str> = none.iter().map(String::as_str).collect();
    let Some(all) = objects(&set("mysql-demo"), &none) else {
        return;
    };
    assert_eq!(chosen_ids(&all), Vec::<String>::new());
}
