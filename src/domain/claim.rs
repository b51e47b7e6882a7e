//! The right to collect a pod: what is asked of a lock store and what it answers.
//!
//! A [`Claim`] cannot be cloned, and releasing consumes it, so the compiler prevents that a released claim is used. All
//! arithmetic on deadlines is here; it reads no clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::id::{Fence, LockKey, PodUid, ReplicaId};
use super::pods::Pod;
use super::time::nanos;

/// Namespace, name and node of the pod: for people who read the table, and to look the pod up by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRef {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The node, when known.
    pub node: Arc<str>,
}

impl PodRef {
    /// The reference to a pod.
    #[must_use]
    pub fn from_pod(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            node: pod.node.clone().unwrap_or_default(),
        }
    }
}

/// A request to acquire a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcquireRequest {
    /// The row.
    pub key: LockKey,
    /// Namespace, name and node of the pod.
    pub pod_ref: PodRef,
}

/// The proof that this replica holds a row. Releasing consumes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// The row.
    pub key: LockKey,
    /// The number of this claim.
    pub fence: Fence,
    /// The number of the claim before it, 0 if there was none. No replica held the row in between.
    pub previous: Fence,
    /// The stored checkpoint, empty when there is none.
    pub checkpoint: Vec<u8>,
}

/// A request to extend a claim, with the checkpoint to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The row.
    pub key: LockKey,
    /// The number of the claim.
    pub fence: Fence,
    /// The checkpoint, if it has moved since it was stored.
    pub checkpoint: Option<Vec<u8>>,
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// The row is held and was extended.
    Held,
    /// The row has expired, is deleted, or has another holder.
    Lost,
    /// The row is held and was not extended, because another transaction locks it.
    Busy,
}

/// A request to release a claim.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// The claim.
    pub claim: Claim,
    /// The final checkpoint, if it has moved since it was stored.
    pub checkpoint: Option<Vec<u8>>,
    /// What becomes of the row.
    pub after: AfterRelease,
}

/// What becomes of a row when its claim is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterRelease {
    /// Any replica may acquire it.
    Free,
    /// Only this replica, which has requested the row, may acquire it until one ttl has passed.
    HandedOver(ReplicaId),
    /// The pod is collected to its end and the row cannot be acquired. It stays until all replicas have learned that the
    /// pod is deleted.
    Finished,
    /// The row is deleted. For rows that no replica would acquire again by mistake.
    Deleted,
}

/// One row, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRow {
    /// Who holds it; `None` when free.
    pub owner: Option<ReplicaId>,
    /// The number of its latest claim.
    pub fence: Fence,
    /// Time until it expires, by the database's clock; negative if it has expired.
    pub expires_in: SignedMillis,
    /// Whether the pod is collected to its end.
    pub finished: bool,
    /// The replica that has requested the row.
    pub requested_by: Option<ReplicaId>,
    /// Namespace, name and node of the pod.
    pub pod_ref: PodRef,
    /// The stored checkpoint's length in bytes; the checkpoint itself comes with a claim.
    pub checkpoint_len: u32,
}

/// The owner of a row that was released by hand. It stays until the claim would have expired, because the holder may act
/// until then. The names of replicas contain a `#`, so no replica has this name.
pub const FORCE_RELEASED: &str = "freed-by-hand";

impl LockRow {
    /// Whether the row was released by hand and its former holder may still act.
    #[must_use]
    pub fn is_force_released(&self) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| owner.as_str() == FORCE_RELEASED)
    }
}

/// Milliseconds, negative for the past.
pub type SignedMillis = i64;

/// All rows of this cluster, read by one statement: the input of planning, of `locks list` and of the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockTable {
    /// The rows by key.
    pub rows: BTreeMap<LockKey, LockRow>,
    /// The database's clock when it answered, since the epoch.
    pub now: Duration,
    /// The identity of the server that answered; it changes at a failover.
    pub server: Arc<str>,
}

impl LockTable {
    /// The row of a pod.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> Option<&LockRow> {
        self.rows.get(&LockKey::Pod(uid.clone()))
    }

    /// The live replicas: those whose own row has not expired. A replica that stops releases its own row first, so that
    /// its peers do not count on it any more.
    pub fn live_replicas(&self) -> impl Iterator<Item = &ReplicaId> {
        self.rows.iter().filter_map(|(key, row)| match key {
            LockKey::Replica(id) if row.expires_in > 0 => Some(id),
            _ => None,
        })
    }
}

/// The time until which the holder of a claim may act, by the holder's own clock. Everything that acts under the claim
/// shares it; only a renewal moves it later.
#[derive(Clone, Debug)]
pub struct Deadline(Arc<AtomicU64>);

impl Deadline {
    /// A deadline at this time of the holder's clock.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self(Arc::new(AtomicU64::new(nanos(deadline))))
    }

    /// The deadline now.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Acquire))
    }

    /// Moves the deadline later, never earlier, and not at all after [`revoke`](Self::revoke).
    pub fn extend(&self, deadline: Duration) {
        let later = nanos(deadline);
        // A revoked deadline is 0 and stays 0, whatever answer comes later.
        let step = |now| (now != 0 && later > now).then_some(later);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).ok();
    }

    /// Moves the deadline after a renewal that was accepted. Returns false if the deadline had passed by `now`: a claim
    /// that has ended is not used again.
    #[must_use]
    pub fn renew(&self, now: Duration, deadline: Duration) -> bool {
        let in_time = now < self.get();
        if in_time {
            self.extend(deadline);
        }
        in_time
    }

    /// Ends the claim at once, because it is lost.
    pub fn revoke(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Whether work that takes at most `duration` may begin at `now`.
    #[must_use]
    pub fn allows(&self, now: Duration, duration: Duration) -> bool {
        now + duration <= self.get()
    }
}

/// The times that make claims safe. `config/checks.rs` checks them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How long a claim lasts in the database without renewal.
    pub ttl: Duration,
    /// How often claims are renewed.
    pub renew: Duration,
    /// How long before its expiry the holder stops acting on a claim.
    pub margin: Duration,
    /// How long after its expiry a claim may be acquired by others.
    pub takeover_grace: Duration,
}

impl Lease {
    /// The deadline of a claim that was acquired or renewed by a statement sent at `sent`. `sent` is read before the
    /// statement is sent, so the row expires in the database later than this.
    #[must_use]
    pub fn deadline(&self, sent: Duration) -> Duration {
        sent + self.ttl.saturating_sub(self.margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_only_moves_later_and_never_after_the_claim_is_lost() {
        let deadline = Deadline::new(Duration::from_secs(10));
        deadline.extend(Duration::from_secs(5));
        assert_eq!(deadline.get(), Duration::from_secs(10));
        deadline.extend(Duration::from_secs(15));
        assert!(deadline.allows(Duration::from_secs(13), Duration::from_secs(2)));
        assert!(!deadline.allows(Duration::from_secs(13), Duration::from_secs(3)));
        deadline.revoke();
        deadline.extend(Duration::from_secs(30));
        assert!(!deadline.allows(Duration::ZERO, Duration::from_nanos(1)));
    }
}
