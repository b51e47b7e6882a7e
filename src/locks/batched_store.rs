//! What all lock stores in databases have in common: they sort what their callers give, split it into batches, and
//! store one batch after another.
//!
//! Nothing here knows a database.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;

use super::batch::{
    BATCH_ROWS, CHECKPOINT_BATCH_ROWS, Keyed, Packed, PackedRow, check_checkpoint, check_name, pack_releases,
    pack_rows, sorted, split,
};
use super::store::LockStore;
use crate::domain::{
    AcquireRequest, AfterRelease, BackendError, Claim, Fence, LockKey, LockTable, Release, Renewal, RenewalOutcome,
};

/// What a statement does with rows of which it is told the key, or the key and the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOperation {
    /// Deletes rows that this replica holds under these fences.
    ReleaseAndDelete,
    /// Requests rows that other replicas hold under these fences.
    RequestHandover,
    /// Declines requests for rows that this replica holds under these fences.
    DeclineHandover,
    /// Deletes finished rows, and those of replicas that are dead for long, whatever their fences.
    DeleteRows,
}

/// A store of claims in one database, for one batch at a time. Batches are sorted by key, and no key occurs twice in a
/// batch to acquire.
#[async_trait]
pub(super) trait BatchStore: Send + Sync + fmt::Debug {
    /// Whether renewals without checkpoints are in batches of their own, with fewer rows.
    const PLAIN_RENEWALS_APART: bool;

    /// Acquires the rows that may be acquired.
    async fn acquire_batch(&self, requests: &[Keyed<'_, AcquireRequest>]) -> Result<Vec<Claim>, BackendError>;

    /// Renews claims. One outcome per renewal, in order.
    async fn renew_batch(&self, renewals: &[Keyed<'_, Renewal>]) -> Result<Vec<RenewalOutcome>, BackendError>;

    /// Releases rows that stay.
    async fn release_batch(&self, releases: &Packed) -> Result<(), BackendError>;

    /// Executes an operation on the rows of a JSON array. Returns how many rows it has changed.
    async fn change_rows(&self, operation: RowOperation, rows: &str) -> Result<u64, BackendError>;

    /// Releases a row whoever holds it. Returns whether there was such a row.
    async fn force_release_row(&self, key: &str) -> Result<bool, BackendError>;

    /// All rows of the cluster.
    async fn read_table(&self) -> Result<LockTable, BackendError>;
}

async fn change_fenced<S: BatchStore>(
    store: &S,
    operation: RowOperation,
    rows: &[(LockKey, Fence)],
) -> Result<(), BackendError> {
    let sorted = sorted(rows, |(key, _)| key)?;
    for batch in split(&sorted, BATCH_ROWS, |_| 0) {
        let rows = pack_rows(batch.iter().map(|(key, (_, fence))| PackedRow::fenced(key, *fence)));
        store.change_rows(operation, &rows).await?;
    }
    Ok(())
}

fn length(checkpoint: Option<&Vec<u8>>) -> usize {
    checkpoint.map_or(0, Vec::len)
}

#[async_trait]
impl<S: BatchStore> LockStore for S {
    async fn acquire(&self, requests: &[AcquireRequest]) -> Result<Vec<Claim>, BackendError> {
        let mut sorted = sorted(requests, |request| &request.key)?;
        sorted.dedup_by(|a, b| a.0 == b.0);
        let mut claims = Vec::new();
        for batch in split(&sorted, BATCH_ROWS, |_| 0) {
            claims.extend(self.acquire_batch(batch).await?);
        }
        Ok(claims)
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError> {
        for renewal in renewals {
            check_checkpoint(&renewal.key, renewal.checkpoint.as_deref())?;
        }
        let (plain, others): (Vec<_>, Vec<_>) = sorted(renewals, |renewal| &renewal.key)?
            .into_iter()
            .partition(|(_, renewal)| S::PLAIN_RENEWALS_APART && renewal.checkpoint.is_none());
        let mut batches = split(&plain, BATCH_ROWS, |_| 0);
        batches.extend(split(&others, CHECKPOINT_BATCH_ROWS, |renewal| {
            length(renewal.checkpoint.as_ref())
        }));
        let mut outcomes = HashMap::with_capacity(renewals.len());
        for batch in batches {
            let keys = batch.iter().map(|(_, renewal)| (&renewal.key, renewal.fence));
            outcomes.extend(keys.zip(self.renew_batch(batch).await?));
        }
        let outcome = |renewal: &Renewal| outcomes.get(&(&renewal.key, renewal.fence)).copied();
        Ok(renewals
            .iter()
            .map(|renewal| outcome(renewal).unwrap_or(RenewalOutcome::Lost))
            .collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), BackendError> {
        for release in releases {
            check_checkpoint(&release.claim.key, release.checkpoint.as_deref())?;
        }
        let (deleted, kept): (Vec<_>, Vec<_>) = sorted(releases, |release| &release.claim.key)?
            .into_iter()
            .partition(|(_, release)| release.after == AfterRelease::Deleted);
        for batch in split(&kept, CHECKPOINT_BATCH_ROWS, |release| {
            length(release.checkpoint.as_ref())
        }) {
            self.release_batch(&pack_releases(batch)).await?;
        }
        for batch in split(&deleted, BATCH_ROWS, |_| 0) {
            let rows = pack_rows(
                batch
                    .iter()
                    .map(|(key, release)| PackedRow::fenced(key, release.claim.fence)),
            );
            self.change_rows(RowOperation::ReleaseAndDelete, &rows).await?;
        }
        Ok(())
    }

    async fn request_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        change_fenced(self, RowOperation::RequestHandover, rows).await
    }

    async fn decline_handover(&self, rows: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        change_fenced(self, RowOperation::DeclineHandover, rows).await
    }

    async fn delete_rows(&self, keys: &[LockKey]) -> Result<u64, BackendError> {
        let sorted = sorted(keys, |key| key)?;
        let mut deleted = 0;
        for batch in split(&sorted, BATCH_ROWS, |_| 0) {
            let rows = pack_rows(batch.iter().map(|(key, _)| PackedRow::key(key)));
            deleted += self.change_rows(RowOperation::DeleteRows, &rows).await?;
        }
        Ok(deleted)
    }

    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        let key = key.to_string();
        check_name("lock key", &key)?;
        self.force_release_row(&key).await
    }

    async fn table(&self) -> Result<LockTable, BackendError> {
        self.read_table().await
    }
}
