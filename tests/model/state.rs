//! A state of the claim protocol: rows, replicas, what is on its way between them. It knows no clock readings, only
//! how long is left; and it fits in 24 bytes, so that millions can be remembered. It decides nothing.

/// The most replicas, pods and late statements a state has room for.
pub(crate) const REPLICAS: usize = 3;
pub(crate) const PODS: usize = 2;
pub(crate) const LATE: usize = 4;

/// A time left that never passes; only a broken protocol makes it.
pub(crate) const FOR_EVER: u8 = 7;

/// The offset between two clocks is not known: the replica has not looked yet.
pub(crate) const UNSEEN: i8 = 4;

/// All that an offset between two clocks may be seen as.
pub(crate) const OFFSETS: std::ops::RangeInclusive<i8> = -3..=UNSEEN;

/// A row of the table. Replicas are numbered from 1; 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: u8,
    pub(crate) wanted: u8,
    /// 0 while there is no row.
    pub(crate) fence: u8,
    /// Ticks of the database until it expires.
    pub(crate) left: i8,
    pub(crate) finished: bool,
    /// The largest fence that has written to the sink.
    pub(crate) sink: u8,
}

/// What a replica has of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The fence of its claim; 0 when it has none.
    pub(crate) fence: u8,
    /// Ticks of its own clock until it stops acting on it.
    pub(crate) left: u8,
    /// Whether it has handed the pod over without having stopped; only a broken protocol does.
    pub(crate) leaving: bool,
}

/// A replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Ticks its clock is behind the database's.
    pub(crate) lag: u8,
    /// The database's clock minus its own, as last seen, minus what it is now; clamped to +-3.
    pub(crate) seen: i8,
    /// Ticks of its own clock until it claims again.
    pub(crate) holdoff: u8,
    pub(crate) slots: [Slot; PODS],
}

/// What a message is. Those that somebody waits for come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    #[default]
    None,
    ClaimAsked,
    ClaimWon,
    RenewAsked,
    RenewHeld,
    RenewLost,
    /// From here on nobody waits.
    ClaimStray,
    RenewStray,
    Free,
    Handed,
    Finished,
    Write,
}

const KINDS: [Kind; 12] = [
    Kind::None,
    Kind::ClaimAsked,
    Kind::ClaimWon,
    Kind::RenewAsked,
    Kind::RenewHeld,
    Kind::RenewLost,
    Kind::ClaimStray,
    Kind::RenewStray,
    Kind::Free,
    Kind::Handed,
    Kind::Finished,
    Kind::Write,
];

/// A statement or its answer, on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// The replica that sent the statement, from 1.
    pub(crate) of: u8,
    /// From 0.
    pub(crate) pod: u8,
    pub(crate) fence: u8,
    pub(crate) heir: u8,
    /// Ticks of the sender's clock since it was sent.
    pub(crate) age: u8,
}

impl Message {
    /// Whether its replica waits for the answer.
    pub(crate) fn awaited(self) -> bool {
        self.kind != Kind::None && (self.kind as u8) < Kind::ClaimStray as u8
    }

    fn pack(self) -> u64 {
        u64::from(self.of)
            | u64::from(self.pod) << 2
            | (self.kind as u64) << 3
            | u64::from(self.fence) << 7
            | u64::from(self.heir) << 11
            | u64::from(self.age) << 13
    }

    fn unpack(bits: u64) -> Self {
        Self {
            of: (bits & 3) as u8,
            pod: (bits >> 2 & 1) as u8,
            kind: KINDS[(bits >> 3 & 15) as usize],
            fence: (bits >> 7 & 15) as u8,
            heir: (bits >> 11 & 3) as u8,
            age: (bits >> 13 & 7) as u8,
        }
    }
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) rows: [Row; PODS],
    pub(crate) seats: [Seat; REPLICAS],
    /// Late messages; the first `late` of them.
    pub(crate) net: [Message; LATE],
    pub(crate) late: usize,
    /// How often the database's clock may still jump.
    pub(crate) jumps: u8,
    /// The sink has taken a write from a claim that is not the newest that wrote.
    pub(crate) stale_write: bool,
}

/// A state in 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u64; 3]);

impl State {
    pub(crate) fn messages(&self) -> &[Message] {
        &self.net[..self.late]
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

    /// The replica acts on the pod: it has a claim whose deadline has not passed on its own clock.
    pub(crate) fn acts(&self, replica: usize, pod: usize) -> bool {
        let slot = self.seats[replica].slots[pod];
        slot.fence != 0 && slot.left > 0
    }

    pub(crate) fn pack(&self) -> Key {
        let mut bits = u128::from(self.jumps) | u128::from(self.stale_write) << 1;
        let mut at = 2;
        let mut put = |value: u64, width: u32| {
            bits |= u128::from(value) << at;
            at += width;
        };
        for row in &self.rows {
            put(u64::from(row.owner) | u64::from(row.wanted) << 2, 4);
            put(u64::from(row.fence) | ((row.left + 8) as u64) << 4, 9);
            put(u64::from(row.finished) | u64::from(row.sink) << 1, 5);
        }
        for seat in &self.seats {
            put(u64::from(seat.lag) | ((seat.seen + 3) as u64) << 2, 5);
            put(u64::from(seat.holdoff), 3);
            for slot in &seat.slots {
                let left = u64::from(slot.left) << 4;
                put(u64::from(slot.fence) | left | u64::from(slot.leaving) << 7, 8);
            }
        }
        let net = self
            .net
            .iter()
            .rev()
            .fold(0, |bits, message| bits << 16 | message.pack());
        Key([bits as u64, (bits >> 64) as u64, net])
    }

    pub(crate) fn unpack(Key([low, high, net]): Key) -> Self {
        let bits = u128::from(low) | u128::from(high) << 64;
        let mut at = 2;
        let mut take = |width: u32| {
            let value = (bits >> at) as u8 & ((1_u16 << width) - 1) as u8;
            at += width;
            value
        };
        let rows = std::array::from_fn(|_| Row {
            owner: take(2),
            wanted: take(2),
            fence: take(4),
            left: take(5) as i8 - 8,
            finished: take(1) == 1,
            sink: take(4),
        });
        let seats = std::array::from_fn(|_| Seat {
            lag: take(2),
            seen: take(3) as i8 - 3,
            holdoff: take(3),
            slots: std::array::from_fn(|_| Slot {
                fence: take(4),
                left: take(3),
                leaving: take(1) == 1,
            }),
        });
        let net: [Message; LATE] = std::array::from_fn(|at| Message::unpack(net >> (16 * at) & 0xffff));
        let late = net.iter().filter(|message| message.kind != Kind::None).count();
        let (jumps, stale_write) = (low as u8 & 1, low & 2 != 0);
        Self {
            rows,
            seats,
            net,
            late,
            jumps,
            stale_write,
        }
    }
}
