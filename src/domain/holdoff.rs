//! Whether the database may be believed about expiry.
//!
//! Another server, or a clock that has jumped, may show claims as expired that are alive. Claiming
//! then waits for one ttl, in which live holders renew. Renewing is never held off.

use std::sync::Arc;
use std::time::Duration;

use super::claim::LockTable;
use crate::defect::{self, Defect};

/// A shift between the database's clock and ours larger than this is a jump: slewing of 500 ppm
/// makes 0.5 ms a second, and an answer that takes long is allowed for.
const JUMP: Duration = Duration::from_millis(500);

/// Watches the server's identity and clock.
#[derive(Debug)]
pub struct HoldOff {
    ttl: Duration,
    seen: Option<Seen>,
    until: Duration,
}

/// What one answer tells of the database's clock.
#[derive(Debug)]
struct Seen {
    server: Arc<str>,
    /// The database's clock minus ours, at most and at least: the answer was made between asking and receiving.
    least: i128,
    most: i128,
}

impl Seen {
    /// What an answer tells that was asked for at `asked` and came at `now`.
    fn of(table: &LockTable, asked: Duration, now: Duration) -> Self {
        Self {
            server: table.server.clone(),
            least: offset(table.now, now),
            most: offset(table.now, asked),
        }
    }

    /// Why claiming must be held off after `before`, when it must.
    fn differs(&self, before: &Self) -> Option<&'static str> {
        let jump = JUMP.as_nanos() as i128;
        if before.server != self.server {
            Some("another server answers")
        } else if self.least > before.most + jump || self.most < before.least - jump {
            Some("its clock has jumped")
        } else {
            None
        }
    }
}

impl HoldOff {
    /// Nothing has been seen yet; a hold-off will last one `ttl`.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            seen: None,
            until: Duration::ZERO,
        }
    }

    /// Takes in an answer that was asked for at `asked` and came at `now`. Answers why claiming must
    /// be held off from now on, when it must.
    pub fn observe(&mut self, table: &LockTable, asked: Duration, now: Duration) -> Option<&'static str> {
        let seen = Seen::of(table, asked, now);
        let why = self.seen.as_ref().and_then(|before| seen.differs(before));
        self.seen = Some(seen);
        if why.is_some() {
            self.until = now + self.ttl;
        }
        why
    }

    /// Whether claiming is held off.
    #[must_use]
    pub fn is_on(&self, now: Duration) -> bool {
        now < self.until && !defect::on(Defect::JumpIgnored)
    }
}

fn offset(theirs: Duration, ours: Duration) -> i128 {
    theirs.as_nanos() as i128 - ours.as_nanos() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(20);

    fn answer(server: &str, now: u64) -> LockTable {
        LockTable {
            now: Duration::from_millis(now),
            server: server.into(),
            ..LockTable::default()
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_steady_server_is_believed_however_slowly_it_answers() {
        let mut holdoff = HoldOff::new(TTL);
        assert_eq!(holdoff.observe(&answer("a", 1000), at(0), at(10)), None);
        assert_eq!(holdoff.observe(&answer("a", 4900), at(1000), at(3900)), None);
        assert_eq!(holdoff.observe(&answer("a", 6000), at(5000), at(5010)), None);
        assert!(!holdoff.is_on(at(5010)));
    }

    #[test]
    fn a_jump_either_way_or_another_server_holds_claiming_off_for_one_ttl() {
        for second in [answer("a", 3000), answer("a", 1000), answer("b", 2000)] {
            let mut holdoff = HoldOff::new(TTL);
            assert_eq!(holdoff.observe(&answer("a", 1000), at(0), at(10)), None);
            assert!(holdoff.observe(&second, at(1000), at(1010)).is_some());
            assert!(holdoff.is_on((at(1010) + TTL).checked_sub(at(1)).unwrap()));
            assert!(!holdoff.is_on(at(1010) + TTL));
        }
    }
}
