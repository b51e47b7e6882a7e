//! A lock store in memory, for tests and simulations. It is the shortest implementation of [`LockStore`].
//!
//! Several holders share one table. The table is never shared between processes, and it reads only the clock that it is
//! given.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::row::{Hold, fence_after};
use crate::clock::Clock;
use crate::domain::claim::FORCE_RELEASED;
use crate::domain::{
    AcquireRequest, AfterRelease, BackendError, Claim, Fence, LockKey, LockRow, LockTable, PodRef, Release, Renewal,
    RenewalOutcome,
};
use crate::locks::batch::{check_checkpoint, check_name};
use crate::locks::{DEAD_REPLICA_TTL, Holder, LockStore};
use crate::sync::lock;

/// A table that any number of holders share.
#[derive(Clone)]
pub struct MemoryTable {
    clock: Clock,
    state: Arc<Mutex<TableState>>,
}

#[derive(Default)]
struct TableState {
    rows: BTreeMap<(String, LockKey), StoredRow>,
    /// The largest fence so far, so that no fence repeats even if the clock stands still.
    top: Fence,
    /// How far the table's clock was moved, in milliseconds.
    skew: i64,
}

struct StoredRow {
    hold: Hold,
    pod_ref: PodRef,
    checkpoint: Vec<u8>,
}

impl TableState {
    /// A fence that is larger than all fences before, and at least the time in microseconds.
    fn next_fence(&mut self, now: Duration) -> Fence {
        self.top = fence_after(self.top, now);
        self.top
    }
}

impl MemoryTable {
    /// An empty table with this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    /// A store that acts on this table on behalf of `holder`.
    #[must_use]
    pub fn holder(&self, holder: Holder) -> MemoryLocks {
        MemoryLocks {
            table: self.clone(),
            holder,
        }
    }

    /// The checkpoint in the row of a pod; empty if there is none.
    #[must_use]
    pub fn checkpoint(&self, key: &LockKey) -> Vec<u8> {
        let state = lock(&self.state);
        let mut rows = state.rows.iter();
        let row = rows.find(|((_, of), _)| of == key);
        row.map_or_else(Vec::new, |(_, row)| row.checkpoint.clone())
    }

    /// Moves the table's clock by this many milliseconds, like a failover to a server with another clock.
    pub fn skew(&self, millis: i64) {
        lock(&self.state).skew += millis;
    }

    fn now(&self) -> Duration {
        let (skew, now) = (lock(&self.state).skew, self.clock.now());
        let by = Duration::from_millis(skew.unsigned_abs());
        if skew < 0 { now.saturating_sub(by) } else { now + by }
    }
}

impl fmt::Debug for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTable").finish_non_exhaustive()
    }
}

/// The lock store of one holder on a [`MemoryTable`].
#[derive(Clone, Debug)]
pub struct MemoryLocks {
    table: MemoryTable,
    holder: Holder,
}

impl MemoryLocks {
    fn id(&self, key: &LockKey) -> (String, LockKey) {
        (self.holder.cluster.clone(), key.clone())
    }

    fn acquire_one(&self, state: &mut TableState, request: &AcquireRequest, now: Duration) -> Option<Claim> {
        let id = self.id(&request.key);
        let old = state.rows.get(&id);
        let Holder {
            replica,
            takeover_grace,
            ..
        } = &self.holder;
        if !old.is_none_or(|row| row.hold.may_be_acquired(replica, now, *takeover_grace)) {
            return None;
        }
        let previous = old.map_or(Fence(0), |row| row.hold.fence);
        let checkpoint = old.map_or_else(Vec::new, |row| row.checkpoint.clone());
        let fence = state.next_fence(now);
        let row = StoredRow {
            hold: Hold::acquired(&self.holder.replica, fence, now, self.holder.ttl),
            pod_ref: request.pod_ref.clone(),
            checkpoint: checkpoint.clone(),
        };
        state.rows.insert(id, row);
        Some(Claim {
            key: request.key.clone(),
            fence,
            previous,
            checkpoint,
        })
    }

    fn release_one(&self, state: &mut TableState, release: &Release, now: Duration) {
        let id = self.id(&release.claim.key);
        let fence = state.next_fence(now);
        let owned = |row: &&mut StoredRow| row.hold.is_owned(&self.holder.replica, release.claim.fence);
        let Some(row) = state.rows.get_mut(&id).filter(owned) else {
            return;
        };
        if let Some(checkpoint) = &release.checkpoint {
            row.checkpoint.clone_from(checkpoint);
        }
        row.hold.release(&release.after, fence, now, self.holder.ttl);
        if release.after == AfterRelease::Deleted {
            state.rows.remove(&id);
        }
    }
}

