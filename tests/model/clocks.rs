//! Clocks: that they go on at different rates, that the database's jumps, and that a replica notices. Claims change
//! here by nothing but the time that passes.

use crate::names::Step;
use crate::state::{FOR_EVER, Kind, Message, OFFSETS, Row, State, UNSEEN};
use crate::steps::Steps;
use crate::world::{GRACE, PATIENCE, World};

impl Steps<'_> {
    /// Any clock may go on, and the database's may jump.
    pub(crate) fn clocks(&mut self, old: &State) {
        let (world, replicas) = (self.world, &old.replicas[..self.world.replicas]);
        // The clocks of replicas are at most one tick behind the database's, and never ahead.
        if replicas.iter().all(|replica| replica.lag == 0) {
            let mut state = *old;
            for replica in &mut state.replicas[..world.replicas] {
                replica.lag = 1;
                shift(&mut replica.seen, -1);
            }
            for row in &mut state.rows {
                pass(world, row, 1, old.jumps_left);
            }
            self.add(Step::Database, state);
        }
        for (replica, own) in replicas.iter().enumerate() {
            if own.lag > 0 && !old.messages().iter().any(|message| is_overdue(*message, replica)) {
                let state = ticked(old, replica);
                self.add(Step::Clock(replica + 1), state);
            }
        }
        for by in world.jump_by.iter().filter(|_| old.jumps_left > 0) {
            self.jump(old, *by);
        }
    }

    fn jump(&mut self, old: &State, by: i8) {
        let world = self.world;
        let slack = (world.times.margin + GRACE) as i8;
        let claiming = |message: &Message| matches!(message.kind, Kind::ClaimAsked | Kind::ClaimStray);
        if by > slack && !world.jumps_under_claims && old.messages().iter().any(claiming) {
            return;
        }
        let mut state = *old;
        state.jumps_left -= 1;
        for row in state.rows.iter_mut().filter(|row| row.owner != 0) {
            pass(world, row, by, state.jumps_left);
        }
        for replica in &mut state.replicas[..world.replicas] {
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
fn pass(world: &World, row: &mut Row, by: i8, jumps_left: u8) {
    let back = if row.owner == 0 { 0 } else { world.back(jumps_left) };
    row.left = (row.left - by).max(-(world.grace() as i8) - back);
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
