//! How the state changes when a clock ticks or jumps. The clocks of replicas run at different rates, and the database's
//! clock may jump. Claims change here only because time passes.

use crate::config::{ANSWER_TIMEOUT, GRACE, ModelConfig};
use crate::state::{FOR_EVER, Message, MessageKind, OFFSETS, Row, State, UNSEEN};

/// The database's clock ticks; every replica's clock is one tick behind it then.
pub(crate) fn database_ticked(config: &ModelConfig, old: &State) -> State {
    let mut state = *old;
    for replica in &mut state.replicas[..config.replicas] {
        replica.lag = 1;
        shift(&mut replica.seen, -1);
    }
    for row in &mut state.rows {
        pass(config, row, 1, old.jumps_left);
    }
    state
}

/// The database's clock jumps, if it may.
pub(crate) fn database_jumped(config: &ModelConfig, old: &State, by: i8) -> Option<State> {
    let slack = (config.times.margin + GRACE) as i8;
    let acquires = |message: &Message| matches!(message.kind, MessageKind::AcquireSent | MessageKind::AcquireAbandoned);
    let under_a_claim = by > slack && !config.jumps_under_claims && old.messages().iter().any(acquires);
    if old.jumps_left == 0 || under_a_claim {
        return None;
    }
    let mut state = *old;
    state.jumps_left -= 1;
    for row in state.rows.iter_mut().filter(|row| row.owner != 0) {
        pass(config, row, by, state.jumps_left);
    }
    for replica in &mut state.replicas[..config.replicas] {
        shift(&mut replica.seen, -by);
    }
    Some(state)
}

/// Whether the replica has waited for an answer for as long as it may: it must stop waiting before its clock ticks
/// again.
pub(crate) fn must_stop_waiting(state: &State, replica: usize) -> bool {
    let overdue = |message: &Message| message.awaited_by(replica) && message.age >= ANSWER_TIMEOUT;
    state.messages().iter().any(overdue)
}

/// Moves a row's expiry nearer by this many ticks. Below zero it counts only as far as it can matter: until others may
/// take the row, and by as much as the clock may still jump back.
fn pass(config: &ModelConfig, row: &mut Row, by: i8, jumps_left: u8) {
    let back = if row.owner == 0 { 0 } else { config.back(jumps_left) };
    row.left = (row.left - by).max(-(config.grace() as i8) - back);
}

/// Changes an offset. It is clamped: clocks differ by one tick at most, so a large offset stays a jump.
fn shift(seen: &mut i8, by: i8) {
    if *seen != UNSEEN {
        *seen = (*seen + by).clamp(*OFFSETS.start(), UNSEEN - 1);
    }
}

/// The clock of a replica ticks.
pub(crate) fn replica_ticked(old: &State, replica: usize) -> State {
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
