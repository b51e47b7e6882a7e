//! A history as data: a list of steps.
//!
//! Steps refer to pods and replicas by numbers. Every number stands for one of those that exist, so every part of a
//! history is a valid history too. An action that is impossible at its time is skipped. Nothing is carried out here.

use std::fmt;

use kube_sim::Verb;

/// One action. The number of a pod or a replica is taken modulo the count of those that exist. The number of a pod also
/// stands for one of its containers: it is divided by the count of pods, modulo the count of containers. `None` means all
/// replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing happens; only time passes.
    Nothing,
    /// A pod writes this many lines.
    Write(u32, u32),
    /// A pod writes the beginning of a line.
    WriteHalfLine(u32),
    /// A pod is created. With `true` its containers are never restarted.
    Create(bool),
    /// The log of a pod is rotated.
    Rotate(u32),
    /// A pod writes a line, and its log is rotated within the line.
    RotateWithinLine(u32),
    /// The container of a pod ends with this exit code.
    Exit(u32, i32),
    /// The container of a pod ends, if it runs, and starts again.
    Restart(u32),
    /// The deletion of a pod begins: it is marked, and its container ends.
    Terminate(u32),
    /// A pod is deleted at once.
    Remove(u32),
    /// The container of a pod ends and starts again, and the pod is deleted before the new instance writes anything.
    RemoveAfterRestart(u32),
    /// A pod is deleted at once, and another pod of its name is created.
    Recreate(u32),
    /// The container of a pod ends and starts again, and the API shows it some hundred milliseconds later.
    LateRestart(u32),
    /// A replica starts.
    StartReplica,
    /// A replica is killed.
    Kill(u32),
    /// A replica is asked to stop.
    Stop(u32),
    /// A replica is asked to stop while its sink stores lines.
    StopWhileWriting(u32),
    /// A replica is frozen. If it is frozen already, it continues.
    Freeze(u32),
    /// A replica is frozen for this many milliseconds. Meanwhile its pods write, their logs are rotated, and its log
    /// streams end as if they were complete.
    Pause(u32, u32),
    /// A replica is cut off from the API server and the lock store. If it is cut off already, it is connected again.
    Partition(u32),
    /// A replica starts. As soon as a replica requests a pod from another, one of the two is killed: with `true` the
    /// one that requests it, with `false` its holder.
    BreakHandOver(bool),
    /// A fault between a replica and the lock store.
    Store(Option<u32>, StoreFault),
    /// The clock of the lock store jumps by this many milliseconds.
    Jump(i64),
    /// A fault between a replica and the sink.
    Sink(Option<u32>, SinkFault),
    /// A fault of the API server.
    Api(ApiFault),
}

/// What goes wrong at the lock store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing.
    Fine,
    /// Calls fail at once.
    Refused,
    /// Calls get no answer and have no effect.
    Silent,
    /// Calls take this many milliseconds.
    Slow(u32),
    /// The next calls of this operation take effect, but get no answer.
    Lost(&'static str, u32),
}

/// What goes wrong at the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFault {
    /// Nothing.
    Fine,
    /// Writes take this many milliseconds.
    Slow(u32),
    /// Writes fail and must be tried again.
    Down,
    /// Lines are rejected permanently.
    Rejects,
}

/// What goes wrong at the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// All open streams of this verb are cut. With `true` they end as if they were complete.
    Cut(Verb, bool),
    /// The history of watches is compacted. Watches that resume get 410.
    Compact,
    /// All open streams of this verb stay open and send nothing.
    Mute(Verb),
    /// Muted streams send again.
    Unmute,
    /// Streams of this verb are cut after this many bytes: the bytes, and the number of streams.
    CutAfter(Verb, u32, u32),
    /// Requests of this verb are refused: the status, and the number of requests.
    Refuse(Verb, u16, u32),
    /// Requests of this verb lose their connection: the number of requests.
    Disconnect(Verb, u32),
    /// Requests of this verb are answered late: the milliseconds, and the number of requests.
    Delay(Verb, u32, u32),
}

/// An action, and the milliseconds that pass after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step(pub Action, pub u32);

/// Everything that happens to a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The seed of all random choices of the collectors.
    pub seed: u64,
    /// Whether the sink behaves like a database, or like a file.
    pub fencing: bool,
    /// Whether faults concern only the API server and pods, and the sink is at most slow. Then no line may be stored twice, in any sink.
    pub calm: bool,
    /// How many replicas there are at first.
    pub replicas: u32,
    /// The steps.
    pub steps: Vec<Step>,
}

impl History {
    /// The same history with other steps.
    #[must_use]
    pub fn with(&self, steps: Vec<Step>) -> Self {
        Self { steps, ..self.clone() }
    }
}

/// One step per line, nearly as Rust code. Only the names of the enums are missing.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            fencing,
            calm,
            replicas,
            steps,
        } = self;
        writeln!(
            f,
            "seed: {seed}, fencing: {fencing}, calm: {calm}, replicas: {replicas}, steps: vec!["
        )?;
        for step in steps {
            writeln!(f, "    {step:?},")?;
        }
        f.write_str("]")
    }
}
