//! Plays a history: its steps, then a time without faults, then the shutdown. It checks the rules after each step and
//! at the end.
//!
//! Each history has its own thread, so that its clocks start at the same time in every run and a panic affects no other
//! history.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::time::Duration;

use super::actions::ActionRunner;
use super::fleet::Fleet;
use super::history::History;
use super::rule::{Breach, Rule};
use super::{checks, ledger_audit};

/// How a history went.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// How many steps were played.
    pub steps: usize,
    /// The rule that was broken, if one was.
    pub breach: Option<Breach>,
    /// A hash of everything that was stored. It is the same each time the same history is played.
    pub trace: u64,
}

thread_local! {
    /// The first panic of a history that is played on this thread; `None` on other threads.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static PLAYING: RefCell<bool> = const { RefCell::new(false) };
}

/// Keeps panics of histories, to report them as a broken rule instead of printing them.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if PLAYING.with_borrow(|playing| *playing) {
                PANIC.with_borrow_mut(|panic| panic.get_or_insert_with(|| info.to_string()).truncate(500));
            } else {
                before(info);
            }
        }));
    });
}

/// Plays a history and checks it.
#[must_use]
pub fn play(history: &History) -> RunOutcome {
    catch_panics();
    let not_played = |what: &str| RunOutcome {
        steps: 0,
        breach: Some(Breach::new(Rule::Alive, what)),
        trace: 0,
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            PLAYING.set(true);
            let mut run = HistoryRun::new(history);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.play(history)));
            let breach = ended.unwrap_or_else(|_| panicked()).or_else(panicked);
            let trace = run.runner.fleet.ledger.hash();
            let steps = run.steps;
            RunOutcome { steps, breach, trace }
        });
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| not_played("the simulation panicked")),
            Err(error) => not_played(&format!("no thread could be started: {error}")),
        }
    })
}

fn panicked() -> Option<Breach> {
    let panic = PANIC.with_borrow(Clone::clone)?;
    Some(Breach::new(Rule::Alive, panic))
}

/// How many seconds replicas may take to stop: their 25 s of grace, and some for the lock store.
const STOP_TIMEOUT_SECONDS: u32 = 35;

struct HistoryRun {
    runner: ActionRunner,
    exactly_once: bool,
    steps: usize,
}

impl HistoryRun {
    fn new(history: &History) -> Self {
        let mut fleet = Fleet::new(history.fencing, history.seed);
        fleet.grouped = true;
        for _ in 0..history.replicas.max(1) {
            fleet.add_replica();
        }
        Self {
            runner: ActionRunner::new(fleet, history.fencing),
            exactly_once: history.fencing || history.calm,
            steps: 0,
        }
    }

    fn play(&mut self, history: &History) -> Option<Breach> {
        for step in &history.steps {
            let breach = self.runner.run(&step.0);
            self.steps += 1;
            let passed = breach.or_else(|| self.pass(Duration::from_millis(step.1.into())));
            if let Some(breach) = passed.or_else(|| self.check_step()) {
                return Some(breach);
            }
        }
        self.settle().or_else(|| self.check_end()).or_else(|| self.end())
    }

    fn pass(&mut self, time: Duration) -> Option<Breach> {
        let breach = self.runner.fleet.pass_for(time).err();
        self.runner.remove_ended();
        breach.or_else(panicked)
    }

    /// What must hold after every step.
    fn check_step(&self) -> Option<Breach> {
        let fleet = &self.runner.fleet;
        let audited = ledger_audit::audit(&fleet.ledger, &fleet.sim.written(), false).breach(self.exactly_once);
        audited.or_else(|| {
            if self.runner.has_recent_clock_jump() {
                None
            } else {
                checks::find_late_deadline(fleet)
            }
        })
    }

    /// Ends all faults, and lets the replicas store everything that is left.
    fn settle(&mut self) -> Option<Breach> {
        self.runner.end_faults();
        for round in 0..15 {
            if let Some(breach) = self.pass(Duration::from_secs(10)) {
                return Some(breach);
            }
            if round == 4 {
                // Only the next line of a log shows that a file was rotated away before it was read.
                self.runner.fleet.write_all();
            }
        }
        None
    }

    /// What must hold at the end.
    fn check_end(&self) -> Option<Breach> {
        let fleet = &self.runner.fleet;
        let audited = fleet.audit().breach(self.exactly_once);
        audited
            .or_else(|| checks::find_unheld_pod(fleet))
            .or_else(|| checks::find_imbalance(fleet))
    }

    /// Asks all replicas to stop, and checks that nothing is left.
    fn end(&mut self) -> Option<Breach> {
        let fleet = &mut self.runner.fleet;
        for at in 0..fleet.replicas.len() {
            fleet.ask_to_stop(at);
        }
        for _ in 0..STOP_TIMEOUT_SECONDS {
            if let Err(breach) = fleet.pass_for(Duration::from_secs(1)) {
                return Some(breach);
            }
            fleet.remove_ended();
            if fleet.replicas.is_empty() {
                break;
            }
        }
        checks::find_leftovers(fleet)
            .or_else(|| checks::find_excess_calls(fleet))
            .or_else(|| fleet.audit().breach(self.exactly_once))
    }
}
