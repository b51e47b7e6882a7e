//! Reduces states that differ in nothing that matters to one state: fences become ranks, replicas and pods lose their
//! names, messages lose their order, messages that will certainly be refused are dropped, and clocks on which nothing
//! depends are reset. The reduced state can do to a claim whatever each of them can do. Only [`learn`] removes steps:
//! those that could only be refused, and only in configurations without abandoned statements.

use crate::config::{Defect, ModelConfig};
use crate::state::{LATE, MessageKind, PODS, REPLICAS, State};
use crate::store;

/// Numbers the fences of each pod by rank, and sorts what is late. Fences are only ever compared, and the next one
/// is drawn after the largest, which is the row's.
pub(crate) fn tidy(state: &mut State) {
    for pod in 0..PODS {
        if state.rows[pod].fence != 0 {
            rank(state, pod);
        }
    }
    state.sort();
}

fn rank(state: &mut State, pod: usize) {
    let mut used = 0_u32;
    let row = &state.rows[pod];
    used |= 1 << row.fence;
    for replica in &state.replicas {
        used |= 1 << replica.claims[pod].fence;
    }
    for message in state.messages() {
        if usize::from(message.pod) == pod {
            used |= 1 << message.fence;
        }
    }
    used &= !1;
    // Already 1, 2, 3 ...
    if used & (used + 2) == 0 {
        return;
    }
    let rank = |fence: u8| {
        if fence == 0 {
            0
        } else {
            (used & ((2 << fence) - 1)).count_ones() as u8
        }
    };
    state.rows[pod].fence = rank(state.rows[pod].fence);
    for replica in &mut state.replicas {
        replica.claims[pod].fence = rank(replica.claims[pod].fence);
    }
    for message in &mut state.net[..state.late] {
        if usize::from(message.pod) == pod {
            message.fence = rank(message.fence);
        }
    }
}

/// Renames pods and replicas so that states which differ by names only become one. Names that still tie are left as
/// they are, which may keep two such states apart and is never wrong.
pub(crate) fn rename(state: &mut State, replicas: usize, pods: usize) {
    if pods == 2 && pod_key(state, 0) > pod_key(state, 1) {
        swap_pods(state);
    }
    let keys: [u64; REPLICAS] = std::array::from_fn(|replica| replica_key(state, replica, pods));
    let mut order: [usize; REPLICAS] = [0, 1, 2];
    order[..replicas].sort_by_key(|replica| keys[*replica]);
    if order == [0, 1, 2] {
        return;
    }
    let mut name = [0_u8; REPLICAS + 1];
    for (new, old) in order.iter().enumerate() {
        name[old + 1] = new as u8 + 1;
    }
    let old = state.replicas;
    for (new, from) in order.iter().enumerate() {
        state.replicas[new] = old[*from];
    }
    for row in &mut state.rows {
        (row.owner, row.requested_by) = (name[usize::from(row.owner)], name[usize::from(row.requested_by)]);
    }
    for message in &mut state.net[..state.late] {
        (message.sender, message.receiver) = (name[usize::from(message.sender)], name[usize::from(message.receiver)]);
    }
    state.sort();
}

fn swap_pods(state: &mut State) {
    state.rows.swap(0, 1);
    for replica in &mut state.replicas {
        replica.claims.swap(0, 1);
    }
    for message in &mut state.net[..state.late] {
        message.pod = 1 - message.pod;
    }
    state.sort();
}

/// A key of a pod that does not depend on names.
fn pod_key(state: &State, pod: usize) -> u64 {
    let row = &state.rows[pod];
    let asked = u64::from(row.owner != 0) | u64::from(row.requested_by != 0) << 1 | u64::from(row.finished) << 2;
    let mut key = asked | ((row.left + 8) as u64) << 3 | u64::from(row.fence) << 8;
    let mut sum = 0;
    for replica in &state.replicas {
        let claim = replica.claims[pod];
        sum += u64::from(claim.left) + 16 * u64::from(claim.fence);
    }
    key |= sum << 16;
    for message in state.messages() {
        if usize::from(message.pod) == pod {
            key += (1 + message.kind as u64) << 32;
        }
    }
    key
}

