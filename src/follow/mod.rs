//! One pod: reads the logs of its containers and hands them to the sink, until the pod is done
//! with, the claim is lost, or the task is told to stop.
//!
//! Straight-line code, one future per container in one task per pod. A position moves in the
//! statement after the sink's `write` returned `Ok`, and nowhere else. This part never claims,
//! renews or releases anything.

mod container;
mod delivery_delay;
mod follow_stream;
mod identity;
mod instance;
mod probe;
mod read_end;
mod reader;
pub mod stall_detector;
mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::cluster::{Cluster, StreamLimiter};
use crate::domain::{Checkpoint, Pod};
use crate::grant::Grant;
use crate::metrics::Metrics;
use crate::sinks::Sink;

use self::stall_detector::StallDetector;

/// What all pod tasks share.
#[derive(Clone, Debug)]
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// How many streams may be open and how fast they are opened.
    pub limiter: StreamLimiter,
    /// Where records go.
    pub sink: Arc<dyn Sink>,
    /// Counters.
    pub metrics: Metrics,
    /// The clock of deadlines.
    pub clock: Clock,
    /// Whether the process has been running all the time.
    pub stall_detector: StallDetector,
    /// Sizes and times.
    pub settings: ReadSettings,
}

/// Sizes and times of reading.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// Longest line in bytes; longer ones are cut and marked.
    pub max_line: usize,
    /// Bytes after which a chunk is written.
    pub chunk_bytes: usize,
    /// Time after which a chunk is written, however small.
    pub chunk_age: Duration,
    /// A stream is closed and opened anew after about this long; well under the kubelet's 4 h.
    pub reopen: Duration,
    /// A stream silent for this long is checked against the last line of the log.
    pub probe: Duration,
    /// How often a log is read where no stream may be kept open.
    pub poll: Duration,
}

/// One pod, as handed to its task.
#[derive(Debug)]
pub struct Task {
    /// The pod, kept up to date by the giver.
    pub pod: watch::Receiver<Arc<Pod>>,
    /// Leave to act.
    pub grant: Grant,
    /// How far the pod is stored: the stored checkpoint at first, moved on by the task.
    pub progress: watch::Sender<Checkpoint>,
    /// Asks the task to write what it has read and to end.
    pub stop: CancellationToken,
}

/// Why a pod task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// Everything is stored; no container will run again.
    Finished,
    /// The pod object is gone; what could be read is stored and the rest reported.
    Gone,
    /// The task was asked to stop and has written what it had read.
    Stopped,
    /// The claim is no longer good.
    Lost,
    /// The sink refuses to store under this claim: somebody holds the stream under a larger fence,
    /// or it holds the stream at another place than was thought.
    Fenced,
}

/// How a container's future ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContainerEnd {
    Done,
    Stopped,
    Fenced,
}

/// Follows one pod to its end.
pub async fn follow(context: Arc<Context>, task: Task) -> TaskEnd {
    let grant = task.grant.clone();
    tokio::select! {
        biased;
        () = grant.lost() => TaskEnd::Lost,
        ended = containers(&context, &task) => ended,
    }
}

/// Runs a future for every container, also for those that appear later.
async fn containers(context: &Context, task: &Task) -> TaskEnd {
    let mut pod = task.pod.clone();
    let mut known = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    let mut last = ContainerEnd::Done;
    loop {
        let present = pod.borrow_and_update().clone();
        for name in names(&present, &task.progress.borrow()) {
            if known.insert(name.clone()) {
                running.push(boxed(context, task, name));
            }
        }
        // Before waiting: of a pod that is over there may be nothing to read at all.
        if running.is_empty() && last == ContainerEnd::Stopped {
            return TaskEnd::Stopped;
        }
        if running.is_empty() && present.is_over() {
            return if present.gone { TaskEnd::Gone } else { TaskEnd::Finished };
        }
        tokio::select! {
            biased;
            () = task.stop.cancelled(), if running.is_empty() => return TaskEnd::Stopped,
            Some(end) = running.next(), if !running.is_empty() => match end {
                ContainerEnd::Fenced => return TaskEnd::Fenced,
                ContainerEnd::Stopped => last = ContainerEnd::Stopped,
                ContainerEnd::Done => {}
            },
            changed = pod.changed() => if changed.is_err() { return TaskEnd::Stopped },
        }
    }
}

fn boxed<'a>(context: &'a Context, task: &'a Task, name: Arc<str>) -> BoxFuture<'a, ContainerEnd> {
    Box::pin(container::container(context, task, name))
}

/// The containers to look after: those of the pod, and those of which the checkpoint says that
/// something is still unread.
fn names(pod: &Pod, checkpoint: &Checkpoint) -> BTreeSet<Arc<str>> {
    let unfinished = checkpoint.unfinished().map(|(name, _)| name.clone());
    pod.containers
        .iter()
        .map(|c| c.name.clone())
        .chain(unfinished)
        .collect()
}
