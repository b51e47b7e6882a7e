//! The rules of a row: who may acquire, renew, release or request it, and what it is afterwards.
//!
//! A reference model: the functions say what the SQL stores do in statements. The store in memory runs them, one contract
//! suite tests all stores alike, and the model checker explores them. Nothing here reads a clock: `now` is always the
//! time of the database.

use std::time::Duration;

use crate::defect::{self, Defect};
use crate::domain::{AfterRelease, Fence, ReplicaId};

/// The part of a row that decides who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who holds it; `None` when free.
    pub owner: Option<ReplicaId>,
    /// The number of its latest claim.
    pub fence: Fence,
    /// When it expires.
    pub expires_at: Duration,
    /// Whether the pod is done with.
    pub finished: bool,
    /// The replica that has requested the row.
    pub requested_by: Option<ReplicaId>,
}

impl Hold {
    /// What a row is once `me` has acquired it under `fence`.
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

    /// Whether `me` may acquire the row: it is free, in the name of `me` (handed to it, or acquired by a
    /// statement whose answer was lost), or has been expired for the grace.
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

    /// Extends the claim of `me` by one ttl from now, never to an earlier time. Answers whether it
    /// is held: under this fence, and unexpired even if nobody else has acquired it.
    #[must_use]
    pub fn renew(&mut self, me: &ReplicaId, fence: Fence, now: Duration, ttl: Duration) -> bool {
        let held = self.is_owned(me, fence) && self.expires_at > now;
        if held {
            self.expires_at = self.expires_at.max(now + ttl);
        }
        held
    }

    /// Releases the row, which its holder may do even after expiry while nobody else has acquired it.
    /// The receiver of a hand-over has the row under the fence `handed`, and one ttl to acquire it.
    pub fn release(&mut self, next: &AfterRelease, handed: Fence, now: Duration, ttl: Duration) {
        (self.owner, self.requested_by, self.expires_at) = (None, None, now);
        match next {
            AfterRelease::Handed(receiver) => {
                (self.owner, self.fence, self.expires_at) = (Some(receiver.clone()), handed, now + ttl);
            }
            AfterRelease::Finished => self.finished = true,
            AfterRelease::Free | AfterRelease::Deleted => {}
        }
    }

    /// Requests the row for `me`, unless it was requested before, the fence is another, or no other replica
    /// has it.
    pub fn request_handover(&mut self, me: &ReplicaId, fence: Fence) {
        let held = self.owner.as_ref().is_some_and(|owner| owner != me);
        if self.fence == fence && !self.finished && self.requested_by.is_none() && held {
            self.requested_by = Some(me.clone());
        }
    }
}

/// The fence that follows `last`: larger than it whatever the clock says, and at least the time in
/// microseconds, so that it is also larger than the fences of rows that are deleted.
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
    fn a_fence_grows_whether_or_not_the_clock_does() {
        assert_eq!(fence_after(Fence(7), Duration::ZERO), Fence(8));
        assert_eq!(fence_after(Fence(7), Duration::from_micros(8)), Fence(8));
        assert_eq!(fence_after(Fence(7), Duration::from_micros(90)), Fence(90));
    }
}
