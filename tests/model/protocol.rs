//! The protocol as the model checker is shown it: where it begins, what may follow a state, and what must hold. The
//! checker goes through every state there is, and keeps of each a hash of 64 bits: of ten million states two are taken
//! for one with a probability of 3 in a million.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZero;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Instant;

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model, Property};

use crate::canonical;
use crate::config::ModelConfig;
use crate::properties;
use crate::state::{State, UNSEEN};
use crate::step::Step;
use crate::store::HoldOffs;
use crate::transitions::Transitions;

/// A step and what it leads to. The checker would ask for the steps first, and then where each leads; but what leads
/// nowhere is no step, so that where it leads has been worked out by then, and is not worked out twice.
pub(crate) type Move = (Step, State);

/// A config, and what was found possible in it.
pub(crate) struct Protocol {
    pub(crate) config: ModelConfig,
    pub(crate) holdoffs: HoldOffs,
    /// The steps that were possible in some state, whether or not they led to one that had not been seen.
    possible: Arc<Mutex<HashSet<Step>>>,
}

impl Protocol {
    pub(crate) fn of(config: ModelConfig) -> Self {
        Self {
            config,
            holdoffs: config.hold_offs(),
            possible: Arc::default(),
        }
    }

    pub(crate) fn pods(&self) -> Range<usize> {
        0..self.config.pods
    }

    /// All that can follow.
    pub(crate) fn after(&self, state: &State) -> Vec<Move> {
        let mut steps = Transitions::of(self);
        steps.after(state);
        steps.found
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Move;

    /// Nobody has a pod, and every replica has just looked unless it is new.
    fn init_states(&self) -> Vec<State> {
        let mut state = State::default();
        if !self.config.jump_by.is_empty() {
            state.jumps_left = self.config.jumps;
        }
        if self.config.newcomers {
            state.replicas.iter_mut().for_each(|replica| replica.seen = UNSEEN);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Move>) {
        *actions = self.after(state);
        let mut possible = self.possible.lock().unwrap_or_else(PoisonError::into_inner);
        possible.extend(actions.iter().map(|(step, _)| *step));
    }

    /// States that differ by names only become one here, not in the move, which shows who did what. The checker has a
    /// symmetry reduction of its own, but only for searches depth first, whose counterexamples are long.
    fn next_state(&self, _before: &State, (_, mut after): Move) -> Option<State> {
        if self.config.symmetry {
            canonical::rename(&mut after, self.config.replicas, self.config.pods);
        }
        Some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.config)
    }
}

/// What was found.
pub(crate) struct Exploration {
    /// The states, the ways from one to another, and how long it took.
    pub(crate) size: String,
    /// The kinds of step that were possible somewhere.
    pub(crate) kinds: BTreeSet<String>,
    /// A violated property with the shortest history found; others may be shorter unless the search was bounded.
    pub(crate) violation: Option<(&'static str, Vec<Move>)>,
}

/// Goes through a config until a property is violated or everything has been seen.
pub(crate) fn explore(config: &ModelConfig) -> Exploration {
    let cores = available_parallelism().map_or(1, NonZero::get);
    search(config, |checker| checker.threads(cores))
}

/// Goes through what takes fewer than so many steps, until a property is violated.
///
/// One thread comes to every state by a way than which none is shorter. Of several one may be ahead of the other, and
/// what is near a state that it reached by a detour would seem to be beyond the bound.
pub(crate) fn explore_within(config: &ModelConfig, steps: usize) -> Exploration {
    // The first state has a depth of 1, and what is as deep as the target is not looked at.
    search(config, |checker| checker.threads(1).target_max_depth(steps + 1))
}

fn search(config: &ModelConfig, how: impl Fn(CheckerBuilder<Protocol>) -> CheckerBuilder<Protocol>) -> Exploration {
    let began = Instant::now();
    let protocol = Protocol::of(*config);
    let possible = Arc::clone(&protocol.possible);
    let checker = how(protocol.checker().finish_when(HasDiscoveries::AnyFailures))
        .spawn_bfs()
        .join();
    let size = format!(
        "{} states, {} transitions, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        began.elapsed().as_secs_f64()
    );
    let violated = checker.discoveries().into_iter();
    let histories = violated.map(|(property, path)| (property, path.into_actions()));
    let possible = possible.lock().unwrap_or_else(PoisonError::into_inner);
    Exploration {
        size,
        kinds: possible.iter().map(|step| step.kind()).collect(),
        violation: histories.min_by_key(|(property, history)| (history.len(), *property)),
    }
}
