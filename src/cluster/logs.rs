//! One log of the API: a request for it, and the bytes of the answer.
//!
//! Nothing here splits lines, remembers a position or reopens a stream. A request names a container, not an instance of
//! it; the caller checks which instance answered.

use std::fmt::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use url::form_urlencoded::byte_serialize;

use super::client::{Cluster, HEADERS_DEADLINE, is_about_trust};
use super::error::ApiError;
use super::operation::Operation;
use super::speaker::{Speaker, who_said};
use super::text::error_chain;
use crate::domain::{Message, Time};

/// The longest text of an error in bytes: a Status object, which is a few hundred.
const ERROR_LIMIT: usize = 64 * 1024;
/// The longest time for the rest of an error's text after its status.
const ERROR_DEADLINE: Duration = Duration::from_secs(5);

/// What to do when a kubelet does not answer.
const NODE_REMEDY: &str =
    "check that the node runs, and that the API server can reach its kubelet: kubectl logs of a pod there must work";

/// Which log, and from where on. Every line comes with its timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Keep the stream open for lines that are written from now on.
    pub follow: bool,
    /// Read the previous instance of the container instead of the current one.
    pub previous: bool,
    /// Only lines from this time on, rounded down to the second: the API has no finer resolution.
    pub since: Option<Time>,
    /// Only the last lines, at most this many.
    pub tail_lines: Option<u32>,
}

impl LogQuery {
    /// The path of the request. kube's own rounds the time to the nearest second, which skips lines when it rounds up.
    fn uri(&self) -> String {
        let mut uri = String::from("/api/v1/namespaces/");
        uri.extend(byte_serialize(self.namespace.as_bytes()));
        uri.push_str("/pods/");
        uri.extend(byte_serialize(self.pod.as_bytes()));
        uri.push_str("/log?timestamps=true&container=");
        uri.extend(byte_serialize(self.container.as_bytes()));
        if self.follow {
            uri.push_str("&follow=true");
        }
        if self.previous {
            uri.push_str("&previous=true");
        }
        if let Some(since) = self.since {
            let floor = Time(since.floor_seconds().saturating_mul(1_000_000_000)).to_string();
            // `2026-11-20T10:00:00` of `2026-11-20T10:00:00.000000000Z`.
            uri.push_str("&sinceTime=");
            uri.extend(byte_serialize(&floor.as_bytes()[..19]));
            uri.push('Z');
        }
        if let Some(lines) = self.tail_lines {
            // Writing to a string cannot fail.
            write!(uri, "&tailLines={lines}").unwrap_or_default();
        }
        uri
    }
}

/// Why a log cannot be opened, or not be read further. Variants are named by what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// There is no such pod, or its node does not know it yet.
    NotFound,
    /// The kubelet knows the pod, but has no status of the container, as for a moment after it has learned of the pod.
    NoStatus(Message),
    /// The container has not started, and has no previous instance.
    Waiting,
    /// There is no previous instance.
    NoPrevious,
    /// The pod has no node yet.
    NotScheduled,
    /// podlog lacks a right. The message names it, and the rule that grants it.
    Forbidden(Message),
    /// The kubelet does not accept the API server's credentials, or lacks the right for it. It is not about podlog.
    KubeletRefused(Message),
    /// The API server cannot reach the kubelet.
    KubeletUnreachable(Message),
    /// The kubelet failed to serve the log: try again.
    KubeletFailed(Message),
    /// The kubelet cannot serve this log.
    KubeletRejected(Message),
    /// Something between podlog and the API server answered.
    Proxy(Message),
    /// The server asks to wait.
    Throttled {
        /// The shortest time to wait.
        after: Duration,
    },
    /// No answer of the API server, one of 5xx, or the stream broke: try again.
    Unavailable(Message),
    /// Another refusal of the API server: the same request cannot succeed.
    Rejected(Message),
}

impl LogError {
    /// What failed, and what to do about it.
    #[must_use]
    pub fn message(&self) -> Message {
        match self {
            Self::NotFound => Message::new("there is no such pod, or its node does not know it yet", ""),
            Self::Waiting => Message::new("the container waits to be started", ""),
            Self::NoPrevious => Message::new("the container has no previous instance", ""),
            Self::NotScheduled => Message::new("the pod is not scheduled yet", ""),
            Self::Throttled { after } => Message::new(format!("the API server asks to wait {} s", after.as_secs()), ""),
            Self::NoStatus(message)
            | Self::Forbidden(message)
            | Self::KubeletRefused(message)
            | Self::KubeletUnreachable(message)
            | Self::KubeletFailed(message)
            | Self::KubeletRejected(message)
            | Self::Proxy(message)
            | Self::Unavailable(message)
            | Self::Rejected(message) => message.clone(),
        }
    }

    /// No answer, for this reason.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(Message::new(text, ""))
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

impl std::error::Error for LogError {}

impl From<ApiError> for LogError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Forbidden(message) => Self::Forbidden(message),
            ApiError::Throttled { after } => Self::Throttled { after },
            // The credentials are read again, so the next request may succeed.
            ApiError::Unauthorized(message) | ApiError::Unavailable(message) => Self::Unavailable(message),
            ApiError::Rejected(message) => Self::Rejected(message),
            ApiError::NotFound(_) => Self::NotFound,
            ApiError::Gone => Self::Rejected(error.message()),
        }
    }
}

