//! Complete responses: JSON objects, and `Status` objects for refused requests. It does not decide which response a
//! request gets.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::stream::SimBody;

/// A complete response with this content type.
pub(super) fn complete(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<SimBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A response from JSON that is serialized already.
pub(super) fn json_bytes(body: impl Into<Bytes>) -> Response<SimBody> {
    complete(StatusCode::OK, "application/json", body)
}

/// A JSON response.
pub(super) fn object(value: &Value) -> Response<SimBody> {
    json_bytes(value.to_string())
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    retry_after: Option<u64>,
    /// Kind and name of the missing object.
    missing: Option<(String, String)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
            missing: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        let message = format!("{kind} {name:?} not found");
        Self {
            missing: Some((kind.to_owned(), name.to_owned())),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    /// The requested resource version is compacted.
    pub(super) fn expired(wanted: u64, oldest: u64) -> Self {
        Self::new(
            StatusCode::GONE,
            format!("too old resource version: {wanted} ({oldest})"),
        )
    }

    /// A refusal with this status and its standard text.
    pub(super) fn with_status(status: u16, retry_after: Option<u64>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            retry_after,
            ..Self::new(status, status.canonical_reason().unwrap_or("refused"))
        }
    }

    fn reason(&self) -> &'static str {
        match self.status.as_u16() {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "AlreadyExists",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "Unknown",
        }
    }

    /// The `Status` object that describes it.
    pub(super) fn object(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason(), "code": self.status.as_u16(),
        });
        if let Some(seconds) = self.retry_after {
            status["details"] = json!({"retryAfterSeconds": seconds});
        }
        if let Some((kind, name)) = &self.missing {
            status["details"] = json!({"kind": kind, "name": name});
        }
        status
    }

    /// The response that refuses the request.
    pub(super) fn response(&self) -> Response<SimBody> {
        let mut response = object(&self.object());
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
