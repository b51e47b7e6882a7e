//! `podlog check` reads one running pod of each node, and says who keeps a log from being read.

use kube_sim::{Fault, PodSpec, Target, Verb};
use tokio::task::JoinSet;

use crate::check::{CheckFixture, CheckReport};
use crate::hostile::proxy::{HostileProxy, RawAnswer, answer};

/// The fixture of `check` with a second node, on which the pods `shop/other` and `shop/third` run, behind a proxy that
/// answers instead of the kubelet of that node.
struct NodesFixture {
    check: CheckFixture,
    proxy: HostileProxy,
    _tasks: JoinSet<()>,
}

impl NodesFixture {
    async fn new() -> Self {
        let check = CheckFixture::ready().await;
        for name in ["other", "third"] {
            let pod = check.sim.create(PodSpec::new("shop", name).node("n2").app("app"));
            let pod = pod.unwrap();
            pod.start("app").unwrap();
            pod.line("app", "one").unwrap();
        }
        check
            .sim
            .create(PodSpec::new("shop", "unscheduled").app("app"))
            .unwrap();
        let mut tasks = JoinSet::new();
        let proxy = HostileProxy::start(check.port, &mut tasks).await;
        check.reach(proxy.port());
        Self {
            check,
            proxy,
            _tasks: tasks,
        }
    }

    /// What `check` finds when the kubelet of `n2` gives this answer to requests for logs with this text in them.
    async fn check(&self, of: &'static str, with: RawAnswer) -> CheckReport {
        self.proxy.rule(move |head| {
            let asked = head.contains("/pods/other/log") || head.contains("/pods/third/log");
            (asked && head.contains(of)).then(|| with.clone())
        });
        self.check.check(&[]).await
    }
}

fn status(code: u16, message: &str) -> RawAnswer {
    let body = serde_json::json!({"kind": "Status", "message": message, "code": code}).to_string();
    answer(&format!("{code} No"), "content-type: application/json\r\n", &body)
}

/// The text and the remedy of what was said about reading logs, by state.
fn said(report: &CheckReport, state: &str) -> Vec<String> {
    let facts = report.facts.iter();
    let of = facts.filter(|fact| fact["state"] == state && fact["subject"] == "reading a log");
    of.map(|fact| {
        format!(
            "{}; {}",
            fact["fact"].as_str().unwrap(),
            fact["remedy"].as_str().unwrap()
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_on_every_node() {
    let fixture = NodesFixture::new().await;
    let healthy = fixture.check("nothing has this", status(500, "")).await;
    let ok = said(&healthy, "ok");
    assert!(
        healthy.status == 0 && ok.len() == 1 && ok[0].contains("of 2 nodes, the logs of 2 can"),
        "{ok:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_the_logs_of_a_node_from_being_read_is_said_with_who_said_it() {
    let fixture = NodesFixture::new().await;
    let refused = "Get \"https://10.0.0.7:10250/containerLogs/shop/other/app\": dial tcp: connect: connection refused";
    let kubelet = "Forbidden (user=kube-apiserver, verb=get, resource=nodes) ( pods/log other)";
    let cases = [
        ("log?", status(500, refused), 3, "cannot reach the kubelet"),
        ("log?", status(403, kubelet), 4, "system:kubelet-api-admin"),
        (
            "log?",
            status(400, "failed to get parse function: unsupported log format"),
            4,
            "the kubelet cannot serve",
        ),
        ("log?", answer("200 OK", "", "password=hunter2\n"), 4, "no timestamps"),
        (
            "log?",
            answer("200 OK", "", "failed to open log file"),
            4,
            "the kubelet cannot read the log: failed to open",
        ),
        ("follow=true", answer("200 OK", "", ""), 4, "its stream ends at once"),
        (
            "follow=true",
            status(500, "Internal error occurred: too many open files"),
            3,
            "too many open files",
        ),
        (
            "log?",
            answer("502 Bad Gateway", "", "<html>"),
            3,
            "between podlog and the API server",
        ),
    ];
    for (of, with, status, words) in cases {
        let report = fixture.check(of, with).await;
        let failed = said(&report, "failed");
        assert!(
            report.status == status && failed.len() == 1,
            "{words}: {}",
            report.output
        );
        assert!(
            failed[0].contains(words) && failed[0].contains("node n2"),
            "{words}: {failed:?}"
        );
        assert!(!report.output.contains("hunter2"), "{}", report.output);
        let ok = said(&report, "ok");
        assert!(
            ok.len() == 1 && ok[0].contains("the logs of 1 can be read and those of 1 cannot"),
            "{ok:?}"
        );
    }
    assert!(fixture.check.sim.streams().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_not_there_any_more_is_passed_over_for_another_of_its_node() {
    let fixture = NodesFixture::new().await;
    let gone = || Fault::Refuse {
        status: 404,
        retry_after: None,
    };
    fixture
        .check
        .sim
        .inject(Target::logs_of("shop", "other"), gone(), u32::MAX);
    let report = fixture.check.check(&[]).await;
    assert!(
        said(&report, "ok")[0].contains("of 2 nodes, the logs of 2 can"),
        "{}",
        report.output
    );
    fixture.check.sim.inject(Target::verb(Verb::Log), gone(), u32::MAX);
    let report = fixture.check.check(&[]).await;
    assert!(
        report.status == 0 && said(&report, "skipped").len() == 1,
        "{}",
        report.output
    );
}
