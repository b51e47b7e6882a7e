//! Tests of the requests for logs, and of the errors that responses become.

use std::convert::Infallible;

use http::Response;
use http_body_util::Full;

use super::*;
use crate::metrics::Metrics;

fn query() -> LogQuery {
    LogQuery {
        namespace: "shop".into(),
        pod: "cart-0".into(),
        container: "app".into(),
        follow: false,
        previous: false,
        since: None,
        tail_lines: None,
    }
}

#[test]
fn since_time_is_rounded_down_to_the_second() {
    let at = |text: &str| {
        let nanos = text.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
        let since = Some(Time(i64::try_from(nanos).unwrap()));
        LogQuery { since, ..query() }.uri()
    };
    assert!(at("2026-11-20T10:00:00.7Z").ends_with("&sinceTime=2026-11-20T10%3A00%3A00Z"));
    assert!(at("2026-11-20T10:00:00.999999999Z").ends_with("10%3A00%3A00Z"));
    assert!(at("2026-11-20T10:00:01Z").ends_with("10%3A00%3A01Z"));
}

#[test]
fn every_log_is_requested_with_timestamps() {
    let plain = "/api/v1/namespaces/shop/pods/cart-0/log?timestamps=true&container=app";
    assert_eq!(query().uri(), plain);
    let all = LogQuery {
        follow: true,
        previous: true,
        tail_lines: Some(7),
        ..query()
    };
    assert_eq!(all.uri(), format!("{plain}&follow=true&previous=true&tailLines=7"));
}

async fn answer(code: u16, body: &'static str) -> (LogError, Metrics) {
    let metrics = Metrics::default();
    let service = tower::service_fn(move |_| async move {
        let response = Response::builder().status(code).header("retry-after", "7");
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
    });
    let cluster = Cluster::over(service, metrics.clone());
    let error = open_log(&cluster, &query()).await.unwrap_err();
    let counted = crate::metrics::Request { verb: "log", code };
    assert_eq!(metrics.api_requests.get_or_create(&counted).get(), 1);
    assert_eq!(metrics.streams_open.get(), 0);
    (error, metrics)
}

#[tokio::test]
async fn each_response_becomes_the_error_that_the_caller_acts_on() {
    let waiting =
        r#"{"kind":"Status","message":"container \"app\" in pod \"cart-0\" is waiting to start: ContainerCreating"}"#;
    assert_eq!(answer(400, waiting).await.0, LogError::Waiting);
    let no_status = r#"{"kind":"Status","message":"container \"app\" in pod \"cart-0\" is not available"}"#;
    assert!(matches!(answer(400, no_status).await.0, LogError::NoStatus(_)));
    let elsewhere = r#"{"message":"the service is not available"}"#;
    assert!(matches!(answer(400, elsewhere).await.0, LogError::KubeletRejected(_)));
    let none = r#"{"message":"previous terminated container \"app\" in pod \"cart-0\" not found"}"#;
    assert_eq!(answer(400, none).await.0, LogError::NoPrevious);
    assert_eq!(answer(204, "").await.0, LogError::NotScheduled);
    assert_eq!(answer(404, "").await.0, LogError::NotFound);
    let after = Duration::from_secs(7);
    assert_eq!(answer(429, "").await.0, LogError::Throttled { after });
    assert!(matches!(answer(401, "").await.0, LogError::Unavailable(_)));
    assert!(
        matches!(answer(503, "no\nbody").await.0, LogError::Proxy(message) if message.text.ends_with("503 no body"))
    );
    let unknown = r#"{"message":"container x is not valid for pod cart-0"}"#;
    assert!(
        matches!(answer(400, unknown).await.0, LogError::Rejected(message) if message.text.ends_with("not valid for pod cart-0"))
    );
    let (error, _) = answer(403, r#"{"message":"pods is forbidden: User \"u\" cannot get"}"#).await;
    assert!(
        matches!(error, LogError::Forbidden(message) if message.text.starts_with("u may not get pods/log in namespace shop"))
    );
}

#[tokio::test]
async fn what_a_kubelet_refuses_or_does_not_answer_is_not_about_the_rights_of_podlog() {
    for (code, body) in [
        (
            401,
            r#"{"message":"the server has asked for the client to provide credentials ( pods/log cart-0)"}"#,
        ),
        (
            403,
            r#"{"message":"Forbidden (user=kube-apiserver, verb=get, resource=nodes) ( pods/log cart-0)"}"#,
        ),
    ] {
        let (error, _) = answer(code, body).await;
        assert!(
            matches!(&error, LogError::KubeletRefused(message) if !message.to_string().contains("Role in namespace")),
            "{error}"
        );
    }
    let unreachable = r#"{"message":"Get \"https://n1:10250/containerLogs/shop/cart-0/app\": dial tcp: i/o timeout"}"#;
    assert!(matches!(
        answer(500, unreachable).await.0,
        LogError::KubeletUnreachable(_)
    ));
    let failed = r#"{"message":"Internal error occurred: open /x: no such file or directory"}"#;
    assert!(matches!(answer(500, failed).await.0, LogError::KubeletFailed(_)));
    let unknown = r#"{"message":"the server could not find the requested resource ( pods/log cart-0)"}"#;
    assert_eq!(answer(404, unknown).await.0, LogError::NotFound);
}

#[tokio::test]
async fn bytes_are_passed_on_unchanged_and_counted() {
    let metrics = Metrics::default();
    let service =
        tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"\xffabc")))) });
    let cluster = Cluster::over(service, metrics.clone());
    let mut log = open_log(&cluster, &query()).await.unwrap();
    assert_eq!(metrics.streams_open.get(), 1);
    assert_eq!(log.next().await.unwrap().as_deref(), Some(&b"\xffabc"[..]));
    assert_eq!(log.next().await.unwrap(), None);
    assert_eq!((metrics.bytes_read.get(), metrics.streams_open.get()), (4, 1));
    drop(log);
    assert_eq!(metrics.streams_open.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_fails_when_the_server_does_not_answer_in_time() {
    let service = tower::service_fn(|_| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let cluster = Cluster::over(service, Metrics::default());
    let start = tokio::time::Instant::now();
    assert!(matches!(
        open_log(&cluster, &query()).await,
        Err(LogError::KubeletUnreachable(_))
    ));
    assert_eq!(start.elapsed().as_secs(), 15);
}
