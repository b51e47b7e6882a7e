//! Batches: what one statement is given, sorted, split and packed.
//!
//! Rows are sorted by the bytes of their keys, because statements that lock rows in the same order cannot deadlock each
//! other. Nothing here talks to a store.

use serde::Serialize;

use super::store::STATE_FINISHED;
use crate::domain::{AcquireRequest, AfterRelease, BackendError, Fence, LockKey, Release, Renewal};

/// Rows per statement. A row is named in about 70 bytes, so 200 rows fit into one TLS record (16 KiB). sqlx writes each
/// record by itself with Nagle's algorithm on: a statement of three records waits 42 ms for the server's delayed
/// acknowledgement, many times as long as the work takes.
pub const BATCH_ROWS: usize = 200;

/// Rows per statement that stores checkpoints. It has many TLS records even with few rows, so each waits: large
/// statements are few.
pub(super) const CHECKPOINT_BATCH_ROWS: usize = 500;

/// The largest checkpoint, in bytes. The progress of a container takes about 150 bytes, so thirty containers need 5 KiB.
/// 1 MiB leaves room for two hundred times as many.
pub(super) const CHECKPOINT_BYTES: usize = 1 << 20;

/// Bytes of checkpoints per statement: a quarter of the smallest default packet limit (16 MiB, `MariaDB`).
const BATCH_BYTES: usize = 4 << 20;

/// The longest key, owner or cluster name, in bytes: the width of the columns.
pub(super) const NAME_BYTES: usize = 255;

/// An item with its key as the store has it.
pub(super) type Keyed<'a, T> = (String, &'a T);

/// The items with their keys, sorted by the bytes of the keys.
pub(super) fn sorted<T>(items: &[T], key: impl Fn(&T) -> &LockKey) -> Result<Vec<Keyed<'_, T>>, BackendError> {
    let mut sorted = Vec::with_capacity(items.len());
    for item in items {
        let text = key(item).to_string();
        check_name("lock key", &text)?;
        sorted.push((text, item));
    }
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(sorted)
}

/// Splits sorted items into batches of at most `rows` rows and about [`BATCH_BYTES`] bytes.
pub(super) fn split<'a, 'b, T>(
    items: &'b [Keyed<'a, T>],
    rows: usize,
    bytes: impl Fn(&T) -> usize,
) -> Vec<&'b [Keyed<'a, T>]> {
    let (mut batches, mut from, mut sum) = (Vec::new(), 0, 0);
    for (index, (_, item)) in items.iter().enumerate() {
        let size = bytes(item);
        if index - from == rows || (index > from && sum + size > BATCH_BYTES) {
            batches.push(&items[from..index]);
            (from, sum) = (index, 0);
        }
        sum += size;
    }
    if from < items.len() {
        batches.push(&items[from..]);
    }
    batches
}

/// Refuses names that do not fit their column.
pub(crate) fn check_name(what: &str, text: &str) -> Result<(), BackendError> {
    if text.is_empty() || text.len() > NAME_BYTES {
        return Err(BackendError::refused(
            format!(
                "the {what} {text:?} has {} bytes, which is not between 1 and {NAME_BYTES}",
                text.len()
            ),
            "choose another name",
        ));
    }
    Ok(())
}

/// Refuses checkpoints that are too large to store.
pub(crate) fn check_checkpoint(key: &LockKey, checkpoint: Option<&[u8]>) -> Result<(), BackendError> {
    match checkpoint {
        Some(bytes) if bytes.len() > CHECKPOINT_BYTES => Err(BackendError::refused(
            format!(
                "the checkpoint of {key} has {} bytes, more than the {CHECKPOINT_BYTES} that fit",
                bytes.len()
            ),
            "leave containers of the pod out; it has too many to be collected",
        )),
        _ => Ok(()),
    }
}

/// One row of a packed batch. The names in JSON are short: they travel with every row.
#[derive(Serialize, Default)]
pub(super) struct PackedRow<'a> {
    #[serde(rename = "k")]
    key: &'a str,
    /// The fence that the row must have.
    #[serde(rename = "f", skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    /// Where its checkpoint begins in [`Packed::blob`], counted from 1 as SQL does.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
    /// The length of its checkpoint; absent when it stays as it is.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    length: Option<usize>,
    #[serde(rename = "ns", skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(rename = "n", skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The replica that the row is handed to.
    #[serde(rename = "o", skip_serializing_if = "Option::is_none")]
    receiver: Option<&'a str>,
    /// Its new state.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    state: Option<u8>,
}

impl<'a> PackedRow<'a> {
    /// A row named by its key alone.
    pub(super) fn key(key: &'a str) -> Self {
        Self { key, ..Self::default() }
    }

    /// A row that must have this fence.
    pub(super) fn fenced(key: &'a str, fence: Fence) -> Self {
        Self {
            fence: Some(fence.0),
            ..Self::key(key)
        }
    }

    /// A row to acquire, which must have this fence if one is given.
    pub(super) fn acquired(key: &'a str, request: &'a AcquireRequest, fence: Option<u64>) -> Self {
        Self {
            fence,
            namespace: Some(truncated(&request.pod_ref.namespace)),
            pod: Some(truncated(&request.pod_ref.pod)),
            node: Some(truncated(&request.pod_ref.node)),
            ..Self::key(key)
        }
    }

