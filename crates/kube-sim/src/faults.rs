//! The faults to inject into coming requests, and the control of open streams. It only says what goes wrong; `api`,
//! `stream` and `logs` make it happen.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::sync::lock;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// It lists pods.
    List,
    /// It watches pods.
    Watch,
    /// It gets one pod.
    Get,
    /// It reads the log of a container.
    Log,
    /// Anything else: discovery, versions, access reviews.
    Other,
}

/// Selects requests or streams. A field that is not set matches all.
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

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The response is delayed by this time.
    Delay(Duration),
    /// The request is refused with this status.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The value of the `Retry-After` header, in seconds.
        retry_after: Option<u64>,
    },
    /// The connection breaks before a response is sent.
    Disconnect,
    /// The stream is cut after this many bytes, even in the middle of a line.
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
    /// The log stream ends with an error message of the kubelet.
    KubeletMessage {
        /// The text; no newline is added.
        text: String,
        /// Whether the message is sent instead of the log, not after it.
        replaces_log: bool,
    },
}

/// The object that a request or an open stream concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSubject {
    /// What the request does. An open stream is a [`Verb::Watch`] or a [`Verb::Log`].
    pub verb: Verb,
    /// The namespace, if it concerns a single one.
    pub namespace: Option<String>,
    /// The pod, if it concerns a single one.
    pub pod: Option<String>,
    /// The container, if it reads a log.
    pub container: Option<String>,
}

/// Whether an open stream sends its content.
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

/// The faults that are still to be injected, and the open streams.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pending: Mutex<Vec<PendingFault>>,
    controls: Mutex<Vec<Weak<StreamControl>>>,
}

#[derive(Debug)]
struct PendingFault {
    target: Target,
    fault: Fault,
    times: u32,
}

impl Faults {
    /// Applies `fault` to the next `times` requests that `target` matches.
    pub(super) fn add(&self, target: Target, fault: Fault, times: u32) {
        lock(&self.pending).push(PendingFault { target, fault, times });
    }

    pub(super) fn clear(&self) {
        lock(&self.pending).clear();
    }

    /// The faults for a request that has just arrived.
    pub(super) fn take_due(&self, subject: &RequestSubject) -> Vec<Fault> {
        let mut pending = lock(&self.pending);
        let mut faults = Vec::new();
        for fault in pending.iter_mut().filter(|fault| fault.target.matches(subject)) {
            faults.push(fault.fault.clone());
            fault.times = fault.times.saturating_sub(1);
        }
        pending.retain(|fault| fault.times > 0);
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

/// Tells an open stream whether it is to send. The stream counts as open until this is dropped.
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
