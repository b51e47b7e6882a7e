//! The chart refuses values that cannot work before anything is installed, with a message that names the remedy.

use std::process::Command;

use super::{helm, set, template};
use crate::tidy;

/// Wrong `NAME=VALUE` pairs, and words that the one line of the message must contain.
const BAD: &[(&[&str], &str)] = &[
    (&["lock.url="], "lock.url is empty: replicas need a MySQL or MariaDB"),
    (&["existingSecret=mine"], "both existingSecret and lock or sink are set"),
    (
        &["lock.url=", "existingSecret=mine", "sink.url=stdout"],
        "both existingSecret and lock or sink are set",
    ),
    (
        &["mysql.enabled=true"],
        "both mysql.enabled and a lock, sink or existingSecret",
    ),
    (&["image.repository="], "image.repository is empty"),
    (
        &["settings.include-self=true"],
        "settings.include-self with sink.url=stdout",
    ),
    (
        &["serviceAccount.create=false"],
        "rbac.create would let every pod of the account",
    ),
    (&["lock.url=postgres://u@h/d"], "lock.url is not of the form mysql://"),
    (&["sink.url=http://h/d"], "sink.url is none of"),
    (
        &["lock.url=sqlite:///x.db"],
        "lock.url is a file or memory of one process",
    ),
    (&["lock.url=memory://"], "lock.url is a file or memory of one process"),
    (
        &["lock.url=db.example:3306"],
        "lock.url is not of the form mysql://user@host:3306/database",
    ),
    (
        &["lock.url=mysql://user@db.example"],
        "lock.url is not of the form mysql://user@host:3306/database",
    ),
    (
        &["lock.password=twice"],
        "lock.password is set and lock.url has a password too",
    ),
    (&["sink.url=sqlite:///x.db"], "sink.url is an SQLite file"),
    (
        &["sink.url=file:///data"],
        "the root file system is read-only; mount a volume there",
    ),
    (
        &["settings.retain=7d"],
        "records at stdout or in files cannot be deleted",
    ),
    (
        &["sink.url=mysql://u@h/d", "settings.retain=10m"],
        "settings.retain 10m would delete what was just written",
    ),
    (
        &["settings.ttl=15s"],
        "settings.ttl 15s is too short: margin 5s + renew 5s + 2 x statement deadline 3s = 16000ms",
    ),
    (&["settings.renew=50ms"], "use at least 100ms"),
    (
        &["image.repository=REGISTRY/podlog"],
        "image.repository REGISTRY/podlog has capital letters",
    ),
    (&["settings.margin=500ms"], "settings.margin 500ms is too short"),
    (
        &["settings.takeover-grace=1m"],
        "settings.takeover-grace 1m is longer than settings.ttl 20s",
    ),
    (&["settings.write-timeout=8s"], "settings.write-timeout 8s does not fit"),
    (&["settings.grace=7s"], "settings.grace 7s is too short"),
    (
        &["terminationGracePeriodSeconds=20"],
        "terminationGracePeriodSeconds 20 is not above settings.grace 20s",
    ),
    (
        &["hpa.enabled=true", "hpa.maxReplicas=1"],
        "hpa.maxReplicas 1 is below hpa.minReplicas 2",
    ),
    (
        &["hpa.enabled=true", "hpa.cpu=null"],
        "hpa.enabled without anything to go by",
    ),
    (
        &["hpa.enabled=true", "vpa.enabled=true", "vpa.updateMode=Recreate"],
        "hpa and vpa would both act",
    ),
    (
        &["serviceMonitor.enabled=true", "podMonitor.enabled=true"],
        "would scrape every replica twice",
    ),
    (
        &["serviceMonitor.enabled=true", "service.enabled=false"],
        "serviceMonitor needs the Service",
    ),
    (
        &["lock.url=", "mysql.enabled=true", "migrate.mode=job"],
        "runs before mysql.enabled has made the database",
    ),
    (
        &["podLabels.app\\.kubernetes\\.io/name=x"],
        "the label app.kubernetes.io/name belongs to the chart",
    ),
];

