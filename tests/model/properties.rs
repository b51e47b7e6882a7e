//! What must hold in every state, and what must stay possible. Each property is a function of one state.

use std::iter::once;

use crate::config::{GRACE, ModelConfig};
use crate::state::State;
use crate::step::{Delivery, Step};
use crate::store::HoldOffs;
use crate::transitions::moves;

pub(crate) const ONE_ACTS: &str = "at most one replica acts on a pod";

/// See [`ONE_ACTS`].
pub(crate) fn one_acts(config: &ModelConfig, state: &State) -> bool {
    (0..config.pods).all(|pod| state.acting(pod) <= 1)
}

/// No claim has a fence larger than the row's.
pub(crate) fn no_fence_above_the_row(config: &ModelConfig, state: &State) -> bool {
    (0..config.pods).all(|pod| state.fences(pod).all(|fence| fence <= state.rows[pod].fence))
}

/// No two claims of a pod have the same fence.
pub(crate) fn fences_differ(config: &ModelConfig, state: &State) -> bool {
    (0..config.pods).all(|pod| {
        let seen = state.fences(pod).fold(0_u32, |seen, fence| seen | 1 << fence);
        seen.count_ones() as usize == state.fences(pod).count()
    })
}

/// From this state on all replicas but one are frozen, and nothing is lost any more. That replica must act on every pod
/// that is not finished within a hold-off, a ttl and the grace, whichever replica it is.
pub(crate) fn replica_left_alone_gets_every_pod(config: &ModelConfig, holdoffs: &HoldOffs, from: &State) -> bool {
    // A hold-off and a claim last a ttl each. A jump back makes a row last longer by as much. Acting takes two steps.
    let back = config.back(config.jumps) as u8;
    let ticks = 2 * config.times.ttl + GRACE + back + 2;
    (1..=config.replicas).all(|survivor| {
        let mut run = Run {
            config,
            holdoffs,
            state: *from,
        };
        (0..ticks).any(|_| {
            let done = run.act(survivor);
            for clock in once(Step::Database).chain((1..=config.replicas).map(Step::Clock)) {
                run.step(|step| *step == clock);
            }
            done
        })
    })
}

/// One way on from a state.
struct Run<'a> {
    config: &'a ModelConfig,
    holdoffs: &'a HoldOffs,
    state: State,
}

impl Run<'_> {
    /// Everything that is late arrives, and the survivor does what it can. Returns whether it acts on all pods.
    fn act(&mut self, survivor: usize) -> bool {
        while self.step(|step| matches!(step, Step::Arrives(..) | Step::Answers(..))) {}
        // An arrival that changes nothing is no step: such a message vanishes instead.
        while self.step(|step| matches!(step, Step::Vanishes(..) | Step::GivenUp(..))) {}
        self.step(|step| *step == Step::HoldsOff(survivor));
        for pod in 0..self.config.pods {
            let claim = self.state.replicas[survivor - 1].claims[pod];
            let mut takes = |wanted: Step| self.step(|step| *step == wanted);
            if claim.fence != 0 && claim.left == 0 {
                takes(Step::Releases(survivor, pod + 1, Delivery::Answered));
            }
            takes(Step::Renews(survivor, pod + 1, Delivery::Answered));
            takes(Step::Acquires(survivor, pod + 1, Delivery::Answered));
        }
        (0..self.config.pods).all(|pod| self.state.rows[pod].finished || self.state.acts(survivor - 1, pod))
    }

    /// Takes the first possible step of a kind, if there is one.
    fn step(&mut self, wanted: impl Fn(&Step) -> bool) -> bool {
        let possible = moves(self.config, self.holdoffs, &self.state);
        let next = possible.iter().find(|(step, _)| wanted(step)).map(|(_, next)| *next);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }
}
