//! Clocks: that they go on at different rates, that the database's jumps, and that a replica notices. Claims change
//! here by nothing but the time that passes.

use crate::config::{GRACE, ModelConfig, PATIENCE};
use crate::state::{FOR_EVER, Message, MessageKind, OFFSETS, Row, State, UNSEEN};
use crate::step::Step;
use crate::transitions::Transitions;

impl Transitions<'_> {
    /// Any clock may go on, and the database's may jump.
    pub(crate) fn clocks(&mut self, old: &State) {
        let (config, replicas) = (self.config, &old.replicas[..self.config.replicas]);
        // The clocks of replicas are at most one tick behind the database's, and never ahead.
        if replicas.iter().all(|replica| replica.lag == 0) {
            let mut state = *old;
            for replica in &mut state.replicas[..config.replicas] {
                replica.lag = 1;
                shift(&mut replica.seen, -1);
            }
            for row in &mut state.rows {
                pass(config, row, 1, old.jumps_left);
            }
            self.add(Step::Database, state);
        }
        for (replica, own) in replicas.iter().enumerate() {
            if own.lag > 0 && !old.messages().iter().any(|message| is_overdue(*message, replica)) {
                let state = ticked(old, replica);
                self.add(Step::Clock(replica + 1), state);
            }
        }
        for by in config.jump_by.iter().filter(|_| old.jumps_left > 0) {
            self.jump(old, *by);
        }
    }

    fn jump(&mut self, old: &State, by: i8) {
        let config = self.config;
        let slack = (config.times.margin + GRACE) as i8;
        let claiming = |message: &Message| matches!(message.kind, MessageKind::ClaimAsked | MessageKind::ClaimStray);
        if by > slack && !config.jumps_under_claims && old.messages().iter().any(claiming) {
            return;
        }
        let mut state = *old;
        state.jumps_left -= 1;
        for row in state.rows.iter_mut().filter(|row| row.owner != 0) {
            pass(config, row, by, state.jumps_left);
        }
        for replica in &mut state.replicas[..config.replicas] {
            shift(&mut replica.seen, -by);
        }
        self.add(Step::Jump(by), state);
    }

    /// A look that finds something wrong with the clock; one that does not is part of the claim made upon it.
    pub(crate) fn looks(&mut self, old: &State, replica: usize) {
        if let Some(holdoff) = self.holds_off(old, replica) {
            let mut state = *old;
            (state.replicas[replica].seen, state.replicas[replica].holdoff) = (0, holdoff);
            self.add(Step::HoldsOff(replica + 1), state);
        }
    }
}

/// The replica must stop waiting for this before its clock goes on.
fn is_overdue(message: Message, replica: usize) -> bool {
    message.awaited_by(replica) && message.age >= PATIENCE
}

/// The time passes until a row expires, and beyond as long as that can matter: until others may take it, and by as much
/// as the clock may still go back.
fn pass(config: &ModelConfig, row: &mut Row, by: i8, jumps_left: u8) {
    let back = if row.owner == 0 { 0 } else { config.back(jumps_left) };
    row.left = (row.left - by).max(-(config.grace() as i8) - back);
}

/// Moves an offset; what is far off stays far off, since the clocks' own difference is one tick at most.
fn shift(seen: &mut i8, by: i8) {
    if *seen != UNSEEN {
        *seen = (*seen + by).clamp(*OFFSETS.start(), UNSEEN - 1);
    }
}

/// The clock of a replica has ticked.
fn ticked(old: &State, replica: usize) -> State {
    let mut state = *old;
    let own = &mut state.replicas[replica];
    own.lag -= 1;
    shift(&mut own.seen, 1);
    own.holdoff = own.holdoff.saturating_sub(1);
    for claim in own.claims.iter_mut().filter(|claim| claim.left != FOR_EVER) {
        claim.left = claim.left.saturating_sub(1);
    }
    for message in &mut state.net[..old.late] {
        if message.awaited_by(replica) {
            message.age += 1;
        }
    }
    state
}
