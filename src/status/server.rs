//! The HTTP endpoints: `/healthz`, `/readyz`, `/metrics` and `/status`. Read-only.
//!
//! They answer from values in memory, so that a probe never waits for a database.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Status;
use super::health::Health;
use super::ready::Readiness;
use crate::domain::Message;
use crate::exit::Failure;
use crate::stop::finish_within;

/// The longest time for open requests to end after the stop. Probes are answered in milliseconds.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The content type of `OpenMetrics` text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The data of all endpoints.
#[derive(Clone, Debug)]
pub struct ServerState {
    /// The latest snapshot of the replica's work.
    pub status: watch::Receiver<Arc<Status>>,
    /// The conditions of readiness.
    pub readiness: Readiness,
    /// The loops that must keep running.
    pub health: Health,
    /// The metrics.
    pub registry: Arc<Registry>,
    /// Cancelled when the replica stops, which may take until `--grace` is over.
    pub stopping: CancellationToken,
}

/// Logged together with the address once the server listens. With port 0 only this shows the real port.
pub(crate) const LISTENING: &str = "serving health, metrics and status";

/// Listens at `address`. Fails with the cause and what to do about it.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Message> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = if error.kind() == std::io::ErrorKind::AddrInUse {
            "the address is in use by another process".to_owned()
        } else {
            error.to_string()
        };
        Message::new(text, "choose another address with --http, or --http off")
    })
}

/// Listens at `address` and logs it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = listen(address).await.map_err(|message| {
        let text = format!("--http {address}: {}", message.text);
        Failure::usage(text).with_remedy(message.remedy)
    })?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "{LISTENING}");
    }
    Ok(listener)
}

/// Serves the endpoints until `stop` is cancelled and the open requests are answered.
pub async fn serve(listener: TcpListener, state: ServerState, stop: CancellationToken) -> Result<(), Failure> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(state);
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    finish_within(&stop, SHUTDOWN_TIMEOUT, server.into_future())
        .await
        .unwrap_or(Ok(()))
        .map_err(|e| Failure::failed(format!("serving --http failed: {e}")).with_remedy("restart, or use --http off"))
}

