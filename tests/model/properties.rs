//! What must hold in every state, and what must still be possible.

use stateright::Property;

use crate::config::{GRACE, ModelConfig};
use crate::protocol::Protocol;
use crate::state::State;
use crate::step::{Delivery, Step};

pub(crate) const ONE_ACTS: &str = "at most one replica acts on a pod";

/// What must hold in every state of a config.
pub(crate) fn of(config: &ModelConfig) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(ONE_ACTS, |protocol: &Protocol, state: &State| {
            protocol.pods().all(|pod| state.acting(pod) <= 1)
        }),
        Property::always(
            "no claim has a fence larger than the row's",
            |protocol: &Protocol, state: &State| {
                protocol
                    .pods()
                    .all(|pod| state.fences(pod).all(|fence| fence <= state.rows[pod].fence))
            },
        ),
        Property::always(
            "no two claims of a pod have the same fence",
            |protocol: &Protocol, state: &State| {
                protocol.pods().all(|pod| {
                    let seen = state.fences(pod).fold(0_u32, |seen, fence| seen | 1 << fence);
                    seen.count_ones() as usize == state.fences(pod).count()
                })
            },
        ),
        Property::always("nobody claims a pod that is done with", |_, state: &State| {
            !state.claimed_done
        }),
    ];
    if config.alone {
        all.push(Property::always(
            "a replica that is left alone gets every pod",
            left_alone,
        ));
    }
    all
}

/// From this state on one replica, whichever it is, is left alone, everybody else being frozen, and nothing gets lost
/// any more: it must act on every pod that is not finished within a hold-off, a ttl and the grace.
fn left_alone(protocol: &Protocol, from: &State) -> bool {
    let config = &protocol.config;
    // Each tick takes a few steps; the clock that goes back by a jump makes a row last as much longer.
    let back = config.back(config.jumps) as u8;
    let ticks = 2 * config.times.ttl + GRACE + back + 2;
    (1..=config.replicas).all(|survivor| {
        let mut state = *from;
        (0..ticks).any(|_| {
            let done = act(protocol, &mut state, survivor);
            for clock in std::iter::once(Step::Database).chain((1..=config.replicas).map(Step::Clock)) {
                step(protocol, &mut state, |step| *step == clock);
            }
            done
        })
    })
}

/// Everything that is late comes, and the survivor does what it can. Answers whether it acts on all pods.
fn act(protocol: &Protocol, state: &mut State, survivor: usize) -> bool {
    let comes = |step: &Step| matches!(step, Step::Arrives(..) | Step::Answers(..));
    while step(protocol, state, comes) {}
    // What changes nothing is no step; it goes away.
    while step(protocol, state, |step| {
        matches!(step, Step::Vanishes(..) | Step::GivenUp(..))
    }) {}
    step(protocol, state, |step| *step == Step::HoldsOff(survivor));
    for pod in protocol.pods() {
        let claim = state.replicas[survivor - 1].claims[pod];
        let mut takes = |wanted: Step| step(protocol, state, |step| *step == wanted);
        if claim.fence != 0 && claim.left == 0 {
            takes(Step::Frees(survivor, pod + 1, Delivery::Answered));
        }
        takes(Step::Renews(survivor, pod + 1, Delivery::Answered));
        takes(Step::Claims(survivor, pod + 1, Delivery::Answered));
    }
    protocol
        .pods()
        .all(|pod| state.rows[pod].finished || state.acts(survivor - 1, pod))
}

/// Takes the first step of a kind, if there is one.
fn step(protocol: &Protocol, state: &mut State, wanted: impl Fn(&Step) -> bool) -> bool {
    let after = protocol.after(state);
    let next = after.iter().find(|(step, _)| wanted(step)).map(|(_, next)| *next);
    *state = next.unwrap_or(*state);
    next.is_some()
}
