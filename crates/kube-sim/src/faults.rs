//! Faults of requests to come, and control of the streams that are already open. It decides what
//! goes wrong; the parts that answer carry it out.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::sync::lock;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// A list of pods.
    List,
    /// A watch on pods.
    Watch,
    /// One pod.
    Get,
    /// The log of a container.
    Log,
    /// Discovery, versions, reviews and everything else.
    Other,
}

/// Selects requests or streams; a field that is not given matches all.
#[derive(Debug, Clone, Default)]
pub struct Target {
    verb: Option<Verb>,
    namespace: Option<String>,
    pod: Option<String>,
    container: Option<String>,
}

impl Target {
    /// Every request of this kind.
    #[must_use]
    pub fn verb(verb: Verb) -> Self {
        Self {
            verb: Some(verb),
            ..Self::default()
        }
    }

    /// Every watch.
    #[must_use]
    pub fn watches() -> Self {
        Self::verb(Verb::Watch)
    }

    /// Every log request of a pod.
    pub fn logs_of(namespace: impl Into<String>, pod: impl Into<String>) -> Self {
        Self {
            verb: Some(Verb::Log),
            namespace: Some(namespace.into()),
            pod: Some(pod.into()),
            container: None,
        }
    }

    /// Only this container.
    #[must_use]
    pub fn container(self, container: impl Into<String>) -> Self {
        Self {
            container: Some(container.into()),
            ..self
        }
    }

    fn matches(&self, subject: &RequestSubject) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        self.verb.is_none_or(|verb| verb == subject.verb)
            && same(&self.namespace, &subject.namespace)
            && same(&self.pod, &subject.pod)
            && same(&self.container, &subject.container)
    }
}

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The answer ends as if it were complete, as when the connection to the kubelet breaks.
    Clean,
    /// The connection breaks.
    Reset,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes this much later.
    Delay(Duration),
    /// Refused with this status, and `Retry-After` in seconds if given.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// Value of the header.
        retry_after: Option<u64>,
    },
    /// The connection breaks before an answer.
    Disconnect,
    /// The stream is cut after this many bytes, in mid-line if they end there.
    Cut {
        /// Bytes sent before.
        after: u64,
        /// How it ends.
        how: Cut,
    },
    /// The stream stays open and sends nothing more after this many bytes.
    Mute {
        /// Bytes sent before.
        after: u64,
    },
    /// A message of the kubelet ends the log stream; with `replaces_log` it is sent in place of the content.
    KubeletMessage {
        /// The text; no newline is added.
        text: String,
        /// Whether the content is left out.
        replaces_log: bool,
    },
}

/// What a request or an open stream is about, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSubject {
    /// What it wants. An open stream is a [`Verb::Watch`] or a [`Verb::Log`].
    pub verb: Verb,
    /// The namespace it is about, if one.
    pub namespace: Option<String>,
    /// The pod it is about, if one.
    pub pod: Option<String>,
    /// The container, for logs.
    pub container: Option<String>,
}

/// How an open stream flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    Muted,
    Cut(Cut),
}

#[derive(Debug)]
struct StreamControl {
    subject: RequestSubject,
    flow: watch::Sender<Flow>,
}

/// Faults to come and streams that are open.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Mutex<Vec<Waiting>>,
    controls: Mutex<Vec<Weak<StreamControl>>>,
}

#[derive(Debug)]
struct Waiting {
    target: Target,
    fault: Fault,
    times: u32,
}

impl Faults {
    /// Applies `fault` to the next `times` requests that `target` matches.
    pub(super) fn add(&self, target: Target, fault: Fault, times: u32) {
        lock(&self.waiting).push(Waiting { target, fault, times });
    }

    pub(super) fn clear(&self) {
        lock(&self.waiting).clear();
    }

    /// The faults that apply to a request that has just arrived.
    pub(super) fn take_due(&self, subject: &RequestSubject) -> Vec<Fault> {
        let mut waiting = lock(&self.waiting);
        let mut faults = Vec::new();
        for fault in waiting.iter_mut().filter(|fault| fault.target.matches(subject)) {
            faults.push(fault.fault.clone());
            fault.times = fault.times.saturating_sub(1);
        }
        waiting.retain(|fault| fault.times > 0);
        faults
    }

    /// Registers a stream; it is open until the handle is dropped.
    pub(super) fn open(&self, subject: RequestSubject) -> StreamHandle {
        let (flow, receiver) = watch::channel(Flow::Open);
        let control = Arc::new(StreamControl { subject, flow });
        let mut controls = lock(&self.controls);
        controls.retain(|control| control.strong_count() > 0);
        controls.push(Arc::downgrade(&control));
        StreamHandle {
            flow: receiver,
            _control: control,
        }
    }

    /// Sets the flow of every open stream that `target` matches, and returns how many there are.
    pub(super) fn set_flow(&self, target: &Target, flow: Flow) -> usize {
        let mut matched = 0;
        for control in lock(&self.controls).iter().filter_map(Weak::upgrade) {
            if target.matches(&control.subject) {
                control.flow.send_replace(flow);
                matched += 1;
            }
        }
        matched
    }

    /// The streams that are open now.
    pub(super) fn streams(&self) -> Vec<RequestSubject> {
        let controls = lock(&self.controls);
        let open = controls.iter().filter_map(Weak::upgrade);
        open.map(|control| control.subject.clone()).collect()
    }
}

/// An open stream's view of its control.
#[derive(Debug)]
pub(super) struct StreamHandle {
    flow: watch::Receiver<Flow>,
    _control: Arc<StreamControl>,
}

impl StreamHandle {
    pub(super) fn flow(&mut self) -> Flow {
        *self.flow.borrow_and_update()
    }

    /// Waits until the flow has changed since it was last read.
    pub(super) async fn flow_changed(&mut self) {
        // The sender lives as long as this handle, so the wait cannot fail.
        if self.flow.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
