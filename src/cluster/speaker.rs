//! Who refused a request for a log, and what they said: the API server, the kubelet behind it, or something between
//! podlog and the API server.
//!
//! The API server passes the answer of a kubelet on as an object of its own, so only its form shows who spoke. Nothing
//! here decides what the answer means for the caller.

use serde_json::Value;

use super::text::one_line;

/// Who refused the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The API server.
    ApiServer,
    /// The API server, because it has no connection to the kubelet.
    ApiServerWithoutKubelet,
    /// The kubelet, through the API server.
    Kubelet,
    /// Something that does not speak like an API server.
    Proxy,
}

/// What the API server's own refusals of a malformed request for a log begin with. A kubelet's have any text.
const OWN_BAD_REQUESTS: [&str; 3] = [
    "container ",
    "a container name must be specified",
    "the server rejected our request",
];

/// What the API server says when it has no connection to a kubelet: the error of its HTTP client, which begins with
/// `Get "https://10.0.0.7:10250/containerLogs/…"`, or that of the proxies to nodes that a control plane may use.
const NO_CONNECTION: [&str; 4] = [
    "/containerLogs/",
    "proxy error from ",
    "No agent available",
    "error dialing backend",
];

/// Says who refused with this status and body, and what they said.
pub(super) fn who_said(code: u16, body: &[u8]) -> (Speaker, String) {
    let object = serde_json::from_slice::<Value>(body).ok();
    let message = object.as_ref().and_then(|object| object.get("message")?.as_str());
    let Some(message) = message else {
        let said = one_line(&String::from_utf8_lossy(body));
        let speaker = if said.is_empty() {
            Speaker::ApiServer
        } else {
            Speaker::Proxy
        };
        return (speaker, said);
    };
    let said = one_line(message);
    if is_passed_on(object.as_ref(), &said) {
        return (Speaker::Kubelet, said);
    }
    if code >= 500 && NO_CONNECTION.iter().any(|text| said.contains(text)) {
        return (Speaker::ApiServerWithoutKubelet, said);
    }
    let by_kubelet = match code {
        400 => !OWN_BAD_REQUESTS.iter().any(|own| said.starts_with(own)),
        500 => said.starts_with("Internal error occurred: "),
        _ => false,
    };
    (
        if by_kubelet {
            Speaker::Kubelet
        } else {
            Speaker::ApiServer
        },
        said,
    )
}

/// Whether the API server made this object of another server's answer. It appends the object that was asked for, after
/// a verb that is empty for a log (`… ( pods/log cart-0)`), or repeats the answer as a cause.
fn is_passed_on(object: Option<&Value>, said: &str) -> bool {
    let causes = object.and_then(|object| object["details"]["causes"].as_array());
    let unexpected = |cause: &Value| cause["reason"] == "UnexpectedServerResponse";
    said.contains("( pods/log ") || causes.is_some_and(|causes| causes.iter().any(unexpected))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    use Speaker::{ApiServer, ApiServerWithoutKubelet, Kubelet, Proxy};

    /// What the API server of Kubernetes 1.36 answers, and who speaks.
    const ANSWERS: [(u16, &str, Speaker); 13] = [
        (401, "Unauthorized", ApiServer),
        (
            401,
            "the server has asked for the client to provide credentials ( pods/log cart-0)",
            Kubelet,
        ),
        (
            403,
            "pods \"cart-0\" is forbidden: User \"u\" cannot get resource \"pods/log\"",
            ApiServer,
        ),
        (
            403,
            "Forbidden (user=kube-apiserver, verb=get, resource=nodes) ( pods/log cart-0)",
            Kubelet,
        ),
        (404, "pods \"cart-0\" not found", ApiServer),
        (
            404,
            "the server could not find the requested resource ( pods/log cart-0)",
            Kubelet,
        ),
        (400, "container app is not valid for pod cart-0", ApiServer),
        (
            400,
            "failed to get parse function: unsupported log format: \"\\x00\"",
            Kubelet,
        ),
        (
            500,
            "Internal error occurred: open /var/log/pods/x: permission denied",
            Kubelet,
        ),
        (500, "No agent available", ApiServerWithoutKubelet),
        (
            502,
            "an error on the server (\"x\") has prevented the request from succeeding ( pods/log cart-0)",
            Kubelet,
        ),
        (500, "etcdserver: request timed out", ApiServer),
        (503, "apiserver is shutting down", ApiServer),
    ];

    /// What its HTTP client says of a kubelet.
    const NOT_REACHED: [&str; 5] = [
        "dial tcp 10.0.0.7:10250: connect: connection refused",
        "dial tcp 10.0.0.7:10250: i/o timeout",
        "dial tcp 10.0.0.7:10250: connect: no route to host",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "proxy error from 127.0.0.1:9345 while dialing 10.0.0.7:10250, code 502: 502 Bad Gateway",
    ];

    fn speaker(code: u16, message: &str) -> Speaker {
        let body = json!({"kind": "Status", "message": message, "code": code}).to_string();
        let (speaker, said) = who_said(code, body.as_bytes());
        assert_eq!(said, message);
        speaker
    }

    #[test]
    fn the_form_of_a_refusal_shows_who_refused() {
        for (code, message, expected) in ANSWERS {
            assert_eq!(speaker(code, message), expected, "{code} {message}");
        }
        for cause in NOT_REACHED {
            let message = format!("Get \"https://10.0.0.7:10250/containerLogs/shop/cart-0/app?follow=true\": {cause}");
            assert_eq!(speaker(500, &message), ApiServerWithoutKubelet, "{message}");
        }
        let cause = json!({"message": "no", "details": {"causes": [{"reason": "UnexpectedServerResponse"}]}});
        assert_eq!(who_said(403, cause.to_string().as_bytes()).0, Kubelet);
        for (body, speaker) in [
            ("<html>bad gateway</html>", Proxy),
            ("{\"error\":\"login\"}", Proxy),
            ("", ApiServer),
        ] {
            assert_eq!(who_said(502, body.as_bytes()).0, speaker, "{body}");
        }
    }
}
