//! API servers that send malformed, endless or wrong responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kube_sim::{PodSpec, Target};

use super::fixture::{HostileFixture, MARKER};
use super::proxy::{HostileProxy, OPEN_END, RawAnswer, answer};

/// Malformed responses, and some that look almost right.
fn nonsense() -> Vec<RawAnswer> {
    let bytes = |text: &str| RawAnswer::Bytes(text.as_bytes().to_vec());
    let html = "<!DOCTYPE html><html><body>\n<h1>Sign in</h1>\n\u{1b}[31m\n</body></html>";
    let mut noise = vec![0_u8; 4096];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    vec![
        RawAnswer::Bytes(noise),
        bytes(""),
        bytes("HTTP/1.1 200"),
        bytes("HTTP/9.9 99999 \u{1b}[2J\r\n\r\n"),
        bytes("SSH-2.0-OpenSSH_9.9\r\n"),
        answer("200 OK", "content-type: text/html\r\n", html),
        answer("502 Bad Gateway", "content-type: text/html\r\n", html),
        answer("418 \u{1f600}", "x-\u{1}: y\r\n", "\0\0\0"),
        answer("200 OK", "content-encoding: gzip\r\n", "not gzip at all"),
        answer("200 OK", "", "{\"kind\":\"Status\",\"code\":\"many\"}"),
        answer(
            "500 No",
            "",
            "{\"kind\":\"Status\",\"message\":\"a\\n\\u001b[31mb\\u009b\",\"code\":500}",
        ),
        bytes("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nshort"),
        bytes("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nmuch more than that"),
        bytes("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
        bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\ngarbage\r\n"),
        bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n"),
        bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"),
        RawAnswer::Endless {
            head: b"HTTP/1.1 200 OK\r\n".to_vec(),
            piece: b"x-endless: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".to_vec(),
            bytes: 64 << 20,
        },
    ]
}

/// What can be asked of an API server here.
const KINDS: [fn(&str) -> bool; 3] = [is_list, is_watch, is_log];

/// How often each kind of request was answered by a rule.
type AnswerCounts = Arc<[AtomicUsize; 3]>;

/// A rule that gives requests of each kind that match one of these after another, each once. Later requests are passed
/// on, so that a failed list does not prevent a watch. Also returns the counters.
fn each_in_turn(
    answers: Vec<RawAnswer>,
    hits: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> (AnswerCounts, impl Fn(&str) -> Option<RawAnswer>) {
    let counts = AnswerCounts::default();
    let counted = counts.clone();
    let rule = move |head: &str| {
        let kind = KINDS.iter().position(|is| is(head)).filter(|_| hits(head))?;
        answers.get(counted[kind].fetch_add(1, Ordering::Relaxed)).cloned()
    };
    (counts, rule)
}

/// Waits until each of these kinds of request got this many answers and was sent again.
async fn all_answered(fixture: &mut HostileFixture, counts: &AnswerCounts, kinds: &[usize], answers: usize) {
    fixture
        .until("each kind of request was given each answer", async |_| {
            kinds.iter().all(|kind| counts[*kind].load(Ordering::Relaxed) > answers)
        })
        .await;
}

/// Lists and watches of pods.
fn is_discovery(head: &str) -> bool {
    head.starts_with("GET /api/v1/pods?")
}

fn is_list(head: &str) -> bool {
    is_discovery(head) && !is_watch(head)
}

fn is_watch(head: &str) -> bool {
    is_discovery(head) && head.contains("watch=")
}

fn is_log(head: &str) -> bool {
    head.contains("/log?")
}

#[tokio::test]
async fn a_log_is_read_after_the_server_stops_sending_malformed_responses() {
    let mut fixture = HostileFixture::new().await;
    let answers = nonsense();
    let names: Vec<String> = (0..answers.len()).map(|n| format!("bad-{n}-")).collect();
    for name in &names {
        let pod = fixture
            .sim
            .create(PodSpec::new("shop", name).node("n1").app("app"))
            .unwrap();
        pod.start("app").unwrap();
        for n in 0..50 {
            pod.line("app", format!("line {n}")).unwrap();
        }
    }
    fixture.write(50);
    // Each pod gets one kind of malformed response, twice.
    let counts: Vec<AtomicUsize> = names.iter().map(|_| AtomicUsize::new(0)).collect();
    let (all, pods) = (2 * answers.len() as u64, names.clone());
    fixture.proxy.rule(move |head| {
        let at = pods.iter().position(|name| head.contains(&format!("/{name}/log")))?;
        (counts[at].fetch_add(1, Ordering::Relaxed) < 2).then(|| answers[at].clone())
    });
    fixture.run();
    fixture
        .until("all was said", async |fixture| fixture.proxy.matched() >= all)
        .await;
    fixture.write(50);
    fixture.good_pod_is_stored().await;
    let expected: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
    fixture
        .until("all pods are stored whole", async |fixture| {
            let stored = fixture.messages();
            names.iter().all(|name| stored.get(name) == Some(&expected))
        })
        .await;
    fixture.end().await;
}

#[tokio::test]
async fn malformed_lists_and_watches_stop_no_stream_and_new_pods_are_found_afterwards() {
    let mut fixture = HostileFixture::new().await;
    fixture.write(20);
    fixture.run();
    fixture.good_pod_is_stored().await;
    let (counts, rule) = each_in_turn(nonsense(), is_discovery);
    fixture.proxy.rule(rule);
    fixture.sim.cut(&Target::watches(), kube_sim::Cut::Reset);
    all_answered(&mut fixture, &counts, &[0, 1], nonsense().len()).await;
    fixture.write(20);
    fixture.good_pod_is_stored().await;
    let late = fixture
        .sim
        .create(PodSpec::new("shop", "late").node("n1").app("app"))
        .unwrap();
    late.start("app").unwrap();
    late.line("app", "late 0").unwrap();
    fixture.proxy.pass_everything_on();
    fixture
        .until("the late pod is stored", async |fixture| {
            fixture.messages().get("late").is_some_and(|lines| lines == &["late 0"])
        })
        .await;
    fixture.end().await;
}

#[tokio::test]
async fn truncated_and_malformed_events_end_a_watch_but_lose_no_pod() {
    let mut fixture = HostileFixture::new().await;
    fixture.write(20);
    fixture.run();
    fixture.good_pod_is_stored().await;
    let whole = r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","uid":"x""#;
    let secret = format!(r#"{{"type":"ADDED","object":{{"metadata":{{"name":"x","uid":"u"}},"spec":"{MARKER}"}}}}"#);
    let events = [
        whole,
        "{\"type\":\"ADDED\",\"object\":null}\n",
        "{\"type\":\"BLOOMED\",\"object\":{}}\n",
        "{\"type\":\"ERROR\",\"object\":{\"code\":999999}}\n",
        "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"\\n\\u001b?&x=1\"}}}\n",
        "[[[[[[[[[[[[\n",
        "null\n\n\n\n",
        &secret,
        &format!("{}\n", "[".repeat(100_000)),
    ];
    let answers = events
        .iter()
        .map(|event| RawAnswer::Bytes(format!("{OPEN_END}{event}").into_bytes()));
    let count = events.len();
    let (counts, rule) = each_in_turn(answers.collect(), is_watch);
    fixture.proxy.rule(rule);
    fixture.sim.cut(&Target::watches(), kube_sim::Cut::Reset);
    all_answered(&mut fixture, &counts, &[1], count).await;
    fixture.write(20);
    fixture.good_pod_is_stored().await;
    fixture.proxy.pass_everything_on();
    fixture.end().await;
}

/// Sends this answer to every list or watch of a replica that collects; returns the replica's peak memory in MiB.
async fn flooded(hits: fn(&str) -> bool, head: &str, piece: &str) -> u64 {
    let mut fixture = HostileFixture::new().await;
    fixture.write(20);
    fixture.run();
    fixture.good_pod_is_stored().await;
    let flood = RawAnswer::Endless {
        head: format!("{OPEN_END}{head}").into_bytes(),
        piece: piece.repeat(1 + (64 << 10) / piece.len()).into_bytes(),
        bytes: 2 << 30,
    };
    fixture.proxy.rule(move |head| hits(head).then(|| flood.clone()));
    fixture.sim.compact();
    fixture.sim.cut(&Target::watches(), kube_sim::Cut::Reset);
    fixture
        .until("an endless response was aborted", async |fixture| {
            fixture.proxy.matched() >= 2
        })
        .await;
    fixture.write(20);
    fixture.good_pod_is_stored().await;
    println!("{} MiB were sent", fixture.proxy.sent() >> 20);
    let peak = fixture.peak();
    fixture.proxy.pass_everything_on();
    fixture.end().await;
    peak
}

#[tokio::test]
async fn an_endless_list_is_aborted_before_it_fills_the_memory() {
    let item = r#"{"metadata":{"name":"x","namespace":"y","uid":"z","labels":{"a":"b"}}},"#;
    let peak = flooded(is_discovery, r#"{"kind":"PodList","items":["#, item).await;
    println!("{peak} MiB");
    assert!(peak < 1024, "{peak} MiB");
}

#[tokio::test]
async fn an_endless_watch_event_is_aborted_before_it_fills_the_memory() {
    let peak = flooded(is_watch, r#"{"type":"ADDED","object":{"metadata":{"name":""#, "x").await;
    println!("{peak} MiB");
    assert!(peak < 256, "{peak} MiB");
}

#[tokio::test]
async fn a_list_with_endless_pages_is_aborted() {
    let mut fixture = HostileFixture::new().await;
    fixture.write(20);
    fixture.run();
    fixture.good_pod_is_stored().await;
    let page =
        r#"{"kind":"PodList","apiVersion":"v1","metadata":{"continue":"again","resourceVersion":"1"},"items":[]}"#;
    fixture
        .proxy
        .rule(move |head| is_discovery(head).then(|| answer("200 OK", "", page)));
    fixture.sim.compact();
    fixture.sim.cut(&Target::watches(), kube_sim::Cut::Reset);
    let given_up = "the list of pods does not end";
    fixture
        .until(given_up, async |fixture| fixture.log().contains(given_up))
        .await;
    fixture.write(20);
    fixture.good_pod_is_stored().await;
    fixture.proxy.pass_everything_on();
    fixture.end().await;
}

/// Each kind of redirect to another server.
fn redirects(other: &HostileProxy) -> Vec<RawAnswer> {
    let location = format!("location: http://127.0.0.1:{}/api/v1/elsewhere\r\n", other.port());
    let status = ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"];
    let redirects = status.iter().map(|status| answer(status, &location, "go there"));
    redirects.collect()
}

/// A server that must get no request, and would answer any.
async fn elsewhere(tasks: &mut tokio::task::JoinSet<()>) -> HostileProxy {
    let other = HostileProxy::start(0, tasks).await;
    other.rule(|_| Some(answer("200 OK", "", "{}")));
    other
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_gets_no_credentials() {
    let mut fixture = HostileFixture::new().await;
    let bad = fixture.bad();
    bad.line("app", "bad 0").unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let other = elsewhere(&mut tasks).await;
    fixture.write(20);
    fixture.run();
    fixture.good_pod_is_stored().await;
    let redirects = redirects(&other);
    let count = redirects.len();
    let (counts, rule) = each_in_turn(redirects, |head| is_discovery(head) || head.contains("/pods/bad"));
    fixture.proxy.rule(rule);
    fixture.sim.cut(&Target::watches(), kube_sim::Cut::Reset);
    fixture.sim.cut(&Target::logs_of("shop", "bad"), kube_sim::Cut::Reset);
    all_answered(&mut fixture, &counts, &[0, 1, 2], count).await;
    bad.line("app", "bad 1").unwrap();
    fixture.write(20);
    fixture.good_pod_is_stored().await;
    fixture
        .until("the log that was redirected is stored", async |fixture| {
            fixture.messages_of("bad") == ["bad 0", "bad 1"]
        })
        .await;
    let credentials = |head: &String| head.to_ascii_lowercase().contains(&format!("bearer {MARKER}"));
    assert!(
        fixture.proxy.heads().iter().all(credentials),
        "the first host is given the token"
    );
    assert_eq!(other.heads(), Vec::<String>::new(), "the other host was asked");
    fixture.end().await;
}

#[tokio::test]
async fn check_reports_an_api_server_that_redirects_and_does_not_follow_it() {
    let fixture = HostileFixture::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    let other = elsewhere(&mut tasks).await;
    for (redirect, number) in redirects(&other).into_iter().zip(["301", "302", "303", "307", "308"]) {
        fixture.proxy.rule(move |_| Some(redirect.clone()));
        let asked = fixture.proxy.matched();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_podlog"))
            .args([
                "check",
                "--sink",
                "stdout",
                "--lock",
                "sqlite://claims.db",
                "--kubeconfig",
            ])
            .current_dir(fixture.dir.path())
            .arg(fixture.dir.path().join("kubeconfig"))
            .output()
            .await
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        println!("{said}");
        assert!(fixture.proxy.matched() > asked, "nothing was asked");
        assert!(!output.status.success() && said.contains(number), "{said}");
        assert!(!said.contains(MARKER) && !said.contains("panicked"), "{said}");
        assert!(!said.lines().any(|line| line.chars().any(char::is_control)), "{said}");
    }
    assert_eq!(other.heads(), Vec::<String>::new(), "the other host was asked");
}
