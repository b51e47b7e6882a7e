//! Goes through every state that can be reached, breadth first, so that the first violation found has the shortest
//! history. It keeps whole states, not their hashes: nothing is passed over because two look alike.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::Instant;

use crate::names::Step;
use crate::properties;
use crate::state::{Key, State, UNSEEN};
use crate::steps::Steps;
use crate::world::World;

/// What was found.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// Steps in the longest of the shortest histories.
    pub(crate) depth: usize,
    /// The kinds of step that led to something new.
    pub(crate) kinds: BTreeSet<String>,
    /// The first violation with the history that leads to it.
    pub(crate) violation: Option<(String, Vec<(Step, State)>)>,
    pub(crate) seconds: f64,
}

/// Explores a world until a property is violated or everything has been seen. With `alone`, every state must also be
/// one from which a replica that is left alone gets each pod.
pub(crate) fn explore(world: &World, alone: bool) -> Found {
    let began = Instant::now();
    let mut seen = Seen::default();
    let mut steps = Steps::of(world);
    let mut found = Found {
        states: 0,
        transitions: 0,
        depth: 0,
        kinds: BTreeSet::new(),
        violation: None,
        seconds: 0.0,
    };
    let mut taken = HashSet::new();
    seen.add(first(world).pack(), u32::MAX);
    let (mut at, mut level_ends) = (0, 1);
    while at < seen.order.len() && found.violation.is_none() {
        if at == level_ends {
            found.depth += 1;
            level_ends = seen.order.len();
        }
        let state = State::unpack(seen.order[at].0);
        steps.after(&state);
        found.transitions += steps.found.len();
        for (step, next) in &steps.found {
            taken.insert(*step);
            let new = seen.add(next.pack(), at as u32);
            let wrong = || new.then(|| properties::violated(world, next))?;
            let stuck = || (new && alone).then(|| properties::left_alone(world, next))?;
            if let Some(why) = properties::forbidden(&state, *step).or_else(wrong).or_else(stuck) {
                let mut history = seen.history(world, at);
                history.push((*step, *next));
                found.violation = Some((why, history));
                break;
            }
        }
        at += 1;
    }
    found.kinds = taken.into_iter().map(Step::kind).collect();
    (found.states, found.seconds) = (seen.order.len(), began.elapsed().as_secs_f64());
    found
}

/// Nobody has a pod, and every replica has just looked unless it is new.
fn first(world: &World) -> State {
    let mut state = State {
        jumps: u8::from(!world.jumps.is_empty()),
        ..State::default()
    };
    if world.newcomers {
        state.seats.iter_mut().for_each(|seat| seat.seen = UNSEEN);
    }
    state
}

/// The states seen so far, in order, each with the one it was reached from.
#[derive(Default)]
struct Seen {
    places: HashMap<Key, u32, BuildHasherDefault<Folded>>,
    order: Vec<(Key, u32)>,
}

impl Seen {
    /// Whether it is new.
    fn add(&mut self, key: Key, from: u32) -> bool {
        let place = self.order.len() as u32;
        let new = *self.places.entry(key).or_insert(place) == place;
        if new {
            self.order.push((key, from));
        }
        new
    }

    /// How a state was reached.
    fn history(&self, world: &World, at: usize) -> Vec<(Step, State)> {
        let mut history = Vec::new();
        let (mut key, mut from) = self.order[at];
        let mut steps = Steps::of(world);
        while from != u32::MAX {
            let before = self.order[from as usize];
            steps.after(&State::unpack(before.0));
            history.extend(steps.found.iter().find(|(_, state)| state.pack() == key).copied());
            (key, from) = before;
        }
        history.reverse();
        history
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // In one go: a key is hashed millions of times, in a test built without optimisation.
        let [low, high, net] = self.0;
        let folded = low ^ high.rotate_left(29) ^ net.rotate_left(47);
        hasher.write_u64(folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ net);
    }
}

/// Finishes the mixing that [`Key`] begins. Which states are equal is never decided by it.
#[derive(Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}
