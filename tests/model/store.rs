//! The store of the model: the rules of the product, applied to the rows of the model. It has no rules of its own
//! except the deliberate defects.

use std::sync::LazyLock;
use std::time::Duration;

use podlog::domain::claim::Lease;
use podlog::domain::holdoff::HoldOff;
use podlog::domain::{AfterRelease, Deadline, Fence, LockTable, ReplicaId};
use podlog::lab::row::{Hold, fence_after};

use crate::config::{Defect, ModelConfig};
use crate::state::{Message, MessageKind, OFFSETS, Row, UNSEEN};

const TICK: Duration = Duration::from_millis(300);

/// The time that every clock shows: the model keeps remaining times only, never the time of day.
const NOW: Duration = Duration::from_secs(1000);

static NAMES: LazyLock<[ReplicaId; 4]> = LazyLock::new(|| ["", "1", "2", "3"].map(ReplicaId::from));

fn name(replica: u8) -> &'static ReplicaId {
    &NAMES[usize::from(replica)]
}

fn number(name: Option<&ReplicaId>) -> u8 {
    name.map_or(0, |name| name.as_str().as_bytes()[0] - b'0')
}

fn ticks(count: u8) -> Duration {
    TICK * u32::from(count)
}

/// The moment this many ticks from now.
fn at(left: i8) -> Duration {
    let by = ticks(left.unsigned_abs());
    if left < 0 { NOW.saturating_sub(by) } else { NOW + by }
}

/// Ticks from now until the moment.
fn left(moment: Duration) -> i8 {
    let count = |span: Duration| (span.as_millis() / TICK.as_millis()) as i8;
    if moment < NOW {
        -count(NOW.saturating_sub(moment))
    } else {
        count(moment.saturating_sub(NOW))
    }
}

fn hold(row: Row) -> Hold {
    let named = |replica: u8| (replica != 0).then(|| name(replica).clone());
    Hold {
        owner: named(row.owner),
        fence: Fence(u64::from(row.fence)),
        expires_at: at(row.left),
        finished: row.finished,
        requested_by: named(row.requested_by),
    }
}

/// The row as the product left it. The model remembers no more of an expiry than can matter.
fn put(row: &mut Row, hold: &Hold, grace: u8) {
    row.owner = number(hold.owner.as_ref());
    row.requested_by = number(hold.requested_by.as_ref());
    row.fence = hold.fence.0 as u8;
    row.left = if row.owner == 0 {
        -(grace as i8)
    } else {
        left(hold.expires_at)
    };
    row.finished = hold.finished;
}

/// The hold-off of a replica by the offset that it saw last.
pub(crate) struct HoldOffs(Vec<Option<u8>>);

impl HoldOffs {
    pub(crate) fn after(&self, seen: i8) -> Option<u8> {
        self.0[(seen - OFFSETS.start()) as usize]
    }
}

fn lease(config: &ModelConfig) -> Lease {
    let times = config.times;
    Lease {
        ttl: ticks(times.ttl),
        renew: TICK,
        margin: ticks(config.margin()),
        takeover_grace: ticks(config.grace()),
    }
}

/// Whether a replica that reads the table may acquire the row.
pub(crate) fn may_acquire(config: &ModelConfig, row: Row, me: u8) -> bool {
    row.fence == 0 || hold(row).may_be_acquired(name(me), NOW, ticks(config.grace()))
}

/// A request to acquire the row arrives. Returns the fence of the claim.
pub(crate) fn acquire(config: &ModelConfig, row: &mut Row, me: u8) -> Option<u8> {
    if !may_acquire(config, *row, me) {
        return None;
    }
    // The least that a fence may be, as if the clock stood still.
    let fence = fence_after(Fence(u64::from(row.fence)), Duration::ZERO);
    put(
        row,
        &Hold::acquired(name(me), fence, NOW, lease(config).ttl),
        config.grace(),
    );
    Some(row.fence)
}

/// A renewal arrives. Returns whether the claim is held.
pub(crate) fn renew(config: &ModelConfig, row: &mut Row, me: u8, fence: u8) -> bool {
    let mut hold = hold(*row);
    let (who, fence) = taken_for(config, *row, me, fence);
    let renewed = hold.renew(who, fence, NOW, lease(config).ttl);
    if renewed {
        put(row, &hold, config.grace());
    }
    renewed
}

/// The replica and the fence that a statement counts for: the ones it names, except with the defect.
fn taken_for(config: &ModelConfig, row: Row, me: u8, fence: u8) -> (&'static ReplicaId, Fence) {
    let (who, fence) = if config.defect == Some(Defect::NoFenceCheck) {
        (row.owner, row.fence)
    } else {
        (me, fence)
    };
    (name(who), Fence(u64::from(fence)))
}

/// A release arrives.
pub(crate) fn release(config: &ModelConfig, row: &mut Row, message: Message) {
    let mut hold = hold(*row);
    let (who, fence) = taken_for(config, *row, message.sender, message.fence);
    if !hold.is_owned(who, fence) {
        return;
    }
    let next = match message.kind {
        MessageKind::Handed => AfterRelease::HandedOver(name(message.receiver).clone()),
        MessageKind::Finished => AfterRelease::Finished,
        _ => AfterRelease::Free,
    };
    let handed = fence_after(hold.fence, Duration::ZERO);
    hold.release(&next, handed, NOW, lease(config).ttl);
    put(row, &hold, config.grace());
}

/// A request for the row arrives.
pub(crate) fn request_handover(config: &ModelConfig, row: &mut Row, me: u8) {
    let mut hold = hold(*row);
    hold.request_handover(name(me), hold.fence);
    put(row, &hold, config.grace());
}

/// Ticks for which a claim is good that was acquired or renewed by a statement sent `age` ticks ago.
pub(crate) fn good_for(config: &ModelConfig, age: u8) -> u8 {
    let age = if config.defect == Some(Defect::DeadlineAfterReply) {
        0
    } else {
        age
    };
    left(lease(config).deadline(at(-(age as i8)))).max(0) as u8
}

/// What is left of a claim after an answer that it is held: the renewal was sent `age` ticks ago.
pub(crate) fn renewed(config: &ModelConfig, left_now: u8, age: u8) -> u8 {
    let deadline = Deadline::new(at(left_now as i8));
    let until = at(good_for(config, age) as i8);
    if !deadline.renew(NOW, until) {
        deadline.revoke();
    }
    // What is revoked ended long ago.
    left(deadline.get().max(NOW)) as u8
}

/// The product's hold-off for each offset. It is the same in every state, so it is computed once.
pub(crate) fn hold_offs(config: &ModelConfig) -> HoldOffs {
    HoldOffs(OFFSETS.map(|seen| holds_off(config, seen)).collect())
}

/// For how many ticks of its own clock a replica must not claim if it reads the table now and last saw this offset;
/// `None` if the database's clock has not jumped.
fn holds_off(config: &ModelConfig, seen: i8) -> Option<u8> {
    let answer = |offset: i8| LockTable {
        now: at(offset),
        ..LockTable::default()
    };
    let mut holdoff = HoldOff::new(lease(config).ttl);
    if seen != UNSEEN {
        holdoff.observe(&answer(seen), NOW, NOW);
    }
    holdoff.observe(&answer(0), NOW, NOW)?;
    let ends = (0..=u8::MAX).find(|tick| !holdoff.is_active(NOW + ticks(*tick)));
    ends.filter(|_| config.defect != Some(Defect::JumpIgnored))
}
