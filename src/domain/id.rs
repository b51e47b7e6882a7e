//! The names of things: pods, containers, replicas, streams and lock rows.
//!
//! Only immutable identity is used as identity: a pod is its UID, a container instance is its
//! runtime ID. Names that people read travel beside these, never instead of them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The UID of one pod incarnation. A pod re-created under the same name has another one.
    PodUid
);
name!(
    /// One running `podlog run`; unique per process start.
    ReplicaId
);
name!(
    /// The runtime's ID of one container instance, without its scheme (`containerd://`).
    ContainerId
);

impl ContainerId {
    /// The first twelve characters: enough to tell the instances of one container apart.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// The number of a claim. It grows whenever the holder of a row changes and never repeats for a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The log of one container instance of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The pod incarnation.
    pub uid: PodUid,
    /// The container's name in the pod.
    pub container: Arc<str>,
    /// The instance of that container.
    pub container_id: ContainerId,
}

/// The key of a row in `distributed_lock`; one key space for everything that can be held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKey {
    /// The right to collect a pod: `pod/<uid>`.
    Pod(PodUid),
    /// A replica's own row: `replica/<id>`. The replica is alive while it is unexpired.
    Replica(ReplicaId),
    /// Work that one replica does for all, such as retention: `duty/<name>`.
    Duty(Arc<str>),
}

impl LockKey {
    /// Reads a key as [`Display`](fmt::Display) writes it; `None` when it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        match kind {
            "pod" => Some(Self::Pod(name.into())),
            "replica" => Some(Self::Replica(name.into())),
            "duty" => Some(Self::Duty(name.into())),
            _ => None,
        }
    }

    /// The pod, when this is the key of one.
    #[must_use]
    pub fn pod(&self) -> Option<&PodUid> {
        match self {
            Self::Pod(uid) => Some(uid),
            _ => None,
        }
    }
}

impl fmt::Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(uid) => write!(f, "pod/{uid}"),
            Self::Replica(id) => write!(f, "replica/{id}"),
            Self::Duty(name) => write!(f, "duty/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_displayed_key_parses_to_the_same_key() {
        for key in [
            LockKey::Pod("7e2a-41".into()),
            LockKey::Replica("podlog-0#3f".into()),
            LockKey::Duty("retention".into()),
        ] {
            assert_eq!(LockKey::parse(&key.to_string()), Some(key));
        }
        assert_eq!(LockKey::parse("something else"), None);
    }

    #[test]
    fn the_short_form_of_a_container_id_has_at_most_twelve_characters() {
        assert_eq!(ContainerId::from("abc").short(), "abc");
        assert_eq!(ContainerId::from("0123456789abcdef").short(), "0123456789ab");
    }
}
