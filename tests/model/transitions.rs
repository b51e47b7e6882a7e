//! What can happen next: clocks go on, statements are sent, arrive, are answered and get lost. Everything that may
//! happen at a moment is a step of its own, and a replica that is frozen is one that takes none.

use crate::canonical;
use crate::config::{Defect, ModelConfig};
use crate::protocol::{Move, Protocol};
use crate::state::{Claim, FOR_EVER, LATE, Message, MessageKind, State};
use crate::step::{Delivery, Step};
use crate::store::HoldOffs;

/// Gathers the states that can follow one.
pub(crate) struct Transitions<'a> {
    pub(crate) config: &'a ModelConfig,
    holdoffs: &'a HoldOffs,
    pub(crate) found: Vec<Move>,
}

impl<'a> Transitions<'a> {
    pub(crate) fn of(protocol: &'a Protocol) -> Self {
        Self {
            config: &protocol.config,
            holdoffs: &protocol.holdoffs,
            found: Vec::new(),
        }
    }

    /// For how long a replica must not claim after the look that it takes now.
    pub(crate) fn holds_off(&self, state: &State, replica: usize) -> Option<u8> {
        self.holdoffs.after(state.replicas[replica].seen)
    }

    /// All that can follow.
    pub(crate) fn after(&mut self, state: &State) {
        self.clocks(state);
        for replica in 0..self.config.replicas {
            self.looks(state, replica);
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

    pub(crate) fn add(&mut self, step: Step, mut state: State) {
        if self.config.jump_by.is_empty() {
            // Nobody could tell a jump from none.
            state.replicas.iter_mut().for_each(|replica| replica.seen = 0);
        }
        canonical::rest(&mut state);
        canonical::forget(&mut state, self.config);
        if !self.config.strays {
            canonical::learn(&mut state);
        }
        canonical::tidy(&mut state);
        self.found.push((step, state));
    }

    /// What a replica does about a pod it has no claim of.
    fn unclaimed(&mut self, old: &State, replica: usize, pod: usize) {
        let (config, me) = (self.config, replica as u8 + 1);
        let own = old.replicas[replica];
        if own.holdoff > 0 || self.holds_off(old, replica).is_some() || old.waits(replica, pod) {
            return;
        }
        let mut looked = *old;
        looked.replicas[replica].seen = 0;
        self.claims(&looked, replica, pod);
        if canonical::rests(&looked, replica) {
            looked.replicas[replica].lag = 1;
            self.claims(&looked, replica, pod);
            looked.replicas[replica].lag = 0;
        }
        if config.hands && old.rows[pod].fence != 0 {
            let mut state = looked;
            config.ask(&mut state.rows[pod], me);
            self.add_if_changed(Step::Asks(replica + 1, pod + 1), state, old);
        }
    }

    fn claims(&mut self, looked: &State, replica: usize, pod: usize) {
        let (config, me) = (self.config, replica as u8 + 1);
        if !config.may_claim(looked.rows[pod], me) {
            return;
        }
        let step = |delivery| Step::Claims(replica + 1, pod + 1, delivery);
        let mut state = *looked;
        if let Some(fence) = claim(config, &mut state, pod, me) {
            let mut won = state;
            won.replicas[replica].claims[pod] = Claim::new(fence, config.good_for(0));
            self.add(step(Delivery::Answered), won);
            self.answer_lost(&mut state, replica, pod, fence);
            self.add(step(Delivery::AnswerLost), state);
        }
        self.send_late(
            step(Delivery::Late),
            looked,
            message(MessageKind::ClaimAsked, me, pod, 0),
        );
    }

    /// The answer to a claim that was won is lost: the replica knows of none.
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
        // The renewer renews one thing at a time, and hands nothing back meanwhile.
        if old.waits(replica, pod) {
            return;
        }
        self.renews(old, replica, pod);
        self.gives_back(
            old,
            replica,
            pod,
            |delivery| Step::Frees(replica + 1, pod + 1, delivery),
            MessageKind::Free,
            0,
        );
        if config.ends && had.left > 0 {
            let step = |delivery| Step::Finishes(replica + 1, pod + 1, delivery);
            self.gives_back(old, replica, pod, step, MessageKind::Finished, 0);
        }
        if row.owner == me && row.fence == had.fence && row.wanted_by != 0 {
            let step = |delivery| Step::HandsOver(replica + 1, pod + 1, delivery);
            self.gives_back(old, replica, pod, step, MessageKind::Handed, row.wanted_by);
            let mut state = *old;
            state.rows[pod].wanted_by = 0;
            self.add(Step::Refuses(replica + 1, pod + 1), state);
        }
    }

    fn renews(&mut self, old: &State, replica: usize, pod: usize) {
        let (me, had) = (replica as u8 + 1, old.replicas[replica].claims[pod]);
        let step = |delivery| Step::Renews(replica + 1, pod + 1, delivery);
        let mut state = *old;
        let held = self.config.renew(&mut state.rows[pod], me, had.fence);
        self.add_if_changed(step(Delivery::AnswerLost), state, old);
        self.verdict(&mut state, replica, pod, held, 0);
        self.add_if_changed(step(Delivery::Answered), state, old);
        self.send_late(
            step(Delivery::Late),
            old,
            message(MessageKind::RenewAsked, me, pod, had.fence),
        );
    }

    /// The renewer heeds an answer to a renewal that was sent `age` ticks ago.
    fn verdict(&self, state: &mut State, replica: usize, pod: usize, held: bool, age: u8) {
        let claim = &mut state.replicas[replica].claims[pod];
        if held {
            claim.left = self.config.renewed(claim.left, age);
        } else {
            *claim = Claim::default();
        }
    }

    /// The claim leaves the replica with a release. Whether it ever arrives is nothing that the replica builds on.
    fn gives_back(
        &mut self,
        old: &State,
        replica: usize,
        pod: usize,
        step: impl Fn(Delivery) -> Step,
        kind: MessageKind,
        heir: u8,
    ) {
        let mut without = *old;
        let claim = &mut without.replicas[replica].claims[pod];
        let release = Message {
            heir,
            ..message(kind, replica as u8 + 1, pod, claim.fence)
        };
        if kind == MessageKind::Handed && self.config.defect == Some(Defect::HandedBeforeDrained) {
            claim.leaving = true;
        } else {
            *claim = Claim::default();
        }
        let mut state = without;
        self.config.give_back(&mut state.rows[pod], release);
        self.add(step(Delivery::Answered), state);
        if kind == MessageKind::Free {
            self.add(step(Delivery::Lost), without);
        }
        self.send_late(step(Delivery::Late), &without, release);
    }

    /// What becomes of something that is late.
    fn late(&mut self, old: &State, at: usize) {
        let m = old.net[at];
        let (replica, pod) = (usize::from(m.sender) - 1, usize::from(m.pod));
        let (name, number) = (replica + 1, pod + 1);
        let mut state = *old;
        match m.kind {
            MessageKind::ClaimAsked | MessageKind::RenewAsked => {
                state.net[at] = self.arrives(&mut state, m);
                if state.net[at].kind == MessageKind::None {
                    state.remove(at);
                }
                self.add(Step::Arrives(m.kind, name, number), state);
                let mut stray = *old;
                let kind = if m.kind == MessageKind::ClaimAsked {
                    MessageKind::ClaimStray
                } else {
                    MessageKind::RenewStray
                };
                stray.net[at] = Message { kind, age: 0, ..m };
                if !self.config.strays {
                    stray.remove(at);
                }
                self.add(Step::GivenUp(m.kind, name, number), stray);
            }
            MessageKind::ClaimWon | MessageKind::RenewHeld | MessageKind::RenewLost => {
                state.remove(at);
                let mut lost = state;
                if m.kind == MessageKind::ClaimWon {
                    state.replicas[replica].claims[pod] = Claim::new(m.fence, self.config.good_for(m.age));
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

    /// What becomes of a late statement that nobody waits for.
    fn unawaited(&mut self, old: &State, at: usize) {
        let m = old.net[at];
        let (name, number) = (usize::from(m.sender), usize::from(m.pod) + 1);
        let mut state = *old;
        state.remove(at);
        let lost = state;
        match m.kind {
            MessageKind::ClaimStray | MessageKind::RenewStray => {
                self.arrives(&mut state, m);
            }
            _ => self.config.give_back(&mut state.rows[usize::from(m.pod)], m),
        }
        self.add_if_changed(Step::Arrives(m.kind, name, number), state, &lost);
        self.add(Step::Vanishes(m.kind, name, number), lost);
    }

    /// A late statement of claiming or renewing arrives. Answers what goes back.
    fn arrives(&self, state: &mut State, asked: Message) -> Message {
        let pod = usize::from(asked.pod);
        let (kind, fence) = match asked.kind {
            MessageKind::ClaimAsked | MessageKind::ClaimStray => match claim(self.config, state, pod, asked.sender) {
                Some(fence) => (MessageKind::ClaimWon, fence),
                // That it was not won changes nothing for anybody.
                None => return Message::default(),
            },
            _ if self.config.renew(&mut state.rows[pod], asked.sender, asked.fence) => {
                (MessageKind::RenewHeld, asked.fence)
            }
            _ => (MessageKind::RenewLost, asked.fence),
        };
        Message { kind, fence, ..asked }
    }

    fn send_late(&mut self, step: Step, old: &State, message: Message) {
        if old.late < self.config.late.min(LATE) && (self.config.strays || message.awaited()) {
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

/// A claim arrives. Answers the fence when it wins.
fn claim(config: &ModelConfig, state: &mut State, pod: usize, me: u8) -> Option<u8> {
    let done = state.rows[pod].finished;
    let fence = config.claim(&mut state.rows[pod], me)?;
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
