//! What must hold in every state, what no step may be, and what must still be possible.

use crate::names::{Fate, Step};
use crate::state::State;
use crate::steps::Steps;
use crate::world::World;

/// What is wrong with a state, if anything.
pub(crate) fn violated(world: &World, state: &State) -> Option<String> {
    if state.stale_write {
        return Some("the sink took a write from a claim that is not the newest".into());
    }
    for pod in 0..world.pods {
        let row = &state.rows[pod];
        let mut acting = 0;
        let mut fences = 0_u32;
        for (replica, seat) in state.seats[..world.replicas].iter().enumerate() {
            acting += u32::from(state.acts(replica, pod));
            let fence = seat.slots[pod].fence;
            if fence > row.fence {
                return Some(format!("replica {} has a fence larger than the row's", replica + 1));
            }
            // 0 is no claim.
            if fence != 0 && fences & 1 << fence != 0 {
                return Some(format!("two replicas have pod {} under one fence", pod + 1));
            }
            fences |= 1 << fence;
        }
        if acting > 1 {
            return Some(format!("{acting} replicas act on pod {}", pod + 1));
        }
        if row.sink > row.fence {
            return Some(format!(
                "the sink knows a fence of pod {} that the row does not",
                pod + 1
            ));
        }
    }
    None
}

/// What is wrong with a step that is taken from a state, if anything.
pub(crate) fn forbidden(before: &State, step: Step) -> Option<String> {
    match step {
        Step::Claims(replica, pod, _) if before.rows[pod - 1].finished => {
            Some(format!("replica {replica} claims pod {pod} although it is done with"))
        }
        _ => None,
    }
}

/// What goes wrong if from this state on one replica is left alone, everybody else being frozen, and nothing gets lost
/// any more: it must act on every pod that is not finished within a hold-off, a ttl and the grace.
pub(crate) fn left_alone(world: &World, from: &State) -> Option<String> {
    (1..=world.replicas).find_map(|survivor| {
        let mut state = *from;
        let named = World {
            nameless: false,
            ..*world
        };
        let mut steps = Steps::of(&named);
        // Each tick takes a few steps; the clock that goes back by a jump makes a row last as much longer.
        let back = world.jumps.iter().map(|by| -by).max().unwrap_or(0).max(0) as u8;
        let ticks = 2 * world.times.ttl + world.times.grace + back + 2;
        for _ in 0..ticks {
            if act(&mut steps, &mut state, survivor) {
                return None;
            }
            for clock in std::iter::once(Step::Database).chain((1..=world.replicas).map(Step::Clock)) {
                step(&mut steps, &mut state, |step| *step == clock);
            }
        }
        Some(format!(
            "replica {survivor}, left alone, does not get all pods in {ticks} ticks"
        ))
    })
}

/// Everything that is late comes, and the survivor does what it can. Answers whether it acts on all pods.
fn act(steps: &mut Steps<'_>, state: &mut State, survivor: usize) -> bool {
    let comes = |step: &Step| matches!(step, Step::Arrives(..) | Step::Answers(..));
    while step(steps, state, comes) {}
    // What changes nothing is no step; it goes away.
    while step(steps, state, |step| {
        matches!(step, Step::Vanishes(..) | Step::GivenUp(..))
    }) {}
    step(steps, state, |step| *step == Step::HoldsOff(survivor));
    let world = steps.world;
    for pod in 1..=world.pods {
        let slot = state.seats[survivor - 1].slots[pod - 1];
        if slot.fence != 0 && slot.left == 0 {
            step(steps, state, |step| *step == Step::Frees(survivor, pod, Fate::Answered));
        }
        step(steps, state, |step| {
            *step == Step::Renews(survivor, pod, Fate::Answered)
        });
        step(steps, state, |step| {
            *step == Step::Claims(survivor, pod, Fate::Answered)
        });
    }
    (0..world.pods).all(|pod| state.rows[pod].finished || state.acts(survivor - 1, pod))
}

/// Takes the first step of a kind, if there is one.
fn step(steps: &mut Steps<'_>, state: &mut State, wanted: impl Fn(&Step) -> bool) -> bool {
    steps.after(state);
    let next = steps.found.iter().find(|(step, _)| wanted(step)).map(|(_, next)| *next);
    *state = next.unwrap_or(*state);
    next.is_some()
}
