//! Logs that cannot be read: each cause is said once with what the server said, shown while it lasts, and said once when
//! it is over; then everything is stored. One pod on the simulated cluster, behind a kubelet that misbehaves.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use kube_sim::{Cut, SimBody, Target};
use podlog::cluster::{Access, Cluster, LogError, LogQuery, open_log};
use podlog::domain::{ContainerState, Pod};
use podlog::metrics::{Metrics, Reason};
use podlog::unread::UnreadReason;
use serde_json::json;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tracing::subscriber::DefaultGuard;

use crate::follow_fixture::{FollowFixture, MINUTE};
use crate::hostile::proxy::{HostileProxy, RawAnswer, answer as raw_answer};

/// What happens to the requests for the log of `app`: the request is changed, or answered at once.
type Misbehaviour = Arc<dyn Fn(&mut Request<Body>) -> Option<Response<SimBody>> + Send + Sync>;

/// The pod of [`FollowFixture`] behind a kubelet that misbehaves while it is told to, and what podlog logs.
struct UnreadFixture {
    follow: FollowFixture,
    misbehaves: Arc<Mutex<Option<Misbehaviour>>>,
    /// The number of requests for logs.
    requests: Arc<Mutex<usize>>,
    log: Log,
    _logging: DefaultGuard,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl UnreadFixture {
    async fn new(misbehaves: impl Fn(&mut Request<Body>) -> Option<Response<SimBody>> + Send + Sync + 'static) -> Self {
        let mut follow = FollowFixture::running().await;
        let misbehaves = Arc::new(Mutex::new(Some(Arc::new(misbehaves) as Misbehaviour)));
        let requests = Arc::new(Mutex::new(0));
        let (sim, now, count) = (follow.sim.service(), misbehaves.clone(), requests.clone());
        let service = tower::service_fn(move |mut request: Request<Body>| {
            let is_log = request.uri().path().ends_with("/log");
            *count.lock().unwrap() += usize::from(is_log);
            let misbehaves = now.lock().unwrap().clone().filter(|_| is_log);
            let answer = misbehaves.and_then(|answer| answer(&mut request));
            let sim = sim.clone();
            async move {
                match answer {
                    Some(answer) => Ok(answer),
                    None => sim.oneshot(request).await,
                }
            }
        });
        follow.cluster = Cluster::over(service, follow.metrics.clone());
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || written.clone())
            .finish();
        Self {
            follow,
            misbehaves,
            requests,
            log,
            _logging: tracing::subscriber::set_default(subscriber),
        }
    }

    fn behave(&self) {
        *self.misbehaves.lock().unwrap() = None;
    }

    /// The lines that were logged at this level.
    fn logged(&self, level: &str) -> Vec<String> {
        let text = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(&format!(" {level} ")));
        lines.map(str::to_owned).collect()
    }

    fn unread(&self) -> Vec<(UnreadReason, String)> {
        let uid = self.follow.known.borrow().uid.clone();
        let logs = self.follow.unread.of_pod(&uid);
        logs.into_iter()
            .map(|(_, log)| (log.reason, log.message.to_string()))
            .collect()
    }

    fn gauge(&self, reason: UnreadReason) -> i64 {
        let reason = reason.as_str();
        self.follow
            .metrics
            .streams_unread
            .get_or_create(&Reason { reason })
            .get()
    }

    /// Follows the pod while it cannot be read, and asserts that one warning says why with these words.
    async fn says_once(&mut self, reason: UnreadReason, words: &[&str]) {
        self.follow.follow();
        tokio::time::sleep(10 * MINUTE).await;
        let warnings = self.logged("WARN");
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert_eq!(self.logged("ERROR"), [""; 0]);
        for word in words.iter().chain(&[reason.as_str()]) {
            assert!(warnings[0].contains(word), "{word} is not in {}", warnings[0]);
        }
        let unread = self.unread();
        assert!(unread.len() == 1 && unread[0].0 == reason, "{unread:?}");
        assert_eq!(self.gauge(reason), 1);
    }

    /// Asserts that the cause is said to be over, and that the lines are stored.
    async fn is_over(&mut self, reason: UnreadReason, lines: &[&str]) {
        self.behave();
        self.follow.stored(lines).await;
        tokio::time::sleep(2 * MINUTE).await;
        assert_eq!((self.unread().len(), self.gauge(reason)), (0, 0));
        let said = self.logged("INFO");
        let over: Vec<_> = said.iter().filter(|line| line.contains("any more")).collect();
        assert!(over.len() == 1 && over[0].contains(reason.as_str()), "{said:#?}");
        assert_eq!(self.logged("WARN").len(), 1);
        self.follow.stop().await;
    }
}

