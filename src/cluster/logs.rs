//! One log, as the API serves it: a question, and the bytes that answer it.
//!
//! Nothing here splits lines, remembers a position or opens a stream again. The API names a
//! container, not an instance of it: which instance answered is for the caller to check.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use url::form_urlencoded::byte_serialize;

use super::connect::chain;
use super::failure::{ApiError, Asked, one_line};
use super::{Cluster, HEADERS_DEADLINE};
use crate::domain::Time;

/// The text of an error: a Status object, which is a few hundred bytes.
const ERROR_LIMIT: usize = 64 * 1024;
/// The rest of an error's text after its status.
const ERROR_DEADLINE: Duration = Duration::from_secs(5);

/// Which log, and from where. Every line comes with its timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Stay open and bring what is written from now on.
    pub follow: bool,
    /// The instance before the present one.
    pub previous: bool,
    /// Lines from this instant on, rounded down to the second: the API knows no finer.
    pub since: Option<Time>,
    /// At most this many lines, the last ones.
    pub tail_lines: Option<u32>,
}

impl LogQuery {
    /// The request's path. By hand, because kube rounds the time to the nearest second, which
    /// skips lines when it rounds up.
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

/// Why a log could not be opened or read on. Variants are named by what the caller does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No such pod, or its node does not know it (yet).
    #[error("there is no such pod, or its node does not know it yet")]
    NotFound,
    /// The container has not started and has no earlier instance.
    #[error("the container waits to be started")]
    Waiting,
    /// There is no earlier instance.
    #[error("there is no earlier instance of the container")]
    NoPrevious,
    /// The pod has no node yet.
    #[error("the pod is not scheduled yet")]
    NotScheduled,
    /// A right is missing; the message says which, and how to grant it.
    #[error("{0}")]
    Forbidden(String),
    /// The server asks for patience.
    #[error("the API server asks to wait {} s", after.as_secs())]
    Throttled {
        /// How long to wait at least.
        after: Duration,
    },
    /// No answer, one of 5xx, or the stream broke: try again.
    #[error("{0}")]
    Unavailable(String),
    /// Another refusal: asking the same again cannot help.
    #[error("{0}")]
    Rejected(String),
}

impl From<ApiError> for LogError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Forbidden(text) => Self::Forbidden(text),
            ApiError::Throttled { after } => Self::Throttled { after },
            // Credentials are read anew, so the next try may be let in.
            ApiError::Unauthorized(text) | ApiError::Unavailable(text) => Self::Unavailable(text),
            ApiError::Rejected(text) => Self::Rejected(text),
            ApiError::NotFound(_) => Self::NotFound,
            ApiError::Gone => Self::Rejected(error.to_string()),
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
    /// The next bytes as they came off the wire; `None` at the end, which proves nothing about the
    /// container. May be dropped while it waits: no bytes are lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| LogError::Unavailable(broken(&error)))?;
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

fn broken(error: &kube::Error) -> String {
    format!("the log stream broke: {}", chain(error))
}

impl Cluster {
    /// Opens a log: answers once the server has, within 15 s. Asks once; repeating is the caller's.
    pub async fn open_log(&self, query: &LogQuery) -> Result<LogStream, LogError> {
        let request = Request::get(query.uri())
            .header(header::ACCEPT, "*/*")
            .body(Body::empty())
            .map_err(|error| LogError::Rejected(error.to_string()))?;
        let asked = Asked {
            verb: "log",
            resource: "pods/log",
            namespace: Some(&query.namespace),
        };
        let client = self.clients().logs;
        let Ok(answer) = tokio::time::timeout(HEADERS_DEADLINE, client.send(request)).await else {
            self.count("log", 0);
            let text = "the API server did not begin to answer with the log within 15 s";
            return Err(LogError::Unavailable(text.into()));
        };
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                self.count("log", 0);
                return Err(asked.failed(error).into());
            }
        };
        self.count("log", response.status().as_u16());
        match response.status() {
            StatusCode::NO_CONTENT => Err(LogError::NotScheduled),
            status if status.is_success() => {
                let metrics = &self.0.metrics;
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
                let said = said(response.into_body()).await;
                if status == StatusCode::UNAUTHORIZED {
                    self.renew().await;
                }
                Err(refused(asked, status, &said, after))
            }
        }
    }
}

fn refused(asked: Asked<'_>, status: StatusCode, said: &str, after: Option<Duration>) -> LogError {
    match status {
        // The same status for all three, so only the kubelet's words tell them apart.
        StatusCode::BAD_REQUEST if said.contains("is waiting to start") => LogError::Waiting,
        StatusCode::BAD_REQUEST if said.contains("previous terminated container") => LogError::NoPrevious,
        _ => asked.refused(status.as_u16(), said, after).into(),
    }
}

fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The message of an error: that of the Status object, or the text as it is.
async fn said(body: Body) -> String {
    let read = Limited::new(body, ERROR_LIMIT).collect();
    let Ok(Ok(read)) = tokio::time::timeout(ERROR_DEADLINE, read).await else {
        return String::new();
    };
    let bytes = read.to_bytes();
    let status = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
    let message = status.as_ref().and_then(|status| status.get("message")?.as_str());
    one_line(message.unwrap_or(&String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
