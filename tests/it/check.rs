//! `podlog check` as a process, against a simulated API server and each kind of store: it names what is missing and
//! leaves nothing behind.

use std::path::PathBuf;
use std::time::Duration;

use kube_sim::{Fault, PodSpec, SimCluster, Target, Verb};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Far more than a check takes, far less than a test may.
const PATIENCE: Duration = Duration::from_mins(1);

const RIGHTS: [(&str, &str); 4] = [
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "pods"),
    ("get", "pods/log"),
];

/// A simulated cluster with a pod `shop/cart` that has written a line, and a directory for files.
pub(crate) struct CheckFixture {
    pub(crate) sim: SimCluster,
    pub(crate) dir: TempDir,
    /// The port of the API server.
    pub(crate) port: u16,
    _server: JoinSet<()>,
}

/// The output of one check.
pub(crate) struct CheckReport {
    pub(crate) status: i32,
    pub(crate) facts: Vec<Value>,
    pub(crate) output: String,
}

impl CheckReport {
    /// The facts of this state, as `check: subject`.
    pub(crate) fn of(&self, state: &str) -> Vec<String> {
        let facts = self.facts.iter().filter(|fact| fact["state"] == state);
        let text = |fact: &Value, name: &str| fact[name].as_str().unwrap_or_default().to_owned();
        facts
            .map(|fact| format!("{}: {}", text(fact, "check"), text(fact, "subject")))
            .collect()
    }

    pub(crate) fn remedy(&self, subject: &str) -> &str {
        let fact = self.facts.iter().find(|fact| fact["subject"] == subject);
        fact.unwrap_or_else(|| panic!("nothing about {subject}: {}", self.output))["remedy"]
            .as_str()
            .unwrap()
    }

    fn is(&self, status: i32, failed: &[&str]) {
        assert_eq!(
            (self.status, self.of("failed")),
            (status, failed.iter().map(|s| (*s).to_owned()).collect()),
            "{}",
            self.output
        );
    }
}

impl CheckFixture {
    pub(crate) async fn new() -> Self {
        let sim = SimCluster::default();
        let pod = sim.create(PodSpec::new("shop", "cart").node("n1").app("app")).unwrap();
        pod.start("app").unwrap();
        pod.line("app", "one").unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        let answering = sim.clone();
        server.spawn(async move { answering.serve(listener, CancellationToken::new()).await });
        let fixture = Self {
            sim,
            dir: tempfile::tempdir().unwrap(),
            port,
            _server: server,
        };
        fixture.reach(port);
        fixture
    }

    /// Lets the kubeconfig name this port.
    pub(crate) fn reach(&self, port: u16) {
        std::fs::write(self.path("kubeconfig"), kubeconfig(&format!("127.0.0.1:{port}"))).unwrap();
    }

    /// The same with tables for claims and records in one SQLite file.
    pub(crate) async fn ready() -> Self {
        let fixture = Self::new().await;
        assert_eq!(fixture.podlog(&["migrate"], &[]).await.0, 0);
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self) -> String {
        format!("sqlite://{}", self.path("podlog.db").display())
    }

