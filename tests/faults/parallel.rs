//! Lets scenarios play at the same time. They mostly wait for claims to expire, so more of them fit on a machine than
//! it has processors. Each remains a test of its own: the first one that is run begins all that were asked for.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

/// A scenario: the name of its test, and what it does.
pub(crate) type Scenario = (&'static str, fn());

/// How many play at the same time: each has up to three processes of podlog on each of two servers.
const AT_ONCE: usize = 5;

/// How many of them one with hundreds of pods and six processes on a server counts for.
const CROWD: usize = 2;

/// How each ended: the words with which it failed, if it did.
type Outcomes = HashMap<&'static str, Receiver<Option<String>>>;

/// Makes a test of each of these functions and lists them in `ALL`.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ALL: &[$crate::parallel::Scenario] =
            &[$((concat!(module_path!(), "::tests::", stringify!($name)), $name)),*];

        mod tests {
            $(#[test] fn $name() {
                $crate::parallel::play(concat!(module_path!(), "::", stringify!($name)));
            })*
        }
    };
}
pub(crate) use scenarios;

/// Waits for the end of a scenario, and fails as it did.
pub(crate) fn play(name: &'static str) {
    static OUTCOMES: OnceLock<Mutex<Outcomes>> = OnceLock::new();
    let outcome = OUTCOMES
        .get_or_init(|| Mutex::new(begin(name)))
        .lock()
        .unwrap()
        .remove(name);
    // One that the arguments did not name is still a test that is run.
    let outcome = outcome.unwrap_or_else(|| start(find(name), &Arc::default()));
    if let Some(words) = outcome.recv().unwrap() {
        panic!("{words}");
    }
}

fn all() -> impl Iterator<Item = Scenario> {
    // The longest first; but those of many processes last, where they make nobody late.
    let all = [
        crate::crashes::ALL,
        crate::signals::ALL,
        crate::outages::ALL,
        crate::single::ALL,
        crate::network::ALL,
        crate::scaling::ALL,
    ];
    all.into_iter().flatten().copied()
}

fn find(name: &str) -> Scenario {
    all().find(|scenario| scenario.0 == name).unwrap()
}

/// Starts every scenario that the arguments of this program ask for.
fn begin(first: &'static str) -> Outcomes {
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
    let playing = Arc::default();
    let wanted = all().filter(|scenario| wanted(scenario.0));
    wanted.map(|scenario| (scenario.0, start(scenario, &playing))).collect()
}

/// Plays a scenario on a thread of its own as soon as there is room.
fn start((name, body): Scenario, playing: &Arc<(Mutex<usize>, Condvar)>) -> Receiver<Option<String>> {
    let (told, outcome) = channel();
    let playing = playing.clone();
    let crowd = crate::scaling::ALL.iter().any(|scenario| scenario.0 == name);
    let room = if crowd { CROWD } else { 1 };
    let play = move || {
        let (count, ended) = &*playing;
        *ended
            .wait_while(count.lock().unwrap(), |count| *count + room > AT_ONCE)
            .unwrap() += room;
        let panic = std::panic::catch_unwind(body).err();
        *count.lock().unwrap() -= room;
        ended.notify_all();
        let words = panic.map(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default()
        });
        told.send(words).ok();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(play).unwrap();
    outcome
}
