//! Which lines may be stored again in a sink that does not fence.
//!
//! A line is stored again only under another claim, and only if no checkpoint had been stored under the claim before since
//! its write was answered. So each claim repeats at most the lines that were written after the last checkpoint of the
//! claim before: those of ttl - margin. This file decides nothing else, and it never reads a clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lease::LEASE;
use crate::domain::{Chunk, Fence, LockKey, StreamId};
use crate::sync::lock;

/// What is known of the lines and the claims of a fleet. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Repeats(Arc<Mutex<RepeatState>>);

#[derive(Debug, Default)]
struct RepeatState {
    /// The latest write of each line.
    writes: BTreeMap<StreamId, HashMap<Vec<u8>, LineWrite>>,
    /// For each claim, when the latest request was sent that stored the checkpoint. At first, when the claim was requested.
    saved: BTreeMap<(LockKey, Fence), Duration>,
}

/// The latest write of a line.
#[derive(Clone, Copy, Debug)]
struct LineWrite {
    fence: Fence,
    /// When it was answered; `None` if it was not.
    answered: Option<Duration>,
}

impl Repeats {
    /// A claim was acquired by a request sent at this time.
    pub(super) fn acquired(&self, key: &LockKey, fence: Fence, sent: Duration) {
        lock(&self.0).saved.insert((key.clone(), fence), sent);
    }

    /// A renewal or a release that was sent at this time has stored the checkpoint of a claim. After the deadline of the
    /// claim this means nothing: its task has ended, and may have ended before a write was answered.
    pub(super) fn saved(&self, key: &LockKey, fence: Fence, sent: Duration) {
        if let Some(saved) = lock(&self.0).saved.get_mut(&(key.clone(), fence))
            && sent < LEASE.deadline(*saved)
        {
            *saved = sent;
        }
    }

    /// The lines of a chunk are stored. Says which of them must not have been stored again.
    pub(super) fn stored(&self, chunk: &Chunk) -> Option<String> {
        let mut state = lock(&self.0);
        let RepeatState { writes, saved } = &mut *state;
        let id = &chunk.origin.stream;
        let key = LockKey::Pod(id.uid.clone());
        let lines = writes.entry(id.clone()).or_default();
        let mut first = None;
        for line in &chunk.lines {
            let message = chunk.message(line);
            let write = LineWrite {
                fence: chunk.fence,
                answered: None,
            };
            let Some(LineWrite { fence, answered }) = lines.insert(message.to_vec(), write) else {
                continue;
            };
            let checkpoint = saved.get(&(key.clone(), fence)).copied();
            let has_checkpoint = answered.is_some_and(|answered| checkpoint > Some(answered));
            if fence == chunk.fence || has_checkpoint {
                let text = String::from_utf8_lossy(message).into_owned();
                first.get_or_insert_with(|| {
                    format!(
                        "{text:.40} of {id:?} came again under {}; it was stored under {fence} at {answered:?}, the checkpoint at {checkpoint:?}",
                        chunk.fence
                    )
                });
            }
        }
        first
    }

    /// The write of a chunk was answered at this time.
    pub(super) fn answered(&self, chunk: &Chunk, now: Duration) {
        let mut state = lock(&self.0);
        let Some(lines) = state.writes.get_mut(&chunk.origin.stream) else {
            return;
        };
        for line in &chunk.lines {
            if let Some(write) = lines.get_mut(chunk.message(line))
                && write.fence == chunk.fence
            {
                write.answered = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Deadline, Line, Origin, Time};

    fn chunk(fence: u64) -> Chunk {
        let stream = StreamId {
            uid: "u".into(),
            container: "c".into(),
            container_id: "x".into(),
        };
        let origin = Origin {
            stream,
            namespace: "n".into(),
            pod: "p".into(),
            node: None,
            restart_count: 0,
            labels: BTreeMap::new(),
        };
        let line = Line {
            time: Time(1),
            ordinal: 0,
            start: 0,
            len: 1,
            cut: 0,
        };
        Chunk {
            origin: Arc::new(origin),
            fence: Fence(fence),
            deadline: Deadline::new(Duration::MAX),
            gap: None,
            text: b"a".to_vec(),
            lines: vec![line],
            begin: None,
            end: None,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A line that was stored under fence 1, and when that was answered.
    fn stored(answered: Option<u64>) -> (Repeats, LockKey) {
        let (repeats, key) = (Repeats::default(), LockKey::Pod("u".into()));
        repeats.acquired(&key, Fence(1), seconds(100));
        assert_eq!(repeats.stored(&chunk(1)), None);
        if let Some(answered) = answered {
            repeats.answered(&chunk(1), seconds(answered));
        }
        (repeats, key)
    }

    #[test]
    fn a_line_may_come_again_unless_its_checkpoint_was_stored() {
        let (repeats, key) = stored(Some(104));
        repeats.saved(&key, Fence(1), seconds(103));
        assert_eq!(repeats.stored(&chunk(2)), None);
        let (repeats, key) = stored(Some(104));
        repeats.saved(&key, Fence(1), seconds(105));
        assert!(repeats.stored(&chunk(2)).is_some());
        // The deadline of the claim has passed.
        let (repeats, key) = stored(Some(104));
        repeats.saved(&key, Fence(1), seconds(115));
        assert_eq!(repeats.stored(&chunk(2)), None);
    }

    #[test]
    fn a_line_never_comes_again_under_its_claim() {
        for answered in [None, Some(104)] {
            let (repeats, _) = stored(answered);
            assert!(repeats.stored(&chunk(1)).is_some());
        }
    }

    #[test]
    fn a_line_whose_write_was_not_answered_may_come_again_under_another_claim() {
        let (repeats, key) = stored(None);
        repeats.saved(&key, Fence(1), seconds(105));
        assert_eq!(repeats.stored(&chunk(2)), None);
    }
}
