//! Makes a random history from a seed. The probabilities of all actions are here. It plays nothing.

use fastrand::Rng;
use kube_sim::Verb;

use super::history::{Action, ApiFault, History, SinkFault, Step, StoreFault};
use super::store::OPERATIONS;

/// How many steps a history has.
const STEPS: usize = 60;

/// The history of a seed. Every second history has a sink that fences. Every fourth is calm, and its sink does not
/// fence.
#[must_use]
pub fn random_history(seed: u64) -> History {
    let mut rng = Rng::with_seed(seed);
    let (replicas, calm) = (rng.u32(1..4), seed % 4 == 3);
    let mut steps: Vec<Step> = (0..STEPS).map(|_| step(&mut rng)).collect();
    if calm {
        for step in &mut steps {
            calm_down(&mut step.0);
        }
        steps.retain(|step| is_calm(&step.0));
    }
    History {
        seed,
        fencing: seed.is_multiple_of(2),
        calm,
        replicas,
        steps,
    }
}

/// The longest write in milliseconds of a calm history. The sink answers it long before the write counts as failed.
const CALM_WRITE: u32 = 1_500;

/// Makes a slow sink of a calm history fast enough.
fn calm_down(action: &mut Action) {
    if let Action::Sink(_, SinkFault::Slow(millis)) = action {
        *millis %= CALM_WRITE;
    }
}

/// Whether the action can neither make a line be stored twice nor lose a checkpoint.
fn is_calm(action: &Action) -> bool {
    if let Action::Sink(_, fault) = action {
        return matches!(fault, SinkFault::Fine | SinkFault::Slow(_));
    }
    !matches!(
        action,
        Action::Kill(_)
            | Action::Freeze(_)
            | Action::Pause(..)
            | Action::Partition(_)
            | Action::BreakHandOver(_)
            | Action::Store(..)
            | Action::Jump(_)
    )
}

fn step(rng: &mut Rng) -> Step {
    let action = match rng.u32(0..100) {
        0..36 => Action::Write(rng.u32(..), lines(rng)),
        36..38 => Action::WriteHalfLine(rng.u32(..)),
        38..47 => Action::Create(rng.bool()),
        47..61 => pod_action(rng),
        61..73 => replica_action(rng),
        73..82 => Action::Store(one_or_all(rng), store_fault(rng)),
        82..84 => Action::Jump(jump(rng)),
        84..88 => Action::Sink(one_or_all(rng), sink_fault(rng)),
        88..96 => Action::Api(api_fault(rng)),
        _ => Action::Nothing,
    };
    // Most pauses are short, so that faults overlap. Some are long enough for claims to expire.
    let long = rng.u32(0..50) == 0;
    Step(
        action,
        if long {
            rng.u32(5_000..45_000)
        } else {
            rng.u32(20..2_500)
        },
    )
}

/// Usually a few lines, sometimes enough for several chunks.
fn lines(rng: &mut Rng) -> u32 {
    let burst = rng.u32(0..25) == 0;
    if burst { rng.u32(100..1_500) } else { rng.u32(1..8) }
}

/// Usually one replica, sometimes all.
fn one_or_all(rng: &mut Rng) -> Option<u32> {
    (rng.u32(0..4) > 0).then(|| rng.u32(..))
}

fn pod_action(rng: &mut Rng) -> Action {
    let pod = rng.u32(..);
    match rng.u32(0..17) {
        0..3 => Action::Rotate(pod),
        14 => Action::RemoveAfterRestart(pod),
        15 | 16 => Action::RotateWithinLine(pod),
        3..5 => Action::Exit(pod, rng.i32(0..2)),
        5..9 => Action::Restart(pod),
        9 => Action::Terminate(pod),
        10 | 11 => Action::Remove(pod),
        12 => Action::Recreate(pod),
        _ => Action::LateRestart(pod),
    }
}

fn replica_action(rng: &mut Rng) -> Action {
    let at = rng.u32(..);
    match rng.u32(0..14) {
        0..4 => Action::StartReplica,
        4..6 => Action::Kill(at),
        6..8 => Action::Stop(at),
        8..10 => Action::Freeze(at),
        10 => Action::Partition(at),
        12 => Action::StopWhileWriting(at),
        11 => Action::Pause(at, rng.u32(2_500..9_000)),
        _ => Action::BreakHandOver(rng.bool()),
    }
}

fn store_fault(rng: &mut Rng) -> StoreFault {
    match rng.u32(0..5) {
        0 => StoreFault::Refused,
        1 => StoreFault::Silent,
        2 => StoreFault::Slow(rng.u32(0..2_900)),
        3 => StoreFault::Lost(OPERATIONS[rng.usize(0..OPERATIONS.len())], rng.u32(1..4)),
        _ => StoreFault::Fine,
    }
}

/// An hour forward, as after a failover to a server whose clock is wrong, or some seconds forward or back. Never an
/// hour back: then the rows of a replica that dies next would not expire for an hour, which is correct but too long.
fn jump(rng: &mut Rng) -> i64 {
    if rng.u32(0..4) == 0 {
        3_600_000
    } else {
        rng.i64(-20_000..20_000)
    }
}

fn sink_fault(rng: &mut Rng) -> SinkFault {
    match rng.u32(0..5) {
        0 | 1 => SinkFault::Slow(rng.u32(100..8_000)),
        2 => SinkFault::Down,
        3 => SinkFault::Rejects,
        _ => SinkFault::Fine,
    }
}

fn api_fault(rng: &mut Rng) -> ApiFault {
    let streams = if rng.bool() { Verb::Log } else { Verb::Watch };
    let any = [Verb::Log, Verb::Watch, Verb::List, Verb::Get][rng.usize(0..4)];
    let times = rng.u32(1..6);
    match rng.u32(0..12) {
        0..3 => ApiFault::Cut(streams, rng.bool()),
        3 => ApiFault::Compact,
        4 | 5 => ApiFault::Mute(streams),
        6 => ApiFault::Unmute,
        // Only one stream: if two reads are cut at the same byte, they agree, and podlog takes that for the end of the
        // log.
        7 | 8 => ApiFault::CutAfter(streams, rng.u32(0..400), 1),
        9 => {
            // Only lists and watches get 410, which means that their resource version is too old.
            let has_version = matches!(any, Verb::Watch | Verb::List);
            let status = [429, 500, 502, 503, 504, 410][rng.usize(0..if has_version { 6 } else { 5 })];
            ApiFault::Refuse(any, status, times)
        }
        10 => ApiFault::Disconnect(any, times),
        _ => ApiFault::Delay(any, rng.u32(100..10_000), times),
    }
}