    /// A row to release.
    fn released(key: &'a str, release: &'a Release) -> Self {
        let (receiver, state) = match &release.after {
            AfterRelease::HandedOver(receiver) => (Some(receiver.as_str()), None),
            AfterRelease::Finished => (None, Some(STATE_FINISHED)),
            AfterRelease::Free | AfterRelease::Deleted => (None, None),
        };
        Self {
            receiver,
            state,
            ..Self::fenced(key, release.claim.fence)
        }
    }
}

/// A batch as two parameters, whatever its size, so that each statement has one text: a JSON array
/// of rows, and all checkpoints end to end, because bytes in JSON would have to be encoded.
#[derive(Default)]
pub(super) struct Packed {
    /// The rows as a JSON array.
    pub(super) rows: String,
    /// The checkpoints, end to end.
    pub(super) blob: Vec<u8>,
}

/// Packs renewals with their checkpoints.
pub(super) fn pack_renewals<'a>(renewals: impl IntoIterator<Item = &'a Keyed<'a, Renewal>>) -> Packed {
    let row = |(key, renewal): &'a Keyed<'a, Renewal>| {
        let row = PackedRow::fenced(key, renewal.fence);
        (row, renewal.checkpoint.as_deref())
    };
    pack(renewals.into_iter().map(row))
}

/// Packs releases with their checkpoints.
pub(super) fn pack_releases<'a>(releases: &'a [Keyed<'a, Release>]) -> Packed {
    let row = |(key, release): &'a Keyed<'a, Release>| {
        let row = PackedRow::released(key, release);
        (row, release.checkpoint.as_deref())
    };
    pack(releases.iter().map(row))
}

/// Packs rows without checkpoints.
pub(super) fn pack_rows<'a>(rows: impl IntoIterator<Item = PackedRow<'a>>) -> String {
    pack(rows.into_iter().map(|row| (row, None))).rows
}

/// Packs rows and their checkpoints.
fn pack<'a>(rows: impl IntoIterator<Item = (PackedRow<'a>, Option<&'a [u8]>)>) -> Packed {
    let (mut packed, mut all) = (Packed::default(), Vec::new());
    for (mut row, checkpoint) in rows {
        if let Some(bytes) = checkpoint {
            row.offset = Some(packed.blob.len() + 1);
            row.length = Some(bytes.len());
            packed.blob.extend_from_slice(bytes);
        }
        all.push(row);
    }
    // Plain structs of strings and numbers always serialise.
    packed.rows = serde_json::to_string(&all).unwrap_or_default();
    packed
}

/// Text for people, cut to what its column takes: 255 characters.
fn truncated(text: &str) -> &str {
    text.char_indices()
        .nth(NAME_BYTES)
        .map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: usize) -> Vec<LockKey> {
        (0..n).map(|i| LockKey::Pod(format!("{i:05}").into())).collect()
    }

    #[test]
    fn keys_are_sorted_by_their_bytes_and_not_by_their_kind() {
        let keys = [
            LockKey::Replica("a".into()),
            LockKey::Pod("b".into()),
            LockKey::Duty("c".into()),
        ];
        let order: Vec<_> = sorted(&keys, |key| key)
            .unwrap()
            .into_iter()
            .map(|(text, _)| text)
            .collect();
        assert_eq!(order, ["duty/c", "pod/b", "replica/a"]);
    }

    #[test]
    fn batches_are_cut_by_rows_and_by_bytes_and_lose_nothing() {
        let keys = keys(1201);
        let items = sorted(&keys, |key| key).unwrap();
        let sizes = |bytes: usize| {
            split(&items, CHECKPOINT_BATCH_ROWS, |_| bytes)
                .iter()
                .map(|batch| batch.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(0), [500, 500, 201]);
        assert_eq!(sizes(BATCH_BYTES / 400).iter().sum::<usize>(), 1201);
        assert_eq!(sizes(BATCH_BYTES / 400)[0], 400);
        assert_eq!(sizes(BATCH_BYTES + 1).len(), 1201);
        assert!(split::<LockKey>(&[], BATCH_ROWS, |_| 0).is_empty());
    }

    #[test]
    fn a_checkpoint_is_found_at_the_place_its_row_names() {
        let packed = pack([
            (PackedRow::key("a"), Some(&b"one"[..])),
            (PackedRow::key("b"), None),
            (PackedRow::key("c"), Some(&b""[..])),
            (PackedRow::key("d"), Some(&b"two"[..])),
        ]);
        assert_eq!(packed.blob, b"onetwo");
        assert_eq!(
            packed.rows,
            r#"[{"k":"a","a":1,"l":3},{"k":"b"},{"k":"c","a":4,"l":0},{"k":"d","a":4,"l":3}]"#
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let long = [LockKey::Pod("x".repeat(252).into())];
        assert!(sorted(&long, |key| key).unwrap_err().to_string().contains("256 bytes"));
        let error = check_checkpoint(&long[0], Some(&vec![0; CHECKPOINT_BYTES + 1])).unwrap_err();
        assert!(error.to_string().contains("1048577"), "{error}");
        assert_eq!(truncated(&"ä".repeat(300)).chars().count(), 255);
    }
}