#[async_trait]
impl LockStore for MemoryLocks {
    async fn acquire(&self, requests: &[AcquireRequest]) -> Result<Vec<Claim>, BackendError> {
        for request in requests {
            check_name("lock key", &request.key.to_string())?;
        }
        let (now, mut state) = (self.table.now(), lock(&self.table.state));
        let unique: BTreeMap<_, _> = requests.iter().map(|request| (&request.key, request)).collect();
        Ok(unique
            .values()
            .filter_map(|request| self.acquire_one(&mut state, request, now))
            .collect())
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError> {
        for renewal in renewals {
            check_checkpoint(&renewal.key, renewal.checkpoint.as_deref())?;
        }
        let (now, mut state) = (self.table.now(), lock(&self.table.state));
        let renew = |renewal: &Renewal| {
            let Holder { replica, ttl, .. } = &self.holder;
            let row = state.rows.get_mut(&self.id(&renewal.key));
            let held = row.and_then(|row| row.hold.renew(replica, renewal.fence, now, *ttl).then_some(row));
            let Some(row) = held else {
                return RenewalOutcome::Lost;
            };
            if let Some(checkpoint) = &renewal.checkpoint {
                row.checkpoint.clone_from(checkpoint);
            }
            RenewalOutcome::Held
        };
        Ok(renewals.iter().map(renew).collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), BackendError> {
        for release in releases {
            check_checkpoint(&release.claim.key, release.checkpoint.as_deref())?;
        }
        let (now, mut state) = (self.table.now(), lock(&self.table.state));
        for release in releases {
            self.release_one(&mut state, release, now);
        }
        Ok(())
    }

    async fn request_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        let mut state = lock(&self.table.state);
        for (key, fence) in rows {
            if let Some(row) = state.rows.get_mut(&self.id(key)) {
                row.hold.request_handover(&self.holder.replica, *fence);
            }
        }
        Ok(())
    }

    async fn decline_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        let mut state = lock(&self.table.state);
        for (key, fence) in rows {
            let owned = |row: &&mut StoredRow| row.hold.is_owned(&self.holder.replica, *fence);
            if let Some(row) = state.rows.get_mut(&self.id(key)).filter(owned) {
                row.hold.requested_by = None;
            }
        }
        Ok(())
    }

    async fn delete_rows(&self, keys: &[LockKey]) -> Result<u64, BackendError> {
        let (now, mut state) = (self.table.now(), lock(&self.table.state));
        let before = state.rows.len();
        for key in keys {
            let id = self.id(key);
            let dead =
                |row: &StoredRow| matches!(key, LockKey::Replica(_)) && row.hold.expires_at + DEAD_REPLICA_TTL <= now;
            if state.rows.get(&id).is_some_and(|row| row.hold.finished || dead(row)) {
                state.rows.remove(&id);
            }
        }
        Ok((before - state.rows.len()) as u64)
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let (now, mut state) = (self.table.now(), lock(&self.table.state));
        let fence = state.next_fence(now);
        let Some(row) = state.rows.get_mut(&self.id(key)) else {
            return Ok(false);
        };
        let hold = &mut row.hold;
        let owner = hold.owner.take().map(|_| FORCE_RELEASED.into());
        (hold.owner, hold.fence, hold.requested_by) = (owner, fence, None);
        Ok(true)
    }

    async fn table(&self) -> Result<LockTable, BackendError> {
        let (now, state) = (self.table.now(), lock(&self.table.state));
        let mine = state
            .rows
            .iter()
            .filter(|((cluster, _), _)| *cluster == self.holder.cluster);
        let rows = mine.map(|((_, key), row)| {
            let seen = LockRow {
                owner: row.hold.owner.clone(),
                fence: row.hold.fence,
                expires_in: row.hold.expires_at.as_millis() as i64 - now.as_millis() as i64,
                finished: row.hold.finished,
                requested_by: row.hold.requested_by.clone(),
                pod_ref: row.pod_ref.clone(),
                checkpoint_len: row.checkpoint.len() as u32,
            };
            (key.clone(), seen)
        });
        Ok(LockTable {
            rows: rows.collect(),
            now,
            server: "memory".into(),
        })
    }
}