    /// Runs the binary with only these settings; claims and records are in the SQLite file unless they say otherwise.
    pub(crate) async fn podlog(&self, args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
        command
            .env("PODLOG_KUBECONFIG", self.path("kubeconfig"))
            .env("PODLOG_HTTP", "off");
        command.env("PODLOG_LOCK", self.file()).env("PODLOG_SINK", self.file());
        command.args(args).envs(variables.iter().copied()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    pub(crate) async fn check(&self, args: &[&str]) -> CheckReport {
        self.check_with(args, &[]).await
    }

    pub(crate) async fn check_with(&self, args: &[&str], variables: &[(&str, &str)]) -> CheckReport {
        let (status, out, err) = self.podlog(&[&["check", "--json"], args].concat(), variables).await;
        let output = format!("{out}{err}");
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {output}"));
        assert_eq!(report["status"], status, "{output}");
        let facts = report["facts"].as_array().unwrap().clone();
        CheckReport { status, facts, output }
    }

    async fn sql(&self, statement: &str) {
        let mut conn = SqliteConnection::connect(&self.file()).await.unwrap();
        conn.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
        conn.close().await.unwrap();
    }
}

fn kubeconfig(address: &str) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "sim",
        "clusters": [{"name": "sim", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "sim", "user": {}}],
        "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "sim"}}]})
    .to_string()
}

/// A port on which no program listens.
pub(crate) fn closed() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_setup_gives_one_line_per_check_and_leaves_nothing_behind() {
    let fixture = CheckFixture::ready().await;
    let logs = format!("file://{}", fixture.path("logs").display());
    std::fs::create_dir(fixture.path("logs")).unwrap();
    for sink in [fixture.file(), logs, "stdout".into()] {
        let seen = fixture.check(&["--sink", &sink]).await;
        seen.is(0, &[]);
        assert!(seen.of("warning").is_empty(), "{}", seen.output);
    }
    let (status, out, err) = fixture.podlog(&["check"], &[]).await;
    assert_eq!((status, &*err), (0, ""), "{out}");
    assert!(
        out.lines().count() > 15 && out.ends_with("0 warnings, 0 failed, 1 skipped\n"),
        "{out}"
    );
    assert!(
        out.contains("✓ cluster: reading a log: ") && out.contains("shop/cart, container app"),
        "{out}"
    );
    assert_eq!(std::fs::read_dir(fixture.path("logs")).unwrap().count(), 0);
    let mut conn = SqliteConnection::connect(&fixture.file()).await.unwrap();
    for table in ["distributed_lock", "log_stream", "log_record", "log_gap"] {
        let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!(
            sqlx::query_scalar::<_, i64>(count).fetch_one(&mut conn).await.unwrap(),
            0,
            "{table}"
        );
    }
    assert!(fixture.sim.streams().is_empty(), "{:?}", fixture.sim.streams());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_missing_permission_is_named_with_the_rule_that_grants_it() {
    let fixture = CheckFixture::ready().await;
    fixture.sim.create(PodSpec::new("other", "pod").app("app")).unwrap();
    for (verb, resource) in RIGHTS {
        let rule = format!(r#"- {{apiGroups: [""], resources: ["{resource}"], verbs: ["{verb}"]}}"#);
        fixture.sim.revoke(verb, resource, None);
        let seen = fixture.check(&[]).await;
        let subject = format!("{verb} {resource} in all namespaces");
        assert_eq!(
            (seen.status, seen.of("failed")[0].clone()),
            (4, format!("cluster: {subject}")),
            "{}",
            seen.output
        );
        assert!(
            seen.remedy(&subject).contains("ClusterRole") && seen.remedy(&subject).contains(&rule),
            "{}",
            seen.output
        );
        fixture.sim.grant(verb, resource, None);

        fixture.sim.revoke(verb, resource, Some("other"));
        let seen = fixture.check(&["--namespace", "shop,other"]).await;
        let subject = format!("{verb} {resource} in namespace other");
        seen.is(4, &[&format!("cluster: {subject}")]);
        assert!(seen.remedy(&subject).contains("a Role in namespace other") && seen.remedy(&subject).contains(&rule));
        fixture.sim.grant(verb, resource, Some("other"));
    }
    fixture.check(&["--namespace", "shop,other"]).await.is(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_namespace_and_an_unreadable_log_are_reported() {
    let fixture = CheckFixture::ready().await;
    let seen = fixture.check(&["--namespace", "shop,nowhere"]).await;
    // `podlog run` waits for it.
    seen.is(0, &[]);
    assert!(
        seen.of("warning").contains(&"cluster: namespace nowhere".to_owned()),
        "{}",
        seen.output
    );
    let refuse = Fault::Refuse {
        status: 502,
        retry_after: None,
    };
    fixture.sim.inject(Target::verb(Verb::Log), refuse, u32::MAX);
    fixture.check(&[]).await.is(3, &["cluster: reading a log"]);
    fixture.sim.clear_faults();
    let seen = fixture.check(&["--selector", "app=none"]).await;
    seen.is(0, &[]);
    assert_eq!(seen.of("warning"), ["cluster: listing pods in all namespaces"]);
    let seen = fixture.check(&["--selector", "a b"]).await;
    seen.is(2, &["settings: selection"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failed_check_hides_no_other_and_dependent_checks_are_skipped() {
    let fixture = CheckFixture::ready().await;
    fixture.reach(closed());
    std::fs::write(fixture.path("file"), "").unwrap();
    let sink = format!("file://{}/logs", fixture.path("file").display());
    let seen = fixture.check(&["--ttl=1s", "--sink", &sink]).await;
    seen.is(2, &["settings: safety", "sink: writing", "cluster: connection"]);
    let skipped = seen.of("skipped");
    for subject in [
        "settings: takeover",
        "cluster: rights",
        "cluster: reading a log",
        "this machine: open files",
    ] {
        assert!(skipped.contains(&subject.to_owned()), "{subject}: {}", seen.output);
    }
    assert!(
        seen.of("ok").contains(&"lock store: writing".to_owned()),
        "{}",
        seen.output
    );
    fixture
        .check(&["--sink", &sink])
        .await
        .is(4, &["sink: writing", "cluster: connection"]);
    fixture.check(&[]).await.is(3, &["cluster: connection"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_older_newer_and_extended_tables_are_reported() {
    let fixture = CheckFixture::new().await;
    let seen = fixture.check(&[]).await;
    seen.is(0, &[]);
    assert_eq!(seen.of("warning"), ["lock store: connection", "sink: connection"]);
    let created = seen.of("ok");
    assert!(
        created.contains(&"lock store: podlog migrate".to_owned()),
        "{}",
        seen.output
    );
    assert!(!created.contains(&"sink: podlog migrate".to_owned()), "{}", seen.output);
    assert!(!fixture.path("podlog.db").exists());
    let seen = fixture.check(&["--no-migrate"]).await;
    seen.is(4, &["lock store: connection", "sink: connection"]);
    assert!(seen.remedy("connection").contains("podlog migrate"), "{}", seen.output);

    assert_eq!(fixture.podlog(&["migrate"], &[]).await.0, 0);
    for (change, status, remedy) in [
        (
            "UPDATE podlog_locks_migrations SET version = 100",
            4,
            "run `podlog migrate`",
        ),
        (
            "UPDATE podlog_locks_migrations SET version = 199",
            4,
            "run a newer podlog",
        ),
        (
            "UPDATE podlog_locks_migrations SET version = 101, success = FALSE",
            4,
            "podlog migrate",
        ),
        ("UPDATE podlog_locks_migrations SET success = TRUE", 0, ""),
        (
            "INSERT INTO podlog_locks_migrations (version, description, success, checksum, execution_time) \
             VALUES (199, 'additive note', TRUE, x'00', 1)",
            0,
            "",
        ),
    ] {
        fixture.sql(change).await;
        let seen = fixture.check(&["--no-migrate", "--sink", "stdout"]).await;
        let failed: &[&str] = if status == 0 { &[] } else { &["lock store: tables"] };
        seen.is(status, failed);
        assert!(seen.remedy("tables").contains(remedy), "{change}: {}", seen.output);
    }
    // Where `podlog run` brings the tables up to date itself, older ones are no failure.
    fixture
        .sql("DELETE FROM podlog_locks_migrations WHERE version > 101")
        .await;
    fixture.sql("UPDATE podlog_locks_migrations SET version = 100").await;
    let seen = fixture.check(&["--sink", "stdout"]).await;
    seen.is(0, &[]);
    assert_eq!(seen.of("warning"), ["lock store: tables"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_shows_a_secret() {
    let fixture = CheckFixture::new().await;
    let url = format!("mysql://u:hunter2@127.0.0.1:{}/d", closed());
    let variables = [("PODLOG_LOCK", &*url), ("PODLOG_SINK", &*url)];
    let seen = fixture.check_with(&[], &variables).await;
    seen.is(3, &["lock store: connection", "sink: connection"]);
    let (status, out, err) = fixture.podlog(&["check"], &variables).await;
    assert_eq!(status, 3);
    assert!(
        ![&*out, &err, &seen.output]
            .iter()
            .any(|output| output.contains("hunter2")),
        "{out}{err}"
    );
    assert!(out.contains("mysql://u:***@"), "{out}");
    let (status, out, err) = fixture
        .podlog(&["check"], &[("PODLOG_LOCK", "u:hunter2@tcp(h)/d")])
        .await;
    assert_eq!(status, 2);
    assert!(
        !out.contains("hunter2") && !err.contains("hunter2") && out.contains("settings cannot be read"),
        "{out}{err}"
    );
}
