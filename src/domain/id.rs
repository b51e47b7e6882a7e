//! Identifiers of pods, containers, replicas, streams and lock rows.
//!
//! Only values that never change are identifiers: the UID of a pod, the runtime ID of a container instance. Names for
//! people are stored beside them and never identify anything.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
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

string_id!(
    /// The UID of one pod incarnation. A pod re-created under the same name has another one.
    PodUid
);
string_id!(
    /// One process of `podlog run`. Each start has a new one.
    ReplicaId
);
string_id!(
    /// The runtime's ID of one container instance, without its scheme (`containerd://`).
    ContainerId
);

impl ContainerId {
    /// The first twelve characters: enough to distinguish the instances of one container.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// The fencing token of a claim. It grows whenever the holder of a row changes and never repeats for a row.
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

/// The key of a row in `distributed_lock`. All kinds of claims share one key space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKey {
    /// The claim on a pod: `pod/<uid>`. Its holder collects the pod.
    Pod(PodUid),
    /// A replica's own row: `replica/<id>`. The replica is alive until the row expires.
    Replica(ReplicaId),
    /// A task that one replica performs for all, such as retention: `duty/<name>`.
    Duty(Arc<str>),
}

impl LockKey {
    /// Parses a key in the form that [`Display`](fmt::Display) writes. `None` if it has another form.
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

    /// The pod, if this is the key of one.
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
