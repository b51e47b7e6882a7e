//! Plays a history to its end: step by step, then a rest without faults, then the audit.
//!
//! Each history has a thread of its own, where clocks begin anew and a panic affects no other history.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::time::Duration;

use super::actions::ActionRunner;
use super::fleet::Fleet;
use super::history::History;
use super::rule::{Breach, Rule};
use super::{ledger_audit, rules};

/// How a history went.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// How many steps were played, each followed by a check of all rules.
    pub steps: usize,
    /// The rule that was broken, if one was.
    pub breach: Option<Breach>,
    /// A hash of all that was stored: the same history always comes to the same.
    pub trace: u64,
}

thread_local! {
    /// The first panic of a history that is played on this thread; `None` on other threads.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static PLAYING: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics of histories are kept and reported as a broken rule instead of being printed.
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
    let unplayed = |what: &str| RunOutcome {
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
            Ok(thread) => thread.join().unwrap_or_else(|_| unplayed("the simulation panicked")),
            Err(error) => unplayed(&format!("no thread could be started: {error}")),
        }
    })
}

fn panicked() -> Option<Breach> {
    let panic = PANIC.with_borrow(Clone::clone)?;
    Some(Breach::new(Rule::Alive, panic))
}

/// How many seconds replicas are given to stop: their 25 s of grace, and some for the store.
const STOPPED_WITHIN: u32 = 35;

struct HistoryRun {
    runner: ActionRunner,
    once: bool,
    steps: usize,
}

impl HistoryRun {
    fn new(history: &History) -> Self {
        let mut fleet = Fleet::seeded(history.fencing, history.seed);
        fleet.grouped = true;
        for _ in 0..history.replicas.max(1) {
            fleet.add();
        }
        Self {
            runner: ActionRunner::new(fleet, history.fencing),
            once: history.fencing || history.calm,
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
        self.rest().or_else(|| self.check_end()).or_else(|| self.end())
    }

    fn pass(&mut self, time: Duration) -> Option<Breach> {
        let breach = self.runner.fleet.pass_for(time).err();
        self.runner.remove_ended();
        breach.or_else(panicked)
    }

    /// What must hold after every step.
    fn check_step(&self) -> Option<Breach> {
        let fleet = &self.runner.fleet;
        let audited = ledger_audit::audit(&fleet.ledger, &fleet.sim.written(), false).breach(self.once);
        audited.or_else(|| {
            if self.runner.has_jumped() {
                None
            } else {
                rules::late_deadlines(fleet)
            }
        })
    }

    /// All faults end; what is left to do is done.
    fn rest(&mut self) -> Option<Breach> {
        self.runner.end_faults();
        for round in 0..15 {
            if let Some(breach) = self.pass(Duration::from_secs(10)) {
                return Some(breach);
            }
            if round == 4 {
                // An empty log does not show that a file was rotated away unread; its next line does.
                self.runner.fleet.write_all();
            }
        }
        None
    }

    /// What must hold at the end.
    fn check_end(&self) -> Option<Breach> {
        let fleet = &self.runner.fleet;
        let audited = fleet.audit().breach(self.once);
        audited
            .or_else(|| rules::pods_without_holder(fleet))
            .or_else(|| rules::uneven(fleet))
    }

    /// All replicas are asked to stop, and nothing may be left.
    fn end(&mut self) -> Option<Breach> {
        let fleet = &mut self.runner.fleet;
        for at in 0..fleet.replicas.len() {
            fleet.ask_to_stop(at);
        }
        for _ in 0..STOPPED_WITHIN {
            if let Err(breach) = fleet.pass_for(Duration::from_secs(1)) {
                return Some(breach);
            }
            fleet.remove_ended();
            if fleet.replicas.is_empty() {
                break;
            }
        }
        rules::left_over(fleet)
            .or_else(|| rules::too_many_calls(fleet))
            .or_else(|| fleet.audit().breach(self.once))
    }
}
