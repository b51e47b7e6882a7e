//! How far a stream, a container and a pod are stored.
//!
//! Values and their stored form. Nothing here moves a position, and nothing reads or writes a store. A position names
//! the last stored line by its content, because the log API has no offsets, and timestamps repeat and go backwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::ContainerId;
use super::time::Time;

/// How far a stream is stored: its last stored line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The line's timestamp.
    #[serde(rename = "t")]
    pub time: Time,
    /// Number of lines with the same timestamp that come before it in the stream.
    #[serde(rename = "n")]
    pub ordinal: u32,
    /// Hash of its beginning; see [`Position::hash`].
    #[serde(rename = "h")]
    pub hash: u64,
}

/// Number of bytes of a line that its hash covers. Enough to tell lines apart, and below every limit for the length of
/// lines, so that another limit does not change the hash.
pub const HASHED: usize = 4096;

impl Position {
    /// The hash by which a line is found when it is read again.
    #[must_use]
    pub fn hash(message: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&message[..message.len().min(HASHED)])
    }
}

/// How far one container is stored: the instance and the position in its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerProgress {
    /// The instance.
    #[serde(rename = "i")]
    pub container_id: ContainerId,
    /// Number of instances before it. They are stored, or reported as gaps.
    #[serde(rename = "r")]
    pub restart_count: u32,
    /// When it started, as the API says; `None` when this is not known or was stored by an older version.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// The last stored line; `None` when there is none yet.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Whether the stream is stored to its end.
    #[serde(rename = "f", default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

/// How far a pod is stored. Kept in its row in `distributed_lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The progress of each container, by name.
    #[serde(rename = "c", default)]
    pub containers: BTreeMap<Arc<str>, ContainerProgress>,
}

/// A stored checkpoint that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("the stored checkpoint cannot be read: {0}; it was written by an incompatible version or changed by hand")]
pub struct BadCheckpoint(#[from] serde_json::Error);

impl Checkpoint {
    /// The form that is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Maps with string keys and plain fields can always be serialised.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Decodes the stored form. No bytes are the empty checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCheckpoint> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The containers whose stream was begun and is not stored to its end.
    pub fn unfinished(&self) -> impl Iterator<Item = (&Arc<str>, &ContainerProgress)> {
        self.containers.iter().filter(|(_, progress)| !progress.finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let position = Position {
            time: Time(-5),
            ordinal: 3,
            hash: u64::MAX,
        };
        let progress = ContainerProgress {
            container_id: "abc".into(),
            restart_count: 2,
            started: Some(Time(7)),
            position: Some(position),
            finished: true,
        };
        let checkpoint = Checkpoint {
            containers: [("app".into(), progress)].into(),
        };
        assert_eq!(Checkpoint::decode(&checkpoint.encode()).unwrap(), checkpoint);
        assert_eq!(Checkpoint::decode(b"").unwrap(), Checkpoint::default());
    }

    #[test]
    fn a_checkpoint_of_an_older_or_newer_version_is_read() {
        let old = Checkpoint::decode(br#"{"c":{"app":{"i":"abc","r":2}}}"#).unwrap();
        let new = Checkpoint::decode(br#"{"c":{"app":{"i":"abc","r":2,"new":[1]}},"new":{}}"#).unwrap();
        assert_eq!(old, new);
        assert_eq!(old.containers["app"].started, None);
    }

    #[test]
    fn an_invalid_checkpoint_is_refused_and_does_not_count_as_empty() {
        assert!(Checkpoint::decode(b"{\"c\":7}").is_err());
    }
}
