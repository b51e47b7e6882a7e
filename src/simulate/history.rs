//! A history as data: what happens, step by step, made from a seed.
//!
//! Steps name pods and replicas by numbers that always mean one of those there are, so that any part of a
//! history is a history too. What cannot be done when its turn comes is passed over.

use std::fmt;

use fastrand::Rng;

/// How many steps a history has.
const STEPS: usize = 60;

/// Something that happens. Numbers of pods and replicas count modulo those there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Time passes.
    Nothing,
    /// A pod writes so many lines.
    Write(u32, u32),
    /// A pod is created, whose containers are never restarted or always.
    Create(bool),
    /// The log of a pod is rotated.
    Rotate(u32),
    /// A pod's container ends with this status.
    Exit(u32, i32),
    /// A pod's container ends and begins again.
    Restart(u32),
    /// A pod is gone at once.
    Remove(u32),
    /// One more replica starts.
    Add,
    /// A replica is killed.
    Kill(u32),
    /// A replica is asked to stop.
    Stop(u32),
    /// Time stands still for a replica, or goes on for one that stood still.
    Freeze(u32),
    /// This goes wrong between a replica, or all, and the store.
    Store(Option<u32>, StoreFault),
    /// All streams of logs or watches are cut.
    Cut {
        /// Watches, not logs.
        watches: bool,
        /// As if they were complete.
        clean: bool,
        /// And their history is forgotten, so that resuming is answered 410.
        compact: bool,
    },
}

/// What goes wrong at the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing.
    Fine,
    /// It refuses at once.
    Refused,
    /// It says nothing.
    Silent,
    /// It takes so many milliseconds.
    Slow(u32),
    /// So many answers to this kind of statement are lost.
    Lost(&'static str, u32),
}

/// What happens, and the milliseconds that pass after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step(pub Act, pub u32);

/// What happens to a world of collectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Where all chances of the collectors themselves come from.
    pub seed: u64,
    /// Whether the sink fences like a database, or takes what comes like a file.
    pub fencing: bool,
    /// How many replicas there are at first.
    pub replicas: u32,
    /// What happens.
    pub steps: Vec<Step>,
}

impl History {
    /// The history of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let replicas = rng.u32(1..4);
        Self {
            seed,
            fencing: seed.is_multiple_of(2),
            replicas,
            steps: (0..STEPS).map(|_| step(&mut rng)).collect(),
        }
    }

    /// The same with other steps.
    #[must_use]
    pub fn with(&self, steps: Vec<Step>) -> Self {
        Self { steps, ..self.clone() }
    }
}

/// As it can be put into a test.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            fencing,
            replicas,
            steps,
        } = self;
        writeln!(
            f,
            "seed: {seed}, fencing: {fencing}, replicas: {replicas}, steps: vec!["
        )?;
        for step in steps {
            writeln!(f, "    {step:?},")?;
        }
        f.write_str("]")
    }
}

fn step(rng: &mut Rng) -> Step {
    let act = match rng.u32(0..100) {
        0..40 => Act::Write(rng.u32(..), rng.u32(1..8)),
        40..50 => Act::Create(rng.bool()),
        50..62 => pod_act(rng),
        62..74 => replica_act(rng),
        74..86 => {
            let who = (rng.u32(0..4) > 0).then(|| rng.u32(..));
            Act::Store(who, store_fault(rng))
        }
        86..92 => Act::Cut {
            watches: rng.bool(),
            clean: rng.bool(),
            compact: rng.bool(),
        },
        _ => Act::Nothing,
    };
    Step(act, rng.u32(20..2500))
}

fn pod_act(rng: &mut Rng) -> Act {
    let pod = rng.u32(..);
    match rng.u32(0..4) {
        0 => Act::Rotate(pod),
        1 => Act::Exit(pod, 0),
        2 => Act::Restart(pod),
        _ => Act::Remove(pod),
    }
}

fn replica_act(rng: &mut Rng) -> Act {
    let at = rng.u32(..);
    match rng.u32(0..5) {
        0 | 1 => Act::Add,
        2 => Act::Kill(at),
        3 => Act::Stop(at),
        _ => Act::Freeze(at),
    }
}

fn store_fault(rng: &mut Rng) -> StoreFault {
    match rng.u32(0..5) {
        0 => StoreFault::Refused,
        1 => StoreFault::Silent,
        2 => StoreFault::Slow(rng.u32(0..2900)),
        3 => {
            let kinds = super::store::STATEMENTS;
            StoreFault::Lost(kinds[rng.usize(0..kinds.len())], rng.u32(1..4))
        }
        _ => StoreFault::Fine,
    }
}
