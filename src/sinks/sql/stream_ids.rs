//! The ids of streams' rows, remembered from one write to the next.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::domain::StreamId;
use crate::sync::lock;

/// 65,536 streams of about 200 bytes are 13 MB. When there are more, all are forgotten and looked up again.
const CAPACITY: usize = 65_536;

/// The ids of streams' rows. A row may be deleted meanwhile, and after a failover the id may be another stream's:
/// `LockedRow::if_of` finds that out.
#[derive(Debug, Default)]
pub(super) struct StreamIds(Mutex<HashMap<StreamId, i64>>);

impl StreamIds {
    pub(super) fn get(&self, stream: &StreamId) -> Option<i64> {
        lock(&self.0).get(stream).copied()
    }

    pub(super) fn insert(&self, stream: &StreamId, id: i64) {
        let mut ids = lock(&self.0);
        if ids.len() >= CAPACITY {
            ids.clear();
        }
        ids.insert(stream.clone(), id);
    }

    pub(super) fn remove(&self, stream: &StreamId) {
        lock(&self.0).remove(stream);
    }
}