fn answer(code: u16, body: impl Into<Bytes>) -> Response<SimBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}

/// What the API server answers.
fn status(code: u16, message: &str) -> Response<SimBody> {
    answer(
        code,
        json!({"kind": "Status", "message": message, "code": code}).to_string(),
    )
}

/// Why the HTTP client of the API server did not reach the kubelet.
const NOT_REACHED: [&str; 4] = [
    "dial tcp 10.0.0.7:10250: connect: connection refused",
    "dial tcp 10.0.0.7:10250: i/o timeout",
    "tls: failed to verify certificate: x509: certificate has expired",
    "No agent available",
];

/// What a kubelet says, as the API server passes it on: the status, the reason and words of the warning.
const KUBELET_SAYS: [(u16, &str, UnreadReason, &[&str]); 10] = [
    (
        403,
        "Forbidden (user=kube-apiserver, verb=get, resource=nodes, subresource(s)=[proxy]) ( pods/log cart)",
        UnreadReason::KubeletRefused,
        &["user=kube-apiserver", "system:kubelet-api-admin", "podlog is allowed"],
    ),
    (
        401,
        "the server has asked for the client to provide credentials ( pods/log cart)",
        UnreadReason::KubeletRefused,
        &["--kubelet-client-certificate"],
    ),
    (
        500,
        "Internal error occurred: open /var/log/pods/x: permission denied",
        UnreadReason::KubeletFailed,
        &["permission denied"],
    ),
    (
        400,
        UNREADABLE,
        UnreadReason::KubeletFailed,
        &["unsupported log format"],
    ),
    (
        200,
        UNREADABLE,
        UnreadReason::KubeletFailed,
        &["unsupported log format"],
    ),
    (
        200,
        "password=hunter2\nanother line\n",
        UnreadReason::NoTimestamps,
        &["no timestamps", "--field-selector"],
    ),
    (
        404,
        "the server could not find the requested resource ( pods/log cart)",
        UnreadReason::NoLog,
        &["its node does not know it"],
    ),
    (
        400,
        "container \"app\" in pod \"cart\" is waiting to start: ContainerCreating",
        UnreadReason::NoLog,
        &["waits to be started"],
    ),
    (
        400,
        "container \"app\" in pod \"cart\" is not available",
        UnreadReason::NoLog,
        &["is not available"],
    ),
    (
        400,
        "previous terminated container \"app\" in pod \"cart\" not found",
        UnreadReason::NoLog,
        &["no previous instance"],
    ),
];

