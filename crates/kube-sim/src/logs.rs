//! Requests for the log of a container: which parameters are valid, which container instance is read, and how the
//! stream ends. The files are read in [`files`](super::files).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use jiff::Timestamp;
use tokio::time::Instant;

use super::answer::Refusal;
use super::clock::SECOND;
use super::faults::{Fault, RequestSubject};
use super::files::{KubeletReader, Log, Options, ReaderOutput};
use super::pod::{ContainerKind, LiveContainer, LivePod, RunState};
use super::route::Query;
use super::shared::Shared;
use super::stream::{SimBody, Source, body};

struct ContainerLog {
    reader: Option<KubeletReader>,
    expires_at: Instant,
    /// An error message of the kubelet, which is sent last.
    kubelet_message: Option<Bytes>,
}

/// Opens the log of a container.
pub(super) fn open(
    shared: &Arc<Shared>,
    mut subject: RequestSubject,
    query: &Query,
    faults: &[Fault],
) -> Result<Response<SimBody>, Refusal> {
    let settings = &shared.settings;
    let options = parse_options(query, shared.clock.now(), settings.buffer_bytes, &subject)?;
    let key = (
        subject.namespace.clone().unwrap_or_default(),
        subject.pod.clone().unwrap_or_default(),
    );
    let state = shared.state();
    let pod = state.pod(&key).ok_or_else(|| Refusal::not_found("pods", &key.1))?;
    let container = choose_container(pod, query.text("container"))?;
    if pod.spec.node.is_none() {
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    subject.container = Some(container.name.clone());
    let log = choose_instance(pod, container, query.flag("previous")).map_err(Refusal::bad_request)?;
    let (kubelet_message, replaces_log) = kubelet_message(faults);
    let stream = ContainerLog {
        reader: (!replaces_log).then(|| log.open(options)),
        expires_at: Instant::now() + settings.stream_lifetime,
        kubelet_message,
    };
    drop(state);
    let mut response = Response::new(body(stream, shared.faults.open(subject), faults));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn kubelet_message(faults: &[Fault]) -> (Option<Bytes>, bool) {
    let message = faults.iter().find_map(|fault| match fault {
        Fault::KubeletMessage { text, replaces_log } => Some((Some(Bytes::from(text.clone())), *replaces_log)),
        _ => None,
    });
    message.unwrap_or((None, false))
}

/// Checks and reads the parameters.
fn parse_options(query: &Query, now: i64, buffer: usize, subject: &RequestSubject) -> Result<Options, Refusal> {
    let name = subject.pod.as_deref().unwrap_or_default();
    let invalid = |what: String| {
        let message = format!("PodLogOptions {name:?} is invalid: {what}");
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    };
    let at_least = |parameter: &str, least: i64| match query.number(parameter)? {
        Some(number) if number < least => {
            let text = format!("{parameter}: Invalid value: {number}: must be greater than or equal to {least}");
            Err(invalid(text))
        }
        number => Ok(number.and_then(|number| u64::try_from(number).ok())),
    };
    let tail = at_least("tailLines", 0)?;
    let limit = at_least("limitBytes", 1)?;
    let ago = at_least("sinceSeconds", 1)?;
    let time = query.text("sinceTime").map(str::parse::<Timestamp>).transpose();
    let time = time.map_err(|error| Refusal::bad_request(format!("sinceTime: {error}")))?;
    if ago.is_some() && time.is_some() {
        return Err(invalid(
            "at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned(),
        ));
    }
    if query.text("stream").is_some() {
        return Err(invalid("stream: Forbidden: may not be specified".to_owned()));
    }
    let since = match (time, ago) {
        // The API server passes the time on in whole seconds, rounded down.
        (Some(time), _) => Some((time.as_nanosecond() as i64).div_euclid(SECOND) * SECOND),
        (None, Some(seconds)) => Some(now.saturating_sub((seconds as i64).saturating_mul(SECOND))),
        (None, None) => None,
    };
    Ok(Options {
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        since,
        tail,
        limit,
        buffer,
    })
}

/// The container that a request is for.
fn choose_container<'a>(pod: &'a LivePod, wanted: Option<&str>) -> Result<&'a LiveContainer, Refusal> {
    let pod_name = &pod.spec.name;
    if let Some(wanted) = wanted {
        let unknown = || Refusal::bad_request(format!("container {wanted} is not valid for pod {pod_name}"));
        return pod.container(wanted).ok_or_else(unknown);
    }
    let apps: Vec<&LiveContainer> = pod.containers_of(&[ContainerKind::App]).collect();
    if let [only] = apps[..] {
        return Ok(only);
    }
    let names = |containers: &mut dyn Iterator<Item = &'a LiveContainer>| {
        let names: Vec<&str> = containers.map(|container| container.name.as_str()).collect();
        names.join(" ")
    };
    let mut message = format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{}]",
        names(&mut apps.into_iter())
    );
    let init = names(&mut pod.containers_of(&[ContainerKind::Init, ContainerKind::Sidecar]));
    if !init.is_empty() {
        message = format!("{message} or one of the init containers: [{init}]");
    }
    Err(Refusal::bad_request(message))
}

/// The log of the container instance that the kubelet would read. For a container that waits after a crash, that is the
/// instance that crashed.
fn choose_instance<'a>(pod: &LivePod, container: &'a LiveContainer, previous: bool) -> Result<&'a Arc<Log>, String> {
    let (name, pod) = (&container.name, &pod.spec.name);
    let last = container.last.as_ref().map(|termination| &termination.log);
    if previous {
        return last.ok_or_else(|| format!("previous terminated container {name:?} in pod {pod:?} not found"));
    }
    match &container.state {
        RunState::Running { log, .. } => Ok(log),
        RunState::Terminated(termination) => Ok(&termination.log),
        RunState::Waiting { reason } => last.ok_or_else(|| {
            let cause = match reason.as_str() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            format!("container {name:?} in pod {pod:?} is waiting to start: {cause}")
        }),
    }
}

impl Source for ContainerLog {
    async fn frame(&mut self) -> Option<Bytes> {
        while let Some(reader) = &self.reader {
            if Instant::now() >= self.expires_at {
                return None;
            }
            match reader.next() {
                ReaderOutput::Frame(bytes) => return Some(bytes),
                ReaderOutput::End => self.reader = None,
                ReaderOutput::Wait => tokio::select! {
                    biased;
                    () = reader.changed() => {}
                    () = tokio::time::sleep_until(self.expires_at) => return None,
                },
            }
        }
        self.kubelet_message.take()
    }
}