/// A key of a replica that does not depend on names.
fn replica_key(state: &State, replica: usize, pods: usize) -> u64 {
    let (own, name) = (&state.replicas[replica], replica as u8 + 1);
    let mut key = u64::from(own.lag) | ((own.seen + 3) as u64) << 2 | u64::from(own.holdoff) << 5;
    for (row, claim) in state.rows[..pods].iter().zip(&own.claims) {
        let part = u64::from(claim.fence) | u64::from(claim.left) << 4 | u64::from(claim.leaving) << 7;
        key = key << 10 | part | u64::from(row.owner == name) << 8 | u64::from(row.requested_by == name) << 9;
    }
    for (at, message) in state.messages().iter().enumerate() {
        if message.sender == name {
            key += (1 + (message.pack() >> 2)) << 32;
        }
        if message.receiver == name {
            key += (1 + at as u64) << 28;
        }
    }
    key
}

/// Drops late statements that can have no effect, whenever they arrive: their fence is not the row's fence and never
/// will be again. The product's own rules decide that they are refused.
pub(crate) fn forget(state: &mut State, config: &ModelConfig) {
    // If fences are not checked, a statement that is refused now may be accepted later.
    if config.defect == Some(Defect::NoFenceCheck) {
        return;
    }
    let mut at = 0;
    while at < state.late {
        let message = state.net[at];
        let row = state.rows[usize::from(message.pod)];
        let idle = row.fence != message.fence || row.owner != message.sender;
        // Expired, and no jump of the clock makes it last again.
        let over = row.left + config.back(state.jumps_left) <= 0;
        let gone = match message.kind {
            MessageKind::RenewAbandoned => {
                (idle || over) && !store::renew(config, &mut { row }, message.sender, message.fence)
            }
            MessageKind::Free | MessageKind::Handed | MessageKind::Finished => {
                idle && {
                    let mut after = row;
                    store::release(config, &mut after, message);
                    after == row
                }
            }
            MessageKind::AcquireAbandoned => row.finished && !store::may_acquire(config, row, message.sender),
            _ => false,
        };
        if gone {
            state.remove(at);
        } else {
            at += 1;
        }
    }
    debug_assert!(state.late <= LATE);
}

/// Whether nothing of a replica depends on its clock.
pub(crate) fn rests(state: &State, replica: usize) -> bool {
    let own = &state.replicas[replica];
    // What was seen matters until the last jump is noticed.
    let knows = state.jumps_left == 0 && own.seen.abs() <= 1 && own.holdoff == 0;
    knows && (0..PODS).all(|pod| own.claims[pod].left == 0 && !state.waits(replica, pod))
}

/// Resets the lag of a replica's clock if nothing depends on that clock: a replica that starts something chooses its
/// lag again. This also drops an offset that is too small to be a jump, which could only cause a needless hold-off.
pub(crate) fn rest(state: &mut State) {
    for replica in 0..REPLICAS {
        if rests(state, replica) {
            state.replicas[replica].seen = 0;
            state.replicas[replica].lag = 0;
        }
    }
}

/// Lets each replica know at once that it has lost a claim on which it no longer acts. Under such a claim it could
/// only be refused, so those steps are left out. A replica that does not know yet does not claim the pod; one that
/// knows may claim it or not.
pub(crate) fn learn(state: &mut State) {
    for replica in 0..REPLICAS {
        for pod in 0..PODS {
            let (row, claim) = (state.rows[pod], state.replicas[replica].claims[pod]);
            let lost = row.fence != claim.fence || usize::from(row.owner) != replica + 1;
            if claim.fence != 0 && claim.left == 0 && lost && !state.waits(replica, pod) {
                state.replicas[replica].claims[pod].fence = 0;
            }
        }
    }
}