/// An open log. Dropping it closes the stream.
#[derive(Debug)]
pub struct LogStream {
    body: Body,
    version: Version,
    streams_open: Gauge,
    bytes_read: Counter,
}

impl LogStream {
    /// The next bytes as the server sent them; `None` at the end, which does not prove that the container has ended.
    /// Cancel safe: no bytes are lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame
                .map_err(|error| LogError::unavailable(format!("the log stream broke: {}", error_chain(&error))))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.bytes_read.inc_by(data.len() as u64);
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The HTTP version both sides agreed on.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        self.streams_open.dec();
    }
}

/// Opens a log: returns once the server has begun to answer, within 15 s. Asks once; the caller repeats it.
pub async fn open_log(cluster: &Cluster, query: &LogQuery) -> Result<LogStream, LogError> {
    let request = Request::get(query.uri())
        .header(header::ACCEPT, "*/*")
        .body(Body::empty())
        .map_err(|error| LogError::from(ApiError::rejected(error)))?;
    let operation = Operation {
        verb: "log",
        resource: "pods/log",
        namespace: Some(&query.namespace),
    };
    let client = cluster.clients().logs;
    let Ok(answer) = tokio::time::timeout(HEADERS_DEADLINE, client.send(request)).await else {
        cluster.count("log", 0);
        // A dead node is silent too: the API server waits 30 s for its kubelet.
        return Err(LogError::KubeletUnreachable(Message::new(
            "no answer came to a request for the log within 15 s, neither from the kubelet nor from the API server",
            NODE_REMEDY,
        )));
    };
    let response = match answer {
        Ok(response) => response,
        Err(error) => {
            cluster.count("log", 0);
            let about_trust = is_about_trust(&error);
            let error = operation.failed(error);
            if about_trust {
                cluster.renew_credentials(&error).await;
            }
            return Err(error.into());
        }
    };
    cluster.count("log", response.status().as_u16());
    match response.status() {
        StatusCode::NO_CONTENT => Err(LogError::NotScheduled),
        status if status.is_success() => {
            let metrics = cluster.metrics();
            metrics.streams_open.inc();
            Ok(LogStream {
                version: response.version(),
                body: response.into_body(),
                streams_open: metrics.streams_open.clone(),
                bytes_read: metrics.bytes_read.clone(),
            })
        }
        status => {
            let after = retry_after(response.headers());
            let body = error_body(response.into_body()).await;
            let (speaker, said) = who_said(status.as_u16(), &body);
            // A kubelet refuses the credentials of the API server; podlog's own were good.
            if status == StatusCode::UNAUTHORIZED && speaker != Speaker::Kubelet {
                let why = operation.refused(status.as_u16(), &said, after);
                cluster.renew_credentials(&why).await;
            }
            Err(refused(operation, status, speaker, &said, after))
        }
    }
}

fn refused(
    operation: Operation<'_>,
    status: StatusCode,
    speaker: Speaker,
    said: &str,
    after: Option<Duration>,
) -> LogError {
    let code = status.as_u16();
    let own = || operation.refused(code, said, after);
    match (status, speaker) {
        // The status is the same for several causes; only the kubelet's text distinguishes them.
        (StatusCode::BAD_REQUEST, _) if said.contains("is waiting to start") => LogError::Waiting,
        (StatusCode::BAD_REQUEST, _) if said.contains("previous terminated container") => LogError::NoPrevious,
        (StatusCode::BAD_REQUEST, _) if said.starts_with("container ") && said.ends_with(" is not available") => {
            LogError::NoStatus(own().message())
        }
        (StatusCode::NOT_FOUND, Speaker::Kubelet) => LogError::NotFound,
        (_, Speaker::ApiServer) | (StatusCode::TOO_MANY_REQUESTS, _) => own().into(),
        (_, Speaker::ApiServerWithoutKubelet) => LogError::KubeletUnreachable(Message::new(
            format!("the API server cannot reach the kubelet: {said}"),
            NODE_REMEDY,
        )),
        (_, Speaker::Proxy) => LogError::Proxy(Message::new(
            format!("something between podlog and the API server answered {code} {said}"),
            "check the proxy or load balancer at the address in the kubeconfig",
        )),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Speaker::Kubelet) => LogError::KubeletRefused(Message::new(
            format!("the kubelet refuses the API server (podlog is allowed to read logs): {code} {said}"),
            "bind the ClusterRole system:kubelet-api-admin to the user of the API server's --kubelet-client-certificate, and check the kubelet's --client-ca-file",
        )),
        (_, Speaker::Kubelet) => {
            let message = Message::new(
                format!("the kubelet cannot serve the log: {code} {said}"),
                "look at the kubelet's own log, and try kubectl logs",
            );
            if status.is_server_error() {
                LogError::KubeletFailed(message)
            } else {
                LogError::KubeletRejected(message)
            }
        }
    }
}

fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What came with the status of an error; empty if it did not come in time.
async fn error_body(body: Body) -> Bytes {
    let read = Limited::new(body, ERROR_LIMIT).collect();
    match tokio::time::timeout(ERROR_DEADLINE, read).await {
        Ok(Ok(read)) => read.to_bytes(),
        _ => Bytes::new(),
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
