//! A history as data: what happens, step by step.
//!
//! Steps name pods and replicas by numbers that always mean one of those there are, so that any part of a
//! history is a history too. What cannot be done when its turn comes is passed over.

use std::fmt;

use kube_sim::Verb;

/// One action. Numbers of pods and replicas are taken modulo how many there are; the replica `None` means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Nothing,
    /// A pod writes so many lines.
    Write(u32, u32),
    /// A pod writes the beginning of a line.
    Half(u32),
    /// A pod is created, whose containers are never restarted or always.
    Create(bool),
    /// The log of a pod is rotated.
    Rotate(u32),
    /// A pod's container ends with this status.
    Exit(u32, i32),
    /// A pod's container ends, if it runs, and begins again.
    Restart(u32),
    /// A pod is being deleted: its container ends, and the pod is still there.
    Terminate(u32),
    /// A pod is deleted at once.
    Remove(u32),
    /// A pod is deleted at once, and another of its name is created.
    Recreate(u32),
    /// A pod's container ends and begins again, and its status tells of it some hundred milliseconds later.
    LateRestart(u32),
    /// One more replica starts.
    Add,
    /// A replica is killed.
    Kill(u32),
    /// A replica is asked to stop.
    Stop(u32),
    /// A replica is frozen, or a frozen one continues.
    Freeze(u32),
    /// A replica is cut off from the API server and the store, or reaches them again.
    Partition(u32),
    /// One more replica starts. As soon as a replica asks another for a pod, the one that asks (true) or the one that is
    /// asked is killed.
    BreakHandOver(bool),
    /// A fault between a replica and the store.
    Store(Option<u32>, StoreFault),
    /// The clock of the store jumps by so many milliseconds.
    Jump(i64),
    /// A fault between a replica and the sink.
    Sink(Option<u32>, SinkFault),
    /// A fault of the API server.
    Api(ApiFault),
}

/// What goes wrong at the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing.
    Fine,
    /// It refuses at once.
    Refused,
    /// It does not answer.
    Silent,
    /// It takes so many milliseconds.
    Slow(u32),
    /// So many answers to this kind of statement are lost.
    Lost(&'static str, u32),
}

/// What goes wrong at the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFault {
    /// Nothing.
    Fine,
    /// A write takes so many milliseconds.
    Slow(u32),
    /// It takes nothing for now.
    Down,
    /// It refuses for good what comes.
    Rejects,
}

/// What goes wrong at the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// All streams of this verb are cut, as if they were complete or not.
    Cut(Verb, bool),
    /// The history of watches is compacted: resuming is answered 410.
    Compact,
    /// All open streams of this verb stay open and send nothing more.
    Mute(Verb),
    /// Muted streams send again.
    Unmute,
    /// So many of the next streams of this verb are cut after so many bytes.
    Short(Verb, u32, u32),
    /// So many of the next requests of this verb are refused with this status.
    Refuse(Verb, u16, u32),
    /// So many of the next requests of this verb lose their connection.
    Disconnect(Verb, u32),
    /// So many of the next requests of this verb are answered so many milliseconds late.
    Delay(Verb, u32, u32),
}

/// What happens, and the milliseconds that pass after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step(pub Action, pub u32);

/// What happens to a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Seed of all random choices of the collectors.
    pub seed: u64,
    /// Whether the sink fences like a database, or takes what comes like a file.
    pub fencing: bool,
    /// Whether nothing goes wrong but at the API server and in pods: then nothing may be stored twice anywhere.
    pub calm: bool,
    /// How many replicas there are at first.
    pub replicas: u32,
    /// What happens.
    pub steps: Vec<Step>,
}

impl History {
    /// The same with other steps.
    #[must_use]
    pub fn with(&self, steps: Vec<Step>) -> Self {
        Self { steps, ..self.clone() }
    }
}

/// To be read: a step a line. A test also needs the names of the enums.
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
