//! Hold-off: when the database cannot be trusted about expiry, no pod is claimed for one ttl.
//!
//! Another database server, or a clock that has jumped, may show live claims as expired. Within one ttl their holders
//! renew them. Renewing is never held off.

use std::sync::Arc;
use std::time::Duration;

use super::claim::LockTable;
use crate::defect::{self, Defect};

/// A larger change of the difference between the database's clock and ours is a jump. Slewing at 500 ppm changes it by
/// only 0.5 ms a second, and the time that an answer takes is accounted for.
const JUMP: Duration = Duration::from_millis(500);

/// Watches the identity and the clock of the database server.
#[derive(Debug)]
pub struct HoldOff {
    ttl: Duration,
    latest: Option<ClockReading>,
    /// Boot-clock time until which no pod is claimed.
    until: Duration,
}

/// What one answer shows of the database's clock.
#[derive(Debug)]
struct ClockReading {
    server: Arc<str>,
    /// Least possible difference of the database's clock and ours in nanoseconds: if the answer was made when it came.
    min_offset: i128,
    /// Greatest possible difference: if the answer was made when it was asked for.
    max_offset: i128,
}

impl ClockReading {
    /// From an answer that was asked for at `asked` and came at `now`.
    fn new(table: &LockTable, asked: Duration, now: Duration) -> Self {
        Self {
            server: table.server.clone(),
            min_offset: offset(table.now, now),
            max_offset: offset(table.now, asked),
        }
    }

    /// Why claiming must be held off, if `before` was the reading before this one.
    fn reason_after(&self, before: &Self) -> Option<&'static str> {
        let jump = JUMP.as_nanos() as i128;
        if before.server != self.server {
            Some("another database server answers")
        } else if self.min_offset > before.max_offset + jump || self.max_offset < before.min_offset - jump {
            Some("the clock of the database has jumped")
        } else {
            None
        }
    }
}

impl HoldOff {
    /// Without a hold-off. One lasts one `ttl`.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            latest: None,
            until: Duration::ZERO,
        }
    }

    /// Takes in an answer that was asked for at `asked` and came at `now`. Returns the reason if a hold-off begins.
    pub fn observe(&mut self, table: &LockTable, asked: Duration, now: Duration) -> Option<&'static str> {
        let reading = ClockReading::new(table, asked, now);
        let why = self.latest.as_ref().and_then(|before| reading.reason_after(before));
        self.latest = Some(reading);
        if why.is_some() {
            self.until = now + self.ttl;
        }
        why
    }

    /// Whether claiming is held off at `now`.
    #[must_use]
    pub fn is_active(&self, now: Duration) -> bool {
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
    fn a_steady_clock_causes_no_hold_off_however_slowly_the_server_answers() {
        let mut holdoff = HoldOff::new(TTL);
        assert_eq!(holdoff.observe(&answer("a", 1000), at(0), at(10)), None);
        assert_eq!(holdoff.observe(&answer("a", 4900), at(1000), at(3900)), None);
        assert_eq!(holdoff.observe(&answer("a", 6000), at(5000), at(5010)), None);
        assert!(!holdoff.is_active(at(5010)));
    }

    #[test]
    fn a_jump_either_way_or_another_server_holds_claiming_off_for_one_ttl() {
        for second in [answer("a", 3000), answer("a", 1000), answer("b", 2000)] {
            let mut holdoff = HoldOff::new(TTL);
            assert_eq!(holdoff.observe(&answer("a", 1000), at(0), at(10)), None);
            assert!(holdoff.observe(&second, at(1000), at(1010)).is_some());
            assert!(holdoff.is_active((at(1010) + TTL).checked_sub(at(1)).unwrap()));
            assert!(!holdoff.is_active(at(1010) + TTL));
        }
    }
}
