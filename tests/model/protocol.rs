//! The protocol as the model checker sees it: the first state, the steps that may follow a state, and what must hold.
//! The checker visits every state and keeps a hash of 64 bits of each. Among ten million states two are mistaken for
//! one with a probability of 3 in a million: n^2 / 2^65 = 10^14 / 3.7 * 10^19.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Instant;

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model, Property};

use crate::canonical;
use crate::config::ModelConfig;
use crate::properties::{ONE_ACTS, fences_differ, no_fence_above_the_row, one_acts, replica_left_alone_gets_every_pod};
use crate::state::{State, UNSEEN};
use crate::step::Step;
use crate::store::{HoldOffs, hold_offs};
use crate::transitions::{Move, moves};

/// The protocol in one configuration, and the steps that were found possible in it.
struct Protocol {
    config: ModelConfig,
    holdoffs: HoldOffs,
    /// The steps that were possible in some state, whether or not they led to one that had not been seen.
    possible: Arc<Mutex<HashSet<Step>>>,
}

impl Model for Protocol {
    type State = State;
    type Action = Move;

    /// No replica has a pod. Every replica has just read the table, unless it is new.
    fn init_states(&self) -> Vec<State> {
        let mut state = State::default();
        if !self.config.jump_by.is_empty() {
            state.jumps_left = self.config.jumps;
        }
        if self.config.jump_before_first_read {
            state.replicas.iter_mut().for_each(|replica| replica.seen = UNSEEN);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Move>) {
        *actions = moves(&self.config, &self.holdoffs, state);
        let mut possible = self.possible.lock().unwrap_or_else(PoisonError::into_inner);
        possible.extend(actions.iter().map(|(step, _)| *step));
    }

    /// States that differ only by names become one here and not in the move, because the move shows who did what. The
    /// checker's own symmetry reduction works only for depth-first searches, whose counterexamples are long.
    fn next_state(&self, _before: &State, (_, mut after): Move) -> Option<State> {
        if self.config.symmetry {
            canonical::rename(&mut after, self.config.replicas, self.config.pods);
        }
        Some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(ONE_ACTS, |it: &Self, state: &State| one_acts(&it.config, state)),
            Property::always(
                "no claim has a fence larger than the row's",
                |it: &Self, state: &State| no_fence_above_the_row(&it.config, state),
            ),
            Property::always(
                "no two claims of a pod have the same fence",
                |it: &Self, state: &State| fences_differ(&it.config, state),
            ),
            Property::always("nobody claims a finished pod", |_, state: &State| !state.claimed_done),
        ];
        if self.config.check_progress {
            all.push(Property::always(
                "a replica that is left alone gets every pod",
                |it: &Self, state: &State| replica_left_alone_gets_every_pod(&it.config, &it.holdoffs, state),
            ));
        }
        all
    }
}

/// The result of a search.
pub(crate) struct Exploration {
    /// The number of states and of transitions, and how long the search took.
    pub(crate) size: String,
    /// The kinds of step that were possible somewhere.
    pub(crate) kinds: BTreeSet<String>,
    /// A violated property with the shortest history found; others may be shorter unless the search was bounded.
    pub(crate) violation: Option<(&'static str, Vec<Move>)>,
}

/// Searches a configuration until a property is violated or all states have been visited.
pub(crate) fn explore(config: &ModelConfig) -> Exploration {
    let cores = available_parallelism().map_or(1, NonZero::get);
    search(config, |checker| checker.threads(cores))
}

/// Searches the states that take fewer than `steps` steps, until a property is violated.
///
/// It uses one thread, which reaches every state by a shortest path. With several threads one may be ahead of another
/// and reach a state by a detour; states near it would then seem to lie beyond the bound.
pub(crate) fn explore_within(config: &ModelConfig, steps: usize) -> Exploration {
    // The first state has depth 1, and states at the target depth are not checked.
    search(config, |checker| checker.threads(1).target_max_depth(steps + 1))
}

fn search(config: &ModelConfig, how: impl Fn(CheckerBuilder<Protocol>) -> CheckerBuilder<Protocol>) -> Exploration {
    let began = Instant::now();
    let protocol = Protocol {
        config: *config,
        holdoffs: hold_offs(config),
        possible: Arc::default(),
    };
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