async fn healthz(State(state): State<ServerState>) -> Response {
    let stuck = state.health.stuck();
    if stuck.is_empty() {
        return "ok\n".into_response();
    }
    let mut text = String::new();
    for stuck_loop in stuck {
        // Writing to a string cannot fail.
        writeln!(
            text,
            "{} has not run for {} ms",
            stuck_loop.name,
            stuck_loop.since.as_millis()
        )
        .ok();
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Why the replica is not ready.
fn not_ready(state: &ServerState) -> Vec<String> {
    let mut missing = state.readiness.missing();
    if state.stopping.is_cancelled() {
        missing.push("not stopping".to_owned());
    }
    missing
}

async fn readyz(State(state): State<ServerState>) -> Response {
    let missing = not_ready(&state);
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("missing: {}\n", missing.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(state): State<ServerState>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &state.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written\n").into_response(),
    }
}

/// The answer to `/status`.
#[derive(Debug, Serialize)]
struct StatusAnswer {
    /// What `/readyz` says is missing.
    not_ready: Vec<String>,
    #[serde(flatten)]
    status: Arc<Status>,
}

async fn status(State(state): State<ServerState>) -> Json<StatusAnswer> {
    Json(StatusAnswer {
        not_ready: not_ready(&state),
        status: state.status.borrow().clone(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::*;
    use crate::clock::Clock;
    use crate::domain::Time;
    use crate::metrics::Metrics;
    use crate::status::PodStatus;

    struct Served {
        address: SocketAddr,
        publisher: watch::Sender<Arc<Status>>,
        readiness: Readiness,
        health: Health,
        metrics: Metrics,
        stop: CancellationToken,
        stopping: CancellationToken,
        tasks: JoinSet<Result<(), Failure>>,
    }

    async fn served() -> Served {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let empty = Status::new("me#1".into(), "default".into(), Time(0));
        let (publisher, status) = watch::channel(Arc::new(empty));
        let (readiness, health) = (Readiness::default(), Health::new(Clock::boottime()));
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = (CancellationToken::new(), CancellationToken::new());
        let state = ServerState {
            status,
            readiness: readiness.clone(),
            health: health.clone(),
            registry: Arc::new(registry),
            stopping: stopping.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, state, stop.clone()));
        Served {
            address,
            publisher,
            readiness,
            health,
            metrics,
            stop,
            stopping,
            tasks,
        }
    }

    impl Served {
        /// Status and body of a GET.
        async fn get(&self, path: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: podlog\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            let code = text.split(' ').nth(1).unwrap().parse().unwrap();
            (code, text.split_once("\r\n\r\n").unwrap().1.to_owned())
        }
    }

    #[tokio::test]
    async fn readyz_names_the_missing_conditions_until_all_are_met() {
        let served = served().await;
        let list = served.readiness.condition("first list done");
        assert_eq!(served.get("/readyz").await, (503, "missing: first list done\n".into()));
        let shown: serde_json::Value = serde_json::from_str(&served.get("/status").await.1).unwrap();
        assert_eq!(shown["not_ready"], serde_json::json!(["first list done"]));
        list.set();
        assert_eq!(served.get("/readyz").await, (200, "ok\n".into()));
        served.stopping.cancel();
        assert_eq!(served.get("/readyz").await, (503, "missing: not stopping\n".into()));
    }

    #[tokio::test]
    async fn tasks_are_counted_when_the_metrics_are_read() {
        let served = served().await;
        let mut more = JoinSet::new();
        let count = async || {
            let (_, text) = served.get("/metrics").await;
            let line = text.lines().find_map(|line| line.strip_prefix("podlog_tasks "));
            line.and_then(|count| count.parse::<u32>().ok()).unwrap()
        };
        let before = count().await;
        for _ in 0..10 {
            more.spawn(std::future::pending::<()>());
        }
        // The server's own tasks: the one that listens, and one for each connection.
        assert!((before + 8..=before + 12).contains(&count().await), "{before}");
    }

    #[tokio::test]
    async fn a_loop_that_does_not_run_makes_the_replica_unhealthy() {
        let served = served().await;
        let heartbeat = served.health.register("renewal", Duration::from_mins(1));
        assert_eq!(served.get("/healthz").await, (200, "ok\n".into()));
        heartbeat.retire();
        let stuck = served.health.register("collector", Duration::ZERO);
        let (code, text) = served.get("/healthz").await;
        assert_eq!(code, 503);
        assert!(text.starts_with("collector has not run for "), "{text}");
        stuck.retire();
    }

    #[tokio::test]
    async fn metrics_and_status_show_the_latest_values() {
        let served = served().await;
        served.metrics.pods_held.set(3);
        let (code, text) = served.get("/metrics").await;
        assert_eq!(code, 200);
        assert!(
            text.contains("podlog_pods_held 3\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
        let mut status = Status::new("me#1".into(), "default".into(), Time(0));
        status.pods.push(PodStatus {
            namespace: "shop".into(),
            pod: "cart-0".into(),
            uid: "u1".into(),
            holder: Some("me#1".into()),
            fence: crate::domain::Fence(5),
            expires_in_ms: -3,
            finished: false,
            streams: Vec::new(),
        });
        served.publisher.send_replace(Arc::new(status));
        let (code, text) = served.get("/status").await;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(code, 200);
        assert_eq!(value["started"], "1970-01-01T00:00:00.000000000Z");
        assert_eq!(value["pods"][0]["holder"], "me#1");
        assert_eq!(value["pods"][0]["fence"], 5);
        assert_eq!(served.get("/nothing").await.0, 404);
    }

    #[tokio::test]
    async fn serving_ends_with_the_stop_even_with_a_silent_client() {
        let mut served = served().await;
        let _mute = TcpStream::connect(served.address).await.unwrap();
        assert_eq!(served.get("/healthz").await.0, 200);
        served.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), served.tasks.join_next())
            .await
            .unwrap();
        assert_eq!(ended.unwrap().unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn an_address_in_use_is_reported_on_one_line() {
        let served = served().await;
        let failure = bind(served.address).await.unwrap_err();
        let line = failure.to_string();
        assert_eq!(failure.code(), 2);
        assert!(
            line.contains("in use") && line.contains("--http off") && !line.contains('\n'),
            "{line}"
        );
    }
}
