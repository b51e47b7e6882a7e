//! The rules of a row in the table of claims: who may acquire, renew, release or request it, and how that changes it.
//!
//! This is the reference model. The SQL stores do the same in statements, and one contract suite tests all stores. The
//! store in memory calls these functions, and the model checker explores them. Nothing here reads a clock: `now` is
//! always the time of the database.

use std::time::Duration;

use crate::defect::{self, Defect};
use crate::domain::{AfterRelease, Fence, ReplicaId};

/// The columns of a row that decide who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The replica that has the row; `None` if it is free.
    pub owner: Option<ReplicaId>,
    /// The number of its latest claim.
    pub fence: Fence,
    /// When it expires.
    pub expires_at: Duration,
    /// Whether the pod is collected completely.
    pub finished: bool,
    /// The replica that has requested the row.
    pub requested_by: Option<ReplicaId>,
}

impl Hold {
    /// A row that `me` has just acquired under `fence`.
    #[must_use]
    pub fn acquired(me: &ReplicaId, fence: Fence, now: Duration, ttl: Duration) -> Self {
        Self {
            owner: Some(me.clone()),
            fence,
            expires_at: now + ttl,
            finished: false,
            requested_by: None,
        }
    }

    /// Whether `me` may acquire the row. It may if the row is free, if it has been expired for the grace, or if it is
    /// in the name of `me` already: because it was handed over, or because the answer to an earlier statement was lost.
    #[must_use]
    pub fn may_be_acquired(&self, me: &ReplicaId, now: Duration, grace: Duration) -> bool {
        let mine = self.owner.as_ref().is_none_or(|owner| owner == me);
        !self.finished && (mine || self.expires_at + grace <= now)
    }

    /// Whether `me` has the row under this fence, expired or not.
    #[must_use]
    pub fn is_owned(&self, me: &ReplicaId, fence: Fence) -> bool {
        self.fence == fence && self.owner.as_ref() == Some(me) || defect::on(Defect::NoFenceCheck)
    }

    /// Extends the claim of `me` to one ttl from now, never to an earlier time. Returns whether `me` still holds the
    /// claim. An expired claim is not held any more, even if no other replica has acquired the row.
    #[must_use]
    pub fn renew(&mut self, me: &ReplicaId, fence: Fence, now: Duration, ttl: Duration) -> bool {
        let held = self.is_owned(me, fence) && self.expires_at > now;
        if held {
            self.expires_at = self.expires_at.max(now + ttl);
        }
        held
    }

    /// Releases the row. Its holder may do that even after expiry, while no other replica has acquired it. The receiver
    /// of a hand-over gets the row under the fence `handed`, and has one ttl to acquire it.
    pub fn release(&mut self, next: &AfterRelease, handed: Fence, now: Duration, ttl: Duration) {
        (self.owner, self.requested_by, self.expires_at) = (None, None, now);
        match next {
            AfterRelease::HandedOver(receiver) => {
                (self.owner, self.fence, self.expires_at) = (Some(receiver.clone()), handed, now + ttl);
            }
            AfterRelease::Finished => self.finished = true,
            AfterRelease::Free | AfterRelease::Deleted => {}
        }
    }

    /// Requests the row for `me`, unless it was requested before, has another fence, or belongs to no other replica.
    pub fn request_handover(&mut self, me: &ReplicaId, fence: Fence) {
        let held = self.owner.as_ref().is_some_and(|owner| owner != me);
        if self.fence == fence && !self.finished && self.requested_by.is_none() && held {
            self.requested_by = Some(me.clone());
        }
    }
}

/// The fence after `last`. It is larger than `last` whatever the clock shows. It is also at least the time in
/// microseconds, so that it is larger than the fences of deleted rows.
#[must_use]
pub fn fence_after(last: Fence, now: Duration) -> Fence {
    if defect::on(Defect::FenceRepeats) {
        return last;
    }
    Fence((last.0 + 1).max(u64::try_from(now.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(20);
    const GRACE: Duration = Duration::from_secs(1);
    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn only_the_owner_may_acquire_a_row_until_it_has_been_expired_for_the_grace() {
        let (me, other) = (ReplicaId::from("me"), ReplicaId::from("other"));
        let row = Hold::acquired(&me, Fence(1), NOW, TTL);
        let acquirable = NOW + TTL + GRACE;
        assert!(row.may_be_acquired(&me, NOW, GRACE));
        assert!(!row.may_be_acquired(&other, acquirable.saturating_sub(Duration::from_nanos(1)), GRACE));
        assert!(row.may_be_acquired(&other, acquirable, GRACE));
    }

    #[test]
    fn a_fence_grows_even_if_the_clock_stands_still() {
        assert_eq!(fence_after(Fence(7), Duration::ZERO), Fence(8));
        assert_eq!(fence_after(Fence(7), Duration::from_micros(8)), Fence(8));
        assert_eq!(fence_after(Fence(7), Duration::from_micros(90)), Fence(90));
    }
}
