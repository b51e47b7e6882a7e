//! What a pod task gets of its claim: the fence, the deadline, and a signal when the claim is lost. By the deadline a holder
//! decides that its own claim has expired; for all others the lock store decides it (`locks/*/statements.rs`).
//!
//! The claim itself stays with its owner; nothing here can renew or release it.

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::{Deadline, Fence};

/// The permission to act under a claim while the claim lasts. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The number of the claim.
    pub fence: Fence,
    /// The boot-clock time until which the task may act.
    pub deadline: Deadline,
    /// Cancelled as soon as the store says that the claim is lost.
    pub revoked: CancellationToken,
    /// The clock of the deadline.
    pub clock: Clock,
}

impl Grant {
    /// A grant under `fence` until `deadline`, unless it is revoked.
    #[must_use]
    pub fn new(fence: Fence, deadline: Deadline, clock: Clock) -> Self {
        Self {
            fence,
            deadline,
            revoked: CancellationToken::new(),
            clock,
        }
    }

    /// Ends the grant at once.
    pub fn revoke(&self) {
        self.deadline.revoke();
        self.revoked.cancel();
    }

    /// Waits until the task must not act any more: the claim is lost, or could not be renewed in time.
    pub async fn lost(&self) {
        let passed = async {
            while self.clock.now() < self.deadline.get() {
                self.clock.sleep_until(self.deadline.get()).await;
            }
        };
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => {}
            () = passed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_grant_ends_at_its_deadline_unless_the_deadline_was_extended() {
        let clock = Clock::tokio();
        let started = clock.now();
        let grant = Grant::new(Fence(1), Deadline::new(started + Duration::from_secs(15)), clock);
        let extend = async {
            clock.sleep_until(started + Duration::from_secs(14)).await;
            grant.deadline.extend(started + Duration::from_secs(40));
        };
        tokio::join!(extend, grant.lost());
        assert_eq!(clock.now().checked_sub(started).unwrap(), Duration::from_secs(40));
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_grant_ends_at_once() {
        let clock = Clock::tokio();
        let grant = Grant::new(Fence(1), Deadline::new(clock.now() + Duration::from_hours(1)), clock);
        let started = clock.now();
        tokio::join!(grant.lost(), async { grant.revoke() });
        assert_eq!(clock.now(), started);
    }
}
