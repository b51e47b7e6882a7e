//! A scripted API server for the tests of discovery on a paused clock.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::client::Cluster;
use super::discover::discover;
use super::select::Scope;
use crate::domain::PodSet;
use crate::metrics::Metrics;

/// What the server does with one watch.
pub(super) enum ScriptedWatch {
    /// Sends these events, then ends.
    Events(Vec<Value>),
    /// Sends these events, then stays silent.
    Silent(Vec<Value>),
    /// Sends nothing, and ends after this time.
    CutAfter(Duration),
    /// Sends a bookmark a minute.
    Bookmarks,
    /// Refuses with this status.
    Refuse(u16),
}

/// The pods that the server has, and the requests that it received.
#[derive(Default)]
pub(super) struct Script {
    pub(super) pods: Vec<Value>,
    /// How many pods are on one page; 0 means all.
    pub(super) page: usize,
    pub(super) list_code: u16,
    pub(super) version_code: u16,
    pub(super) watches: VecDeque<ScriptedWatch>,
    /// Whether watches after the scripted ones are refused.
    pub(super) refuse_watches: bool,
    pub(super) requests: Vec<(Duration, String)>,
}

pub(super) struct DiscoveryFixture {
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) pod_sets: watch::Receiver<Arc<PodSet>>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
    pub(super) tasks: JoinSet<()>,
}

type AnswerBody = BoxBody<Bytes, Infallible>;

fn text(value: &Value) -> AnswerBody {
    use http_body_util::BodyExt;
    let bytes = Bytes::from(value.to_string());
    http_body_util::Full::new(bytes).boxed()
}

fn events(list: Vec<Value>, after: &ScriptedWatch) -> AnswerBody {
    use http_body_util::BodyExt;
    let line = |event: Value| Ok(Frame::data(Bytes::from(format!("{event}\n"))));
    let now = futures::stream::iter(list).map(line);
    match after {
        ScriptedWatch::Silent(_) => BodyExt::boxed(StreamBody::new(now.chain(futures::stream::pending()))),
        ScriptedWatch::CutAfter(time) => {
            let cut = futures::stream::once(tokio::time::sleep(*time)).filter_map(async |()| None);
            BodyExt::boxed(StreamBody::new(now.chain(cut)))
        }
        ScriptedWatch::Bookmarks => {
            let beat = futures::stream::unfold(2, |n| async move {
                tokio::time::sleep(Duration::from_mins(1)).await;
                Some((n, n + 1))
            });
            let mark = move |n: u32| {
                line(
                    json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": n.to_string()}}}),
                )
            };
            BodyExt::boxed(StreamBody::new(beat.map(mark)))
        }
        _ => BodyExt::boxed(StreamBody::new(now)),
    }
}

fn answer(script: &Mutex<Script>, start: Instant, request: &Request<Body>) -> Response<AnswerBody> {
    let mut script = script.lock().unwrap();
    let uri = request.uri().to_string();
    if uri.ends_with("/version") {
        return match script.version_code {
            0 => Response::new(text(&json!({"gitVersion": "v1.36.0"}))),
            code => Response::builder().status(code).body(text(&json!({}))).unwrap(),
        };
    }
    script.requests.push((start.elapsed(), uri.clone()));
    let refuse = |code: u16| {
        let status = json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": code});
        Response::builder().status(code).body(text(&status)).unwrap()
    };
    if uri.contains("watch=true") {
        return match script.watches.pop_front() {
            Some(ScriptedWatch::Refuse(code)) => refuse(code),
            Some(ScriptedWatch::Events(list)) => Response::new(events(list, &ScriptedWatch::Events(vec![]))),
            Some(ScriptedWatch::Silent(list)) => Response::new(events(list, &ScriptedWatch::Silent(vec![]))),
            Some(ScriptedWatch::CutAfter(time)) => Response::new(events(vec![], &ScriptedWatch::CutAfter(time))),
            Some(ScriptedWatch::Bookmarks) => Response::new(events(vec![], &ScriptedWatch::Bookmarks)),
            None if script.refuse_watches => refuse(403),
            None => Response::new(events(vec![], &ScriptedWatch::Silent(vec![]))),
        };
    }
    if script.list_code != 0 {
        return refuse(script.list_code);
    }
    let namespace = uri.split("/namespaces/").nth(1).and_then(|rest| rest.split('/').next());
    let here = |pod: &&Value| namespace.is_none_or(|name| pod["metadata"]["namespace"] == name);
    let from: usize = uri
        .split("continue=")
        .nth(1)
        .map_or(0, |rest| rest.split('&').next().unwrap().parse().unwrap());
    let all: Vec<&Value> = script.pods.iter().filter(here).collect();
    let page = if script.page == 0 { all.len() } else { script.page };
    let items: Vec<&&Value> = all.iter().skip(from).take(page).collect();
    let next = (from + page < all.len()).then(|| (from + page).to_string());
    Response::new(text(
        &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1", "continue": next}, "items": items}),
    ))
}

pub(super) fn fixture(script: Script, scope: Scope) -> DiscoveryFixture {
    let script = Arc::new(Mutex::new(script));
    let (metrics, stop, start) = (Metrics::default(), CancellationToken::new(), Instant::now());
    let served = Arc::clone(&script);
    let service = tower::service_fn(move |request: Request<Body>| {
        let response = answer(&served, start, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let cluster = Cluster::over(service, metrics.clone());
    let (out, pod_sets) = watch::channel(Arc::default());
    let (mut tasks, ended) = (JoinSet::new(), stop.clone());
    tasks.spawn(async move { discover(&cluster, &scope, out, ended).await.unwrap() });
    DiscoveryFixture {
        script,
        pod_sets,
        metrics,
        stop,
        tasks,
    }
}

impl DiscoveryFixture {
    pub(super) async fn until(&mut self, what: impl Fn(&PodSet) -> bool) -> Arc<PodSet> {
        let set = timeout(Duration::from_hours(1), self.pod_sets.wait_for(|set| what(set))).await;
        Arc::clone(&set.expect("the set changes within an hour").unwrap())
    }

    /// Times of the requests for watches, or for lists, in seconds since the start.
    pub(super) fn times(&self, watches: bool) -> Vec<f64> {
        let script = self.script.lock().unwrap();
        let requests = script
            .requests
            .iter()
            .filter(|(_, uri)| uri.contains("watch=true") == watches);
        requests.map(|(at, _)| at.as_secs_f64()).collect()
    }
}

pub(super) fn pod(name: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "2"},
        "spec": {"containers": [{"name": "app"}]}, "status": {"phase": phase}
    })
}

pub(super) fn event(kind: &str, pod: impl Into<Value>) -> Value {
    json!({"type": kind, "object": pod.into()})
}

pub(super) fn expired() -> Value {
    event(
        "ERROR",
        json!({"kind": "Status", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410}),
    )
}