/// What the schema refuses, and the value it names.
const BAD_BY_SCHEMA: &[(&str, &str)] = &[
    ("lock.ulr=mysql://u@h/d", "ulr"),
    ("replicaCount=3", "replicaCount"),
    ("settings.tll=3s", "tll"),
    ("settings.ttl=3", "settings.ttl"),
    ("settings.ttl=3 minutes", "settings.ttl"),
    ("settings.ttl=null", "ttl"),
    ("settings.log-format=xml", "log-format"),
    ("podDisruptionBudget.maxUnavailable=0%", "maxUnavailable"),
    ("fullnameOverride=a.b", "fullnameOverride"),
    ("replicas=three", "replicas"),
    ("replicas=-1", "replicas"),
    ("hpa.minReplicas=0", "hpa.minReplicas"),
    ("namespaces=shop", "namespaces"),
    ("namespaces={Shop}", "namespaces"),
    ("migrate.mode=always", "migrate.mode"),
    ("image.digest=sha256:12", "image.digest"),
    ("http.port=0", "http.port"),
    (
        "podDisruptionBudget.maxUnavailable=0",
        "podDisruptionBudget.maxUnavailable",
    ),
];

/// What helm says about these values on top of the least that works.
fn refusal(pairs: &[&str]) -> Option<String> {
    let mut values = vec!["-f".to_owned(), set("minimal").to_str().unwrap().to_owned()];
    for pair in pairs {
        values.extend(["--set".to_owned(), (*pair).to_owned()]);
    }
    Some(template(&values)?.expect_err(&format!("{pairs:?} was taken")))
}

#[test]
fn conflicting_values_are_refused_on_one_line_with_the_remedy() {
    for (pairs, words) in BAD {
        let Some(said) = refusal(pairs) else { return };
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("podlog: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(words), "{pairs:?}: {said}");
        assert!(!said.contains("hidden"), "{pairs:?} shows a password: {said}");
    }
}

#[test]
fn a_misspelt_value_or_one_of_the_wrong_type_is_named() {
    for (pair, named) in BAD_BY_SCHEMA {
        let Some(said) = refusal(&[pair]) else { return };
        assert!(said.contains("schema") && said.contains(named), "{pair}: {said}");
        assert!(!said.contains("hidden"), "{pair} shows a password: {said}");
    }
}

#[test]
fn helm_lint_finds_nothing() {
    let minimal = [
        "-f".to_owned(),
        set("everything").to_str().unwrap().to_owned(),
        "--strict".to_owned(),
    ];
    let Some(output) = helm(&["lint"], &minimal) else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Durations around the limit of each rule: the chart must accept the same ones as `podlog run`.
const TIMES: &[&[(&str, &str)]] = &[
    &[],
    &[("ttl", "16s"), ("write-timeout", "3s")],
    &[("ttl", "15999ms"), ("write-timeout", "1s")],
    &[("ttl", "16s"), ("write-timeout", "3001ms")],
    &[("ttl", "10s"), ("renew", "1s"), ("write-timeout", "1s")],
    &[("ttl", "14s"), ("renew", "1s"), ("write-timeout", "3s")],
    &[("ttl", "13999ms"), ("renew", "1s"), ("write-timeout", "1s")],
    &[("renew", "3s"), ("write-timeout", "9s")],
    &[("renew", "2s"), ("write-timeout", "9001ms")],
    &[("margin", "1020ms")],
    &[("margin", "1019ms")],
    &[("takeover-grace", "20s")],
    &[("takeover-grace", "20001ms")],
    &[("write-timeout", "7s")],
    &[("write-timeout", "7001ms")],
    &[("write-timeout", "0s")],
    &[("grace", "8s")],
    &[("grace", "7999ms")],
    &[("renew", "100ms")],
    &[("renew", "99ms")],
    &[("retain", "1h")],
    &[("retain", "59m")],
    &[("ttl", "2m"), ("renew", "20s"), ("margin", "10s"), ("grace", "1m")],
];

#[test]
fn the_chart_checks_durations_as_the_program_does() {
    for times in TIMES {
        let set = |(name, value): &(&str, &str)| ["--set".to_owned(), format!("settings.{name}={value}")];
        let file = super::set("mysql-sink").to_str().unwrap().to_owned();
        let values: Vec<String> = ["-f".to_owned(), file]
            .into_iter()
            .chain(times.iter().flat_map(set))
            .collect();
        let Some(chart) = template(&values) else { return };
        let mut run = Command::new(env!("CARGO_BIN_EXE_podlog"));
        run.args(["run", "--print-config", "--lock=mysql://u@h/d", "--sink=mysql://u@h/d"]);
        run.args(times.iter().map(|(name, value)| format!("--{name}={value}")));
        let output = run.current_dir(tidy::root()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            chart.is_ok(),
            output.status.success(),
            "{times:?}: the chart: {:?}; podlog: {said}",
            chart.err()
        );
    }
}