const UNREADABLE: &str = "failed to get parse function: unsupported log format: \"\\x00\\x00\"";

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_is_not_reached_is_said_once_and_shown_until_it_is_over() {
    for cause in NOT_REACHED {
        let said = format!("Get \"https://10.0.0.7:10250/containerLogs/shop/cart/app\": {cause}");
        let mut fixture = UnreadFixture::new(move |_| Some(status(500, &said))).await;
        fixture.follow.lines(["a", "b"]);
        let words = ["cannot reach the kubelet", cause, "check that the node runs"];
        fixture.says_once(UnreadReason::KubeletUnreachable, &words).await;
        fixture.is_over(UnreadReason::KubeletUnreachable, &["a", "b"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_kubelet_says_instead_of_a_log_is_said_once_and_shown_until_it_is_over() {
    for (code, said, reason, words) in KUBELET_SAYS {
        let answers = move |_: &mut _| {
            Some(if code == 200 {
                answer(code, said)
            } else {
                status(code, said)
            })
        };
        let mut fixture = UnreadFixture::new(answers).await;
        fixture.follow.lines(["a", "b"]);
        fixture.says_once(reason, words).await;
        assert!(!fixture.logged("WARN")[0].contains("hunter2"));
        fixture.is_over(reason, &["a", "b"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_or_a_proxy_refuses_is_said_once_and_not_by_node() {
    let forbidden = "pods \"cart\" is forbidden: User \"u\" cannot get resource \"pods/log\"";
    let cases: [(Misbehaviour, UnreadReason, &[&str]); 3] = [
        (
            Arc::new(|_| Some(answer(502, "<html>bad gateway</html>"))),
            UnreadReason::Proxy,
            &["bad gateway", "load balancer"],
        ),
        (
            Arc::new(|_| Some(status(503, "apiserver is shutting down"))),
            UnreadReason::ApiServer,
            &["shutting down"],
        ),
        (
            Arc::new(|_| Some(status(403, forbidden))),
            UnreadReason::Forbidden,
            &["u may not get pods/log", "namespace shop"],
        ),
    ];
    for (misbehaves, reason, words) in cases {
        let mut fixture = UnreadFixture::new(move |request| misbehaves(request)).await;
        fixture.follow.lines(["a"]);
        fixture.says_once(reason, words).await;
        fixture.is_over(reason, &["a"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_restarts_within_seconds_is_not_worth_a_warning() {
    let said = "Get \"https://n1:10250/containerLogs/shop/cart/app\": EOF";
    let mut fixture = UnreadFixture::new(|_| Some(status(500, said))).await;
    fixture.follow.lines(["a"]);
    fixture.follow.follow();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        fixture.gauge(UnreadReason::KubeletUnreachable),
        1,
        "it is shown at once"
    );
    fixture.behave();
    fixture.follow.stored(&["a"]).await;
    assert_eq!((fixture.logged("WARN").len(), fixture.unread().len()), (0, 0));
    fixture.follow.stop().await;
}

fn is_stream(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("follow=true"))
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_streams_end_at_once_is_read_in_growing_intervals() {
    let ignored: Misbehaviour = Arc::new(|request| {
        let uri = request.uri().to_string().replace("&follow=true", "");
        *request.uri_mut() = uri.parse().unwrap();
        None
    });
    let empty: Misbehaviour = Arc::new(|request| {
        if is_stream(request) {
            Some(answer(200, ""))
        } else {
            None
        }
    });
    let failed = "Internal error occurred: too many open files";
    let refused: Misbehaviour = Arc::new(move |request| {
        if is_stream(request) {
            Some(status(500, failed))
        } else {
            None
        }
    });
    for misbehaves in [ignored, empty, refused] {
        let mut fixture = UnreadFixture::new(move |request| misbehaves(request)).await;
        fixture.follow.follow();
        let expected: Vec<String> = (0..600).map(|n| format!("line {n}")).collect();
        for line in &expected {
            fixture.follow.lines([line.as_str()]);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let requests = *fixture.requests.lock().unwrap();
        println!("{requests} requests for logs in 10 min");
        assert!(requests < 600, "{requests} requests in 10 min");
        assert_eq!(fixture.gauge(UnreadReason::NotFollowed), 1);
        let warnings = fixture.logged("WARN");
        let of_streams = warnings.iter().filter(|line| line.contains("not_followed")).count();
        assert!(of_streams == 1 && warnings.len() <= 2, "{warnings:#?}");
        fixture.behave();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        fixture.follow.stored(&expected).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(
            (fixture.unread().len(), fixture.gauge(UnreadReason::NotFollowed)),
            (0, 0)
        );
        fixture.follow.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_exits_soon_after_each_start_is_followed() {
    let mut fixture = UnreadFixture::new(|_| None).await;
    let ended: Misbehaviour = Arc::new(|request| {
        if is_stream(request) {
            Some(answer(200, ""))
        } else {
            None
        }
    });
    fixture.follow.follow();
    let expected: Vec<String> = (0..6).map(|n| format!("run {n}")).collect();
    for line in &expected {
        fixture.behave();
        fixture.follow.lines([line.as_str()]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        // The container has exited, and the API still shows for a moment that it runs. Then the next instance runs.
        *fixture.misbehaves.lock().unwrap() = Some(ended.clone());
        fixture.follow.sim.cut(&Target::logs_of("shop", "cart"), Cut::Clean);
        tokio::time::sleep(Duration::from_secs(2)).await;
        fixture.follow.pod.exit("app", 1).unwrap();
        fixture.follow.pod.start("app").unwrap();
        fixture.follow.refresh().await;
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    fixture.follow.stored(&expected).await;
    assert_eq!(fixture.logged("WARN"), [""; 0]);
    fixture.behave();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(fixture.unread(), []);
    fixture.follow.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_runs_without_an_id_is_unread() {
    let mut fixture = UnreadFixture::new(|_| None).await;
    let with_id = fixture.follow.known.borrow().clone();
    let mut without = Pod::clone(&with_id);
    without.containers[0].state = ContainerState::RunningWithoutId;
    fixture.follow.known.send_replace(Arc::new(without));
    fixture.follow.lines(["a"]);
    fixture.says_once(UnreadReason::NoContainerId, &["containerID"]).await;
    fixture.follow.known.send_replace(with_id);
    fixture.is_over(UnreadReason::NoContainerId, &["a"]).await;
}

/// The answer of a server to a request for a log, as a whole process behind a socket would give it.
fn raw_status(code: u16, message: &str) -> RawAnswer {
    let body = json!({"kind": "Status", "message": message, "code": code}).to_string();
    raw_answer(&format!("{code} No"), "content-type: application/json\r\n", &body)
}

#[tokio::test]
async fn credentials_are_renewed_when_the_api_server_refuses_them_and_not_when_a_kubelet_refuses_those_of_the_api_server()
 {
    let (dir, mut tasks) = (tempfile::tempdir().unwrap(), JoinSet::new());
    let proxy = HostileProxy::start(0, &mut tasks).await;
    let runs = dir.path().join("runs");
    let credential =
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t"}});
    let script = format!("echo >> {}; echo '{credential}'", runs.display());
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "sh", "args": ["-c", script]});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", proxy.port())}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"exec": exec}}],
    });
    std::fs::write(dir.path().join("kubeconfig"), config.to_string()).unwrap();
    let access = Access {
        kubeconfig: Some(dir.path().join("kubeconfig")),
        ..Access::default()
    };
    let cluster = Cluster::connect(&access, Metrics::default()).await.unwrap();
    let query = LogQuery {
        namespace: "shop".into(),
        pod: "cart".into(),
        container: "app".into(),
        follow: false,
        previous: false,
        since: None,
        tail_lines: None,
    };
    let plugin_runs = || std::fs::read_to_string(&runs).unwrap().lines().count();
    let at_first = plugin_runs();
    for said in [
        "the server has asked for the client to provide credentials ( pods/log cart)",
        "Unauthorized ( pods/log x)",
    ] {
        proxy.rule(move |_| Some(raw_status(401, said)));
        let error = open_log(&cluster, &query).await.unwrap_err();
        assert!(matches!(error, LogError::KubeletRefused(_)), "{error}");
        assert_eq!(plugin_runs(), at_first, "{said}");
    }
    proxy.rule(|_| Some(raw_status(401, "Unauthorized")));
    assert!(open_log(&cluster, &query).await.is_err());
    assert!(plugin_runs() > at_first, "the API server refused the credentials");
}
