//! How far a stream has been stored, and how far a pod has.
//!
//! A position names the last stored line by content, not by offset: the log API offers no
//! offsets, and timestamps are neither unique nor monotonic.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::ContainerId;
use super::time::Time;

/// A place in a stream: the last line that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The line's timestamp.
    #[serde(rename = "t")]
    pub time: Time,
    /// How many lines of the stream with the same timestamp came before it.
    #[serde(rename = "n")]
    pub ordinal: u32,
    /// The hash of its beginning; see [`Position::hash`].
    #[serde(rename = "h")]
    pub hash: u64,
}

/// Bytes of a line that its hash covers: enough to tell lines apart, and below every line cap,
/// so that changing the cap does not change the hash.
pub const HASHED: usize = 4096;

impl Position {
    /// The hash by which a line is recognised when it is read again.
    #[must_use]
    pub fn hash(message: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&message[..message.len().min(HASHED)])
    }
}

/// How far one container has been stored: the instance and the place in its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The instance.
    #[serde(rename = "i")]
    pub container_id: ContainerId,
    /// How many instances came before it. All of those are done with.
    #[serde(rename = "r")]
    pub restart: u32,
    /// When it started, as the API says; `None` when that is not known, or was stored by an older version.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// The last stored line; `None` when there is none yet.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Whether the stream has been read to its end.
    #[serde(rename = "f", default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

/// How far a pod has been stored, as its row in `distributed_lock` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// One mark per container, by name. Earlier instances are finished or given up as a gap.
    #[serde(rename = "c", default)]
    pub containers: BTreeMap<Arc<str>, Mark>,
}

/// What can be wrong with a stored checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("the stored checkpoint cannot be read: {0}; it was written by an incompatible version or changed by hand")]
pub struct BadCheckpoint(#[from] serde_json::Error);

impl Checkpoint {
    /// The form that is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Maps with string keys and plain fields always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the stored form; nothing stored is the empty checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCheckpoint> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The streams that were begun and not read to their end, by container.
    pub fn unfinished(&self) -> impl Iterator<Item = (&Arc<str>, &Mark)> {
        self.containers.iter().filter(|(_, mark)| !mark.finished)
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
        let mark = Mark {
            container_id: "abc".into(),
            restart: 2,
            started: Some(Time(7)),
            position: Some(position),
            finished: true,
        };
        let checkpoint = Checkpoint {
            containers: [("app".into(), mark)].into(),
        };
        assert_eq!(Checkpoint::decode(&checkpoint.encode()).unwrap(), checkpoint);
        assert_eq!(Checkpoint::decode(b"").unwrap(), Checkpoint::default());
    }

    #[test]
    fn a_checkpoint_of_an_older_or_a_newer_version_is_read() {
        let old = Checkpoint::decode(br#"{"c":{"app":{"i":"abc","r":2}}}"#).unwrap();
        let new = Checkpoint::decode(br#"{"c":{"app":{"i":"abc","r":2,"new":[1]}},"new":{}}"#).unwrap();
        assert_eq!(old, new);
        assert_eq!(old.containers["app"].started, None);
    }

    #[test]
    fn a_checkpoint_that_makes_no_sense_is_refused_and_not_taken_for_an_empty_one() {
        assert!(Checkpoint::decode(b"{\"c\":7}").is_err());
    }
}
