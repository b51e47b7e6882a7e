//! Pods that have left the set: what was known of them last, for as long as somebody may still have to report that
//! they were not read to their end.
//!
//! Only memory. It asks nobody what became of a pod; `gc` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{LockKey, LockTable, Pod, PodSet, PodUid};

/// Pods remembered at most. While the table cannot be read none is forgotten: with 5 KB a pod, 50 MB.
const MOST: usize = 10_000;

/// The pods that have left.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// The latest complete set.
    set: Arc<PodSet>,
    pods: BTreeMap<PodUid, Left>,
}

#[derive(Debug)]
struct Left {
    pod: Arc<Pod>,
    row: Row,
}

/// What the table has shown of a pod since it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// It has not been read yet.
    Unknown,
    /// No row, since then.
    None { since: Duration },
    /// A row; whoever finishes and forgets it has seen to the pod.
    Some,
}

impl Departed {
    /// Takes in a complete set. Answers how many that have left there was no room for.
    pub(super) fn on_pods_changed(&mut self, set: &Arc<PodSet>) -> usize {
        let before = std::mem::replace(&mut self.set, set.clone());
        self.pods.retain(|uid, _| !set.pods.contains_key(uid));
        let gone = before.pods.iter().filter(|(uid, _)| !set.pods.contains_key(*uid));
        let mut left_out = 0;
        for (uid, pod) in gone.filter(|(_, pod)| pod.has_log()) {
            if self.pods.len() >= MOST {
                left_out += 1;
                continue;
            }
            let left = Left {
                pod: pod.clone(),
                row: Row::Unknown,
            };
            self.pods.insert(uid.clone(), left);
        }
        left_out
    }

    /// The table was read at `now`. A pod is forgotten when its row is finished or has been deleted, or when for
    /// `patience` none has been made.
    pub(super) fn compare(&mut self, table: &LockTable, now: Duration, patience: Duration) {
        self.pods.retain(|uid, left| {
            let row = table.rows.get(&LockKey::Pod(uid.clone()));
            let was = left.row;
            left.row = match (row, was) {
                (Some(_), _) | (None, Row::Some) => Row::Some,
                (None, Row::None { since }) => Row::None { since },
                (None, Row::Unknown) => Row::None { since: now },
            };
            match (row, left.row) {
                (Some(row), _) => !row.finished,
                (None, Row::None { since }) => now < since + patience,
                (None, _) => false,
            }
        });
    }

    /// Those of which the table has no row: nobody has ever claimed them.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let unclaimed = |left: &&Left| matches!(left.row, Row::None { .. });
        self.pods.values().filter(unclaimed).map(|left| &left.pod)
    }

    /// A pod as it was known last, now gone.
    pub(super) fn gone(&self, uid: &PodUid) -> Option<Pod> {
        let pod = Pod::clone(&self.pods.get(uid)?.pod);
        Some(Pod { gone: true, ..pod })
    }

    /// A pod that is not gone: it has only ceased to be wanted.
    pub(super) fn forget(&mut self, uid: &PodUid) {
        self.pods.remove(uid);
    }
}
