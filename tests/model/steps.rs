//! What can happen next: clocks go on, statements are sent, arrive, are answered and get lost. Everything that may
//! happen at a moment is a step of its own, and a replica that is frozen is one that takes none.

use crate::canon;
use crate::names::{Fate, Step};
use crate::protocol::{Move, Protocol};
use crate::state::{Claim, FOR_EVER, Kind, LATE, Message, State};
use crate::store::HoldOffs;
use crate::world::{Defect, World};

/// Gathers the states that can follow one.
pub(crate) struct Steps<'a> {
    pub(crate) world: &'a World,
    holdoffs: &'a HoldOffs,
    pub(crate) found: Vec<Move>,
}

impl<'a> Steps<'a> {
    pub(crate) fn of(protocol: &'a Protocol) -> Self {
        Self {
            world: &protocol.world,
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
        for replica in 0..self.world.replicas {
            self.looks(state, replica);
            for pod in 0..self.world.pods {
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
        if self.world.jump_by.is_empty() {
            // Nobody could tell a jump from none.
            state.replicas.iter_mut().for_each(|replica| replica.seen = 0);
        }
        canon::rest(&mut state);
        canon::forget(&mut state, self.world);
        if !self.world.strays {
            canon::learn(&mut state);
        }
        canon::tidy(&mut state);
        self.found.push((step, state));
    }

    /// What a replica does about a pod it has no claim of.
    fn unclaimed(&mut self, old: &State, replica: usize, pod: usize) {
        let (world, me) = (self.world, replica as u8 + 1);
        let own = old.replicas[replica];
        if own.holdoff > 0 || self.holds_off(old, replica).is_some() || old.waits(replica, pod) {
            return;
        }
        let mut looked = *old;
        looked.replicas[replica].seen = 0;
        self.claims(&looked, replica, pod);
        if canon::rests(&looked, replica) {
            looked.replicas[replica].lag = 1;
            self.claims(&looked, replica, pod);
            looked.replicas[replica].lag = 0;
        }
        if world.hands && old.rows[pod].fence != 0 {
            let mut state = looked;
            world.ask(&mut state.rows[pod], me);
            self.add_if_changed(Step::Asks(replica + 1, pod + 1), state, old);
        }
    }

    fn claims(&mut self, looked: &State, replica: usize, pod: usize) {
        let (world, me) = (self.world, replica as u8 + 1);
        if !world.may_claim(looked.rows[pod], me) {
            return;
        }
        let step = |fate| Step::Claims(replica + 1, pod + 1, fate);
        let mut state = *looked;
        if let Some(fence) = claim(world, &mut state, pod, me) {
            let mut won = state;
            won.replicas[replica].claims[pod] = Claim::new(fence, world.good_for(0));
            self.add(step(Fate::Answered), won);
            self.answer_lost(&mut state, replica, pod, fence);
            self.add(step(Fate::AnswerLost), state);
        }
        self.send_late(step(Fate::Late), looked, message(Kind::ClaimAsked, me, pod, 0));
    }

    /// The answer to a claim that was won is lost: the replica knows of none.
    fn answer_lost(&self, state: &mut State, replica: usize, pod: usize, fence: u8) {
        if self.world.defect == Some(Defect::LostAnswerActedOn) {
            state.replicas[replica].claims[pod] = Claim::new(fence, FOR_EVER);
        }
    }

    /// What a replica does about a pod whose claim it has.
    fn claimed(&mut self, old: &State, replica: usize, pod: usize) {
        let (world, me) = (self.world, replica as u8 + 1);
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
            |fate| Step::Frees(replica + 1, pod + 1, fate),
            Kind::Free,
            0,
        );
        if world.ends && had.left > 0 {
            let step = |fate| Step::Finishes(replica + 1, pod + 1, fate);
            self.gives_back(old, replica, pod, step, Kind::Finished, 0);
        }
        if row.owner == me && row.fence == had.fence && row.wanted_by != 0 {
            let step = |fate| Step::HandsOver(replica + 1, pod + 1, fate);
            self.gives_back(old, replica, pod, step, Kind::Handed, row.wanted_by);
            let mut state = *old;
            state.rows[pod].wanted_by = 0;
            self.add(Step::Refuses(replica + 1, pod + 1), state);
        }
    }

    fn renews(&mut self, old: &State, replica: usize, pod: usize) {
        let (me, had) = (replica as u8 + 1, old.replicas[replica].claims[pod]);
        let step = |fate| Step::Renews(replica + 1, pod + 1, fate);
        let mut state = *old;
        let held = self.world.renew(&mut state.rows[pod], me, had.fence);
        self.add_if_changed(step(Fate::AnswerLost), state, old);
        self.verdict(&mut state, replica, pod, held, 0);
        self.add_if_changed(step(Fate::Answered), state, old);
        self.send_late(step(Fate::Late), old, message(Kind::RenewAsked, me, pod, had.fence));
    }

    /// The renewer heeds an answer to a renewal that was sent `age` ticks ago.
    fn verdict(&self, state: &mut State, replica: usize, pod: usize, held: bool, age: u8) {
        let claim = &mut state.replicas[replica].claims[pod];
        if held {
            claim.left = self.world.renewed(claim.left, age);
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
        step: impl Fn(Fate) -> Step,
        kind: Kind,
        heir: u8,
    ) {
        let mut without = *old;
        let claim = &mut without.replicas[replica].claims[pod];
        let release = Message {
            heir,
            ..message(kind, replica as u8 + 1, pod, claim.fence)
        };
        if kind == Kind::Handed && self.world.defect == Some(Defect::HandedBeforeDrained) {
            claim.leaving = true;
        } else {
            *claim = Claim::default();
        }
        let mut state = without;
        self.world.give_back(&mut state.rows[pod], release);
        self.add(step(Fate::Answered), state);
        if kind == Kind::Free {
            self.add(step(Fate::Lost), without);
        }
        self.send_late(step(Fate::Late), &without, release);
    }

    /// What becomes of something that is late.
    fn late(&mut self, old: &State, at: usize) {
        let m = old.net[at];
        let (replica, pod) = (usize::from(m.sender) - 1, usize::from(m.pod));
        let (name, number) = (replica + 1, pod + 1);
        let mut state = *old;
        match m.kind {
            Kind::ClaimAsked | Kind::RenewAsked => {
                state.net[at] = self.arrives(&mut state, m);
                if state.net[at].kind == Kind::None {
                    state.remove(at);
                }
                self.add(Step::Arrives(m.kind, name, number), state);
                let mut stray = *old;
                let kind = if m.kind == Kind::ClaimAsked {
                    Kind::ClaimStray
                } else {
                    Kind::RenewStray
                };
                stray.net[at] = Message { kind, age: 0, ..m };
                if !self.world.strays {
                    stray.remove(at);
                }
                self.add(Step::GivenUp(m.kind, name, number), stray);
            }
            Kind::ClaimWon | Kind::RenewHeld | Kind::RenewLost => {
                state.remove(at);
                let mut lost = state;
                if m.kind == Kind::ClaimWon {
                    state.replicas[replica].claims[pod] = Claim::new(m.fence, self.world.good_for(m.age));
                    self.answer_lost(&mut lost, replica, pod, m.fence);
                } else {
                    self.verdict(&mut state, replica, pod, m.kind == Kind::RenewHeld, m.age);
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
            Kind::ClaimStray | Kind::RenewStray => {
                self.arrives(&mut state, m);
            }
            _ => self.world.give_back(&mut state.rows[usize::from(m.pod)], m),
        }
        self.add_if_changed(Step::Arrives(m.kind, name, number), state, &lost);
        self.add(Step::Vanishes(m.kind, name, number), lost);
    }

    /// A late statement of claiming or renewing arrives. Answers what goes back.
    fn arrives(&self, state: &mut State, asked: Message) -> Message {
        let pod = usize::from(asked.pod);
        let (kind, fence) = match asked.kind {
            Kind::ClaimAsked | Kind::ClaimStray => match claim(self.world, state, pod, asked.sender) {
                Some(fence) => (Kind::ClaimWon, fence),
                // That it was not won changes nothing for anybody.
                None => return Message::default(),
            },
            _ if self.world.renew(&mut state.rows[pod], asked.sender, asked.fence) => (Kind::RenewHeld, asked.fence),
            _ => (Kind::RenewLost, asked.fence),
        };
        Message { kind, fence, ..asked }
    }

    fn send_late(&mut self, step: Step, old: &State, message: Message) {
        if old.late < self.world.late.min(LATE) && (self.world.strays || message.awaited()) {
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
fn claim(world: &World, state: &mut State, pod: usize, me: u8) -> Option<u8> {
    let done = state.rows[pod].finished;
    let fence = world.claim(&mut state.rows[pod], me)?;
    state.claimed_done |= done;
    Some(fence)
}

fn message(kind: Kind, sender: u8, pod: usize, fence: u8) -> Message {
    Message {
        kind,
        sender,
        pod: pod as u8,
        fence,
        ..Message::default()
    }
}
