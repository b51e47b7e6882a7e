//! A state of the claim protocol: rows, replicas and the messages between them. It has no clock readings, only
//! remaining times. It decides nothing.

use std::hash::{Hash, Hasher};

/// The most replicas, pods and late statements a state has room for.
pub(crate) const REPLICAS: usize = 3;
pub(crate) const PODS: usize = 2;
pub(crate) const LATE: usize = 4;

/// A time left that never passes; only a defect makes it.
pub(crate) const FOR_EVER: u8 = 7;

/// The offset between two clocks is not known: the replica has not read the table yet.
pub(crate) const UNSEEN: i8 = 4;

/// The range of observed offsets between two clocks.
pub(crate) const OFFSETS: std::ops::RangeInclusive<i8> = -3..=UNSEEN;

/// A row of the table. Replicas are numbered from 1; 0 is no replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: u8,
    /// The replica that has requested it.
    pub(crate) requested_by: u8,
    /// 0 while there is no row.
    pub(crate) fence: u8,
    /// Ticks of the database until it expires.
    pub(crate) left: i8,
    pub(crate) finished: bool,
}

/// The claim of a replica on a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The fence of its claim; 0 when it has none.
    pub(crate) fence: u8,
    /// Ticks of its own clock until it stops acting on it.
    pub(crate) left: u8,
    /// Whether it has handed the pod over without having stopped; only a defect does it.
    pub(crate) leaving: bool,
}

impl Claim {
    pub(crate) fn new(fence: u8, left: u8) -> Self {
        Self {
            fence,
            left,
            leaving: false,
        }
    }
}

/// A replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replica {
    /// Ticks its clock is behind the database's.
    pub(crate) lag: u8,
    /// The database's clock minus its own, as last seen, minus what it is now; clamped to +-3.
    pub(crate) seen: i8,
    /// Ticks of its own clock until it claims again.
    pub(crate) holdoff: u8,
    pub(crate) claims: [Claim; PODS],
}

/// The type of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum MessageKind {
    #[default]
    None,
    AcquireSent,
    Acquired,
    RenewSent,
    RenewHeld,
    RenewLost,
    /// An acquisition that its sender waits for no longer; all that follow are not waited for either.
    AcquireAbandoned,
    RenewAbandoned,
    Free,
    Handed,
    Finished,
}

/// A statement or its answer, on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    /// The replica that sent the statement, from 1.
    pub(crate) sender: u8,
    /// From 0.
    pub(crate) pod: u8,
    pub(crate) fence: u8,
    pub(crate) receiver: u8,
    /// Ticks of the sender's clock since it was sent.
    pub(crate) age: u8,
}

impl Message {
    /// Whether its sender waits: for the answer, or for this, which is one.
    pub(crate) fn awaited(self) -> bool {
        matches!(
            self.kind,
            MessageKind::AcquireSent
                | MessageKind::Acquired
                | MessageKind::RenewSent
                | MessageKind::RenewHeld
                | MessageKind::RenewLost
        )
    }

    /// Whether this replica waits for it; replicas are numbered from 0 here.
    pub(crate) fn awaited_by(self, replica: usize) -> bool {
        self.awaited() && usize::from(self.sender) == replica + 1
    }

    /// The message as a number, which holds all of it and the sender in its lowest two bits.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.sender)
            | u64::from(self.pod) << 2
            | (self.kind as u64) << 3
            | u64::from(self.fence) << 7
            | u64::from(self.receiver) << 11
            | u64::from(self.age) << 13
    }
}

/// The whole state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) rows: [Row; PODS],
    pub(crate) replicas: [Replica; REPLICAS],
    /// Late messages; the first `late` of them.
    pub(crate) net: [Message; LATE],
    pub(crate) late: usize,
    /// How often the database's clock may still jump.
    pub(crate) jumps_left: u8,
    /// A finished pod has been claimed.
    pub(crate) claimed_done: bool,
}

impl State {
    pub(crate) fn messages(&self) -> &[Message] {
        &self.net[..self.late]
    }

    /// Whether the replica waits for an answer about the pod.
    pub(crate) fn waits(&self, replica: usize, pod: usize) -> bool {
        let about = |message: &Message| message.awaited_by(replica) && usize::from(message.pod) == pod;
        self.messages().iter().any(about)
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.net[self.late] = message;
        self.late += 1;
    }

    pub(crate) fn remove(&mut self, at: usize) {
        self.late -= 1;
        self.net[at] = self.net[self.late];
        self.net[self.late] = Message::default();
    }

    /// Puts the late messages in order. Their order of sending does not matter.
    pub(crate) fn sort(&mut self) {
        self.net[..self.late].sort_unstable_by_key(|message| message.pack());
    }

    /// The replica acts on the pod: it has a claim whose deadline has not passed on its own clock.
    pub(crate) fn acts(&self, replica: usize, pod: usize) -> bool {
        let claim = self.replicas[replica].claims[pod];
        claim.fence != 0 && claim.left > 0
    }

    /// How many replicas act on the pod.
    pub(crate) fn acting(&self, pod: usize) -> usize {
        (0..REPLICAS).filter(|replica| self.acts(*replica, pod)).count()
    }

    /// The fences of all claims on the pod.
    pub(crate) fn fences(&self, pod: usize) -> impl Iterator<Item = u8> {
        let all = self.replicas.iter().map(move |replica| replica.claims[pod].fence);
        all.filter(|fence| *fence != 0)
    }

    fn pack(&self) -> [u64; 3] {
        let mut bits = u128::from(self.jumps_left) | u128::from(self.claimed_done) << 2;
        let mut at = 3;
        let mut put = |value: u64, width: u32| {
            bits |= u128::from(value) << at;
            at += width;
        };
        for row in &self.rows {
            put(u64::from(row.owner) | u64::from(row.requested_by) << 2, 4);
            put(u64::from(row.fence) | ((row.left + 8) as u64) << 4, 9);
            put(u64::from(row.finished), 1);
        }
        for replica in &self.replicas {
            put(u64::from(replica.lag) | ((replica.seen + 3) as u64) << 2, 5);
            put(u64::from(replica.holdoff), 3);
            for claim in &replica.claims {
                let left = u64::from(claim.left) << 4;
                put(u64::from(claim.fence) | left | u64::from(claim.leaving) << 7, 8);
            }
        }
        let net = self
            .net
            .iter()
            .rev()
            .fold(0, |bits, message| bits << 16 | message.pack());
        [bits as u64, (bits >> 64) as u64, net]
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // The whole state in three 64-bit words, because states are hashed millions of times.
        self.pack().hash(hasher);
    }
}
