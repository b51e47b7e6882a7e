//! Plays several scenarios at the same time. Scenarios mostly wait for claims to expire, so a machine can play more of
//! them at a time than it has processors. Each scenario remains a test of its own: the first test that runs starts
//! every scenario that the arguments of the program ask for, and each test waits for its own.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

/// A scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// The path of its test.
    pub(crate) name: &'static str,
    /// How many of the [`PLACES`] it takes.
    pub(crate) places: usize,
    pub(crate) body: fn(),
}

/// How many scenarios play at the same time: each has up to three processes of podlog on each of two servers.
const PLACES: usize = 5;

/// The outcome of each scenario: the message of its failure, if it failed.
type Outcomes = HashMap<&'static str, Receiver<Option<String>>>;

/// The places in use, and the news that some have become free.
type Used = Arc<(Mutex<usize>, Condvar)>;

/// Waits for the end of a scenario, and fails if it failed.
pub(crate) fn play(all: &[Scenario], name: &'static str) {
    static OUTCOMES: OnceLock<Mutex<Outcomes>> = OnceLock::new();
    let outcome = OUTCOMES
        .get_or_init(|| Mutex::new(start_all(all, name)))
        .lock()
        .unwrap()
        .remove(name);
    // The arguments may select a test in a way that `start_all` does not know; it is played all the same.
    let outcome = outcome.unwrap_or_else(|| {
        let scenario = all.iter().find(|scenario| scenario.name == name).unwrap();
        start(*scenario, &Arc::default())
    });
    if let Some(message) = outcome.recv().unwrap() {
        panic!("{message}");
    }
}

/// Starts every scenario that the arguments of this program ask for, and the one named `first`.
fn start_all(all: &[Scenario], first: &'static str) -> Outcomes {
    let mut arguments = std::env::args().skip(1);
    let mut filters = Vec::new();
    while let Some(argument) = arguments.next() {
        if ["--test-threads", "--skip", "--format", "--color"].contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            filters.push(argument);
        }
    }
    let wanted = |name: &str| name == first || filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    let used = Used::default();
    let wanted = all.iter().filter(|scenario| wanted(scenario.name));
    wanted
        .map(|scenario| (scenario.name, start(*scenario, &used)))
        .collect()
}

/// Plays a scenario on a thread of its own as soon as its places are free.
fn start(scenario: Scenario, used: &Used) -> Receiver<Option<String>> {
    let (ended, outcome) = channel();
    let used = used.clone();
    let play = move || {
        let (count, freed) = &*used;
        *freed
            .wait_while(count.lock().unwrap(), |count| *count + scenario.places > PLACES)
            .unwrap() += scenario.places;
        let panic = std::panic::catch_unwind(scenario.body).err();
        *count.lock().unwrap() -= scenario.places;
        freed.notify_all();
        let message = panic.map(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default()
        });
        ended.send(message).ok();
    };
    let thread = std::thread::Builder::new().name(scenario.name.to_owned());
    thread.spawn(play).unwrap();
    outcome
}
