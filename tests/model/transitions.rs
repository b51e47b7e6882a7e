//! The steps that can follow a state: clocks tick; statements are sent, arrive, are answered or get lost. Everything
//! that can happen at a moment is a step of its own. A frozen replica is one that takes no step.

use crate::canonical;
use crate::clocks;
use crate::config::{Defect, ModelConfig};
use crate::state::{Claim, FOR_EVER, LATE, Message, MessageKind, State};
use crate::step::{Delivery, Step};
use crate::store::{self, HoldOffs};

/// A step and the state after it. The checker asks first for the steps and then for the state after each. A step that
/// changes nothing is no step, so the state after it is known when the steps are listed, and is kept.
pub(crate) type Move = (Step, State);

/// Every step that is possible in a state, with the state after it.
pub(crate) fn moves(config: &ModelConfig, holdoffs: &HoldOffs, state: &State) -> Vec<Move> {
    let mut transitions = Transitions {
        config,
        holdoffs,
        found: Vec::new(),
    };
    transitions.collect(state);
    transitions.found
}

/// Collects the states that can follow one.
struct Transitions<'a> {
    config: &'a ModelConfig,
    holdoffs: &'a HoldOffs,
    found: Vec<Move>,
}

impl Transitions<'_> {
    /// For how long a replica must not acquire a row if it reads the table now.
    fn holds_off(&self, state: &State, replica: usize) -> Option<u8> {
        self.holdoffs.after(state.replicas[replica].seen)
    }

    fn collect(&mut self, state: &State) {
        self.clocks(state);
        for replica in 0..self.config.replicas {
            self.read_table(state, replica);
            for pod in 0..self.config.pods {
                if state.replicas[replica].claims[pod].fence == 0 {
                    self.unclaimed(state, replica, pod);
                } else {
                    self.claimed(state, replica, pod);
                }
            }
        }
        for at in 0..state.late {
            self.late(state, at);
        }
    }

    fn add(&mut self, step: Step, mut state: State) {
        if self.config.jump_by.is_empty() {
            // Nobody could tell a jump from none.
            state.replicas.iter_mut().for_each(|replica| replica.seen = 0);
        }
        canonical::rest(&mut state);
        canonical::forget(&mut state, self.config);
        if !self.config.abandoned_statements {
            canonical::learn(&mut state);
        }
        canonical::tidy(&mut state);
        self.found.push((step, state));
    }

    /// Any clock may tick, and the database's may jump.
    fn clocks(&mut self, old: &State) {
        let (config, replicas) = (self.config, &old.replicas[..self.config.replicas]);
        // The clocks of replicas are at most one tick behind the database's, and never ahead.
        if replicas.iter().all(|replica| replica.lag == 0) {
            self.add(Step::Database, clocks::database_ticked(config, old));
        }
        for (replica, own) in replicas.iter().enumerate() {
            if own.lag > 0 && !clocks::must_stop_waiting(old, replica) {
                self.add(Step::Clock(replica + 1), clocks::replica_ticked(old, replica));
            }
        }
        for by in config.jump_by {
            if let Some(state) = clocks::database_jumped(config, old, *by) {
                self.add(Step::Jump(*by), state);
            }
        }
    }

    /// A replica reads the table and finds that the clock has jumped. A read that finds no jump is part of the claim
    /// that follows it.
    fn read_table(&mut self, old: &State, replica: usize) {
        if let Some(holdoff) = self.holds_off(old, replica) {
            let mut state = *old;
            (state.replicas[replica].seen, state.replicas[replica].holdoff) = (0, holdoff);
            self.add(Step::HoldsOff(replica + 1), state);
        }
    }

    /// What a replica does about a pod it has no claim of.
    fn unclaimed(&mut self, old: &State, replica: usize, pod: usize) {
        let (config, me) = (self.config, replica as u8 + 1);
        let own = old.replicas[replica];
        if own.holdoff > 0 || self.holds_off(old, replica).is_some() || old.waits(replica, pod) {
            return;
        }
        let mut after_read = *old;
        after_read.replicas[replica].seen = 0;
        self.acquires(&after_read, replica, pod);
        if canonical::rests(&after_read, replica) {
            after_read.replicas[replica].lag = 1;
            self.acquires(&after_read, replica, pod);
            after_read.replicas[replica].lag = 0;
        }
        if config.handovers && old.rows[pod].fence != 0 {
            let mut state = after_read;
            store::request_handover(config, &mut state.rows[pod], me);
            self.add_if_changed(Step::RequestsHandover(replica + 1, pod + 1), state, old);
        }
    }

    fn acquires(&mut self, after_read: &State, replica: usize, pod: usize) {
        let (config, me) = (self.config, replica as u8 + 1);
        if !store::may_acquire(config, after_read.rows[pod], me) {
            return;
        }
        let step = |delivery| Step::Acquires(replica + 1, pod + 1, delivery);
        let mut state = *after_read;
        if let Some(fence) = acquire(config, &mut state, pod, me) {
            let mut answered = state;
            answered.replicas[replica].claims[pod] = Claim::new(fence, store::good_for(config, 0));
            self.add(step(Delivery::Answered), answered);
            self.answer_lost(&mut state, replica, pod, fence);
            self.add(step(Delivery::AnswerLost), state);
        }
        self.send_late(
            step(Delivery::Late),
            after_read,
            message(MessageKind::AcquireSent, me, pod, 0),
        );
    }

    /// The answer with the claim is lost: the replica knows of none.
    fn answer_lost(&self, state: &mut State, replica: usize, pod: usize, fence: u8) {
        if self.config.defect == Some(Defect::LostAnswerActedOn) {
            state.replicas[replica].claims[pod] = Claim::new(fence, FOR_EVER);
        }
    }

    /// What a replica does about a pod whose claim it has.
    fn claimed(&mut self, old: &State, replica: usize, pod: usize) {
        let (config, me) = (self.config, replica as u8 + 1);
        let (had, row) = (old.replicas[replica].claims[pod], old.rows[pod]);
        if had.leaving || had.left == FOR_EVER {
            let mut state = *old;
            state.replicas[replica].claims[pod] = Claim::default();
            self.add(Step::Drains(replica + 1, pod + 1), state);
            return;
        }
        // The renewer makes one call at a time, and releases nothing during a call.
        if old.waits(replica, pod) {
            return;
        }
        self.renews(old, replica, pod);
        self.releases(
            old,
            replica,
            pod,
            |delivery| Step::Releases(replica + 1, pod + 1, delivery),
            MessageKind::Free,
            0,
        );
        if config.pods_finish && had.left > 0 {
            let step = |delivery| Step::Finishes(replica + 1, pod + 1, delivery);
            self.releases(old, replica, pod, step, MessageKind::Finished, 0);
        }
        if row.owner == me && row.fence == had.fence && row.requested_by != 0 {
            let step = |delivery| Step::HandsOver(replica + 1, pod + 1, delivery);
            self.releases(old, replica, pod, step, MessageKind::Handed, row.requested_by);
            let mut state = *old;
            state.rows[pod].requested_by = 0;
            self.add(Step::DeclinesHandover(replica + 1, pod + 1), state);
        }
    }

    fn renews(&mut self, old: &State, replica: usize, pod: usize) {
        let (me, had) = (replica as u8 + 1, old.replicas[replica].claims[pod]);
        let step = |delivery| Step::Renews(replica + 1, pod + 1, delivery);
        let mut state = *old;
        let held = store::renew(self.config, &mut state.rows[pod], me, had.fence);
        self.add_if_changed(step(Delivery::AnswerLost), state, old);
        self.verdict(&mut state, replica, pod, held, 0);
        self.add_if_changed(step(Delivery::Answered), state, old);
        self.send_late(
            step(Delivery::Late),
            old,
            message(MessageKind::RenewSent, me, pod, had.fence),
        );
    }

    /// The renewer processes the answer to a renewal that was sent `age` ticks ago.
    fn verdict(&self, state: &mut State, replica: usize, pod: usize, held: bool, age: u8) {
        let claim = &mut state.replicas[replica].claims[pod];
        if held {
            claim.left = store::renewed(self.config, claim.left, age);
        } else {
            *claim = Claim::default();
        }
    }

    /// The claim leaves the replica with a release. The replica does not rely on its arrival.
    fn releases(
        &mut self,
        old: &State,
        replica: usize,
        pod: usize,
        step: impl Fn(Delivery) -> Step,
        kind: MessageKind,
        receiver: u8,
    ) {
        let mut without = *old;
        let claim = &mut without.replicas[replica].claims[pod];
        let release = Message {
            receiver,
            ..message(kind, replica as u8 + 1, pod, claim.fence)
        };
        if kind == MessageKind::Handed && self.config.defect == Some(Defect::HandedBeforeDrained) {
            claim.leaving = true;
        } else {
            *claim = Claim::default();
        }
        let mut state = without;
        store::release(self.config, &mut state.rows[pod], release);
        self.add(step(Delivery::Answered), state);
        if kind == MessageKind::Free {
            self.add(step(Delivery::Lost), without);
        }
        self.send_late(step(Delivery::Late), &without, release);
    }

    /// What can happen to a late message.
    fn late(&mut self, old: &State, at: usize) {
        let m = old.net[at];
        let (replica, pod) = (usize::from(m.sender) - 1, usize::from(m.pod));
        let (name, number) = (replica + 1, pod + 1);
        let mut state = *old;
        match m.kind {
            MessageKind::AcquireSent | MessageKind::RenewSent => {
                state.net[at] = self.arrives(&mut state, m);
                if state.net[at].kind == MessageKind::None {
                    state.remove(at);
                }
                self.add(Step::Arrives(m.kind, name, number), state);
                let mut abandoned = *old;
                let kind = if m.kind == MessageKind::AcquireSent {
                    MessageKind::AcquireAbandoned
                } else {
                    MessageKind::RenewAbandoned
                };
                abandoned.net[at] = Message { kind, age: 0, ..m };
                if !self.config.abandoned_statements {
                    abandoned.remove(at);
                }
                self.add(Step::GivenUp(m.kind, name, number), abandoned);
            }
            MessageKind::Acquired | MessageKind::RenewHeld | MessageKind::RenewLost => {
                state.remove(at);
                let mut lost = state;
                if m.kind == MessageKind::Acquired {
                    state.replicas[replica].claims[pod] = Claim::new(m.fence, store::good_for(self.config, m.age));
                    self.answer_lost(&mut lost, replica, pod, m.fence);
                } else {
                    self.verdict(&mut state, replica, pod, m.kind == MessageKind::RenewHeld, m.age);
                }
                self.add(Step::Answers(m.kind, name, number), state);
                self.add(Step::GivenUp(m.kind, name, number), lost);
            }
            _ => self.unawaited(&state, at),
        }
    }

    /// What can happen to a late statement whose sender has given up.
    fn unawaited(&mut self, old: &State, at: usize) {
        let m = old.net[at];
        let (name, number) = (usize::from(m.sender), usize::from(m.pod) + 1);
        let mut state = *old;
        state.remove(at);
        let lost = state;
        match m.kind {
            MessageKind::AcquireAbandoned | MessageKind::RenewAbandoned => {
                self.arrives(&mut state, m);
            }
            _ => store::release(self.config, &mut state.rows[usize::from(m.pod)], m),
        }
        self.add_if_changed(Step::Arrives(m.kind, name, number), state, &lost);
        self.add(Step::Vanishes(m.kind, name, number), lost);
    }

    /// A late statement that acquires or renews arrives. Returns what goes back.
    fn arrives(&self, state: &mut State, sent: Message) -> Message {
        let pod = usize::from(sent.pod);
        let (kind, fence) = match sent.kind {
            MessageKind::AcquireSent | MessageKind::AcquireAbandoned => {
                match acquire(self.config, state, pod, sent.sender) {
                    Some(fence) => (MessageKind::Acquired, fence),
                    // That the row was not acquired changes nothing for anybody.
                    None => return Message::default(),
                }
            }
            _ if store::renew(self.config, &mut state.rows[pod], sent.sender, sent.fence) => {
                (MessageKind::RenewHeld, sent.fence)
            }
            _ => (MessageKind::RenewLost, sent.fence),
        };
        Message { kind, fence, ..sent }
    }

    fn send_late(&mut self, step: Step, old: &State, message: Message) {
        if old.late < self.config.late.min(LATE) && (self.config.abandoned_statements || message.awaited()) {
            let mut state = *old;
            state.send(message);
            self.add(step, state);
        }
    }

    fn add_if_changed(&mut self, step: Step, state: State, old: &State) {
        if state != *old {
            self.add(step, state);
        }
    }
}

/// A request to acquire a row arrives. Returns the fence of the claim.
fn acquire(config: &ModelConfig, state: &mut State, pod: usize, me: u8) -> Option<u8> {
    let done = state.rows[pod].finished;
    let fence = store::acquire(config, &mut state.rows[pod], me)?;
    state.claimed_done |= done;
    Some(fence)
}

fn message(kind: MessageKind, sender: u8, pod: usize, fence: u8) -> Message {
    Message {
        kind,
        sender,
        pod: pod as u8,
        fence,
        ..Message::default()
    }
}
