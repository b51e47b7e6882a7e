//! The logs that are not read now, and what is to be said about them: one warning when a cause begins, one line when it
//! is over. A cause is a reason at a place.
//!
//! Pure: it gets the time, and it logs nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::reason::{Place, UnreadReason};
use crate::domain::{Message, PodUid, Time};

/// One container of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogKey {
    /// The pod.
    pub uid: PodUid,
    /// The container's name.
    pub container: Arc<str>,
}

/// A log that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadLog {
    /// Why.
    pub reason: UnreadReason,
    /// What was said last, and what to do about it.
    pub message: Message,
    /// Since when.
    pub since: Time,
    /// The same, by the boot clock.
    began: Duration,
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The boot clock. Only this one is compared.
    pub now: Duration,
    /// The wall clock. Only this one is shown.
    pub wall: Time,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Logs are not read for a reason that was not there before.
    Begins(UnreadReason, Place, Message),
    /// No log is unread for this reason any more.
    Over(UnreadReason, Place, Duration),
}

/// A reason at a place.
type Cause = (UnreadReason, Place);

#[derive(Debug)]
struct CauseState {
    /// When its first log became unread.
    began: Duration,
    /// Whether it was worth a warning yet.
    warned: bool,
    /// The logs that became unread for it, and have not been read since.
    logs: BTreeSet<LogKey>,
}

/// The logs that are not read now.
#[derive(Debug, Default)]
pub struct UnreadTable {
    logs: BTreeMap<LogKey, UnreadLog>,
    causes: BTreeMap<Cause, CauseState>,
}

impl UnreadTable {
    /// Records that a log could not be read. A log whose reason changes stays with its former causes too until it is
    /// read, so that two reasons in turn are two warnings and not many.
    pub fn report(&mut self, key: &LogKey, cause: Cause, message: Message, at: Moment) -> Option<Saying> {
        let (reason, place) = cause.clone();
        let log = self.logs.entry(key.clone()).or_insert_with(|| UnreadLog {
            reason,
            message: Message::default(),
            since: at.wall,
            began: at.now,
        });
        let began = log.began;
        (log.reason, log.message) = (reason, message.clone());
        let cause = self.causes.entry(cause).or_insert_with(|| CauseState {
            began,
            warned: false,
            logs: BTreeSet::new(),
        });
        cause.logs.insert(key.clone());
        let begins = !cause.warned && at.now >= began + reason.patience();
        cause.warned |= begins;
        begins.then_some(Saying::Begins(reason, place, message))
    }

    /// Records that a log is read, or is not to be read any more.
    pub fn clear(&mut self, key: &LogKey, now: Duration) -> Vec<Saying> {
        if self.logs.remove(key).is_none() {
            return Vec::new();
        }
        let mut over = Vec::new();
        self.causes.retain(|(reason, place), cause| {
            let last = cause.logs.remove(key) && cause.logs.is_empty();
            if last && cause.warned {
                over.push(Saying::Over(*reason, place.clone(), now.saturating_sub(cause.began)));
            }
            !last
        });
        over
    }

    /// Why a log is not read.
    #[must_use]
    pub fn get(&self, key: &LogKey) -> Option<&UnreadLog> {
        self.logs.get(key)
    }

    /// The containers of a pod that are not read.
    pub fn of_pod(&self, uid: &PodUid) -> impl Iterator<Item = (&Arc<str>, &UnreadLog)> {
        let first = LogKey {
            uid: uid.clone(),
            container: "".into(),
        };
        let uid = uid.clone();
        let logs = self.logs.range(first..).take_while(move |(key, _)| key.uid == uid);
        logs.map(|(key, log)| (&key.container, log))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREACHABLE: UnreadReason = UnreadReason::KubeletUnreachable;
    const REFUSED: UnreadReason = UnreadReason::KubeletRefused;

    fn key(uid: &str) -> LogKey {
        LogKey {
            uid: uid.into(),
            container: "app".into(),
        }
    }

    fn node(name: &str) -> Place {
        Place::Node(name.into())
    }

    /// A table, and a way to report the log of a pod at a second.
    #[derive(Default)]
    struct Fixture(UnreadTable);

    impl Fixture {
        fn report(&mut self, second: u64, uid: &str, reason: UnreadReason, place: &Place) -> Option<&'static str> {
            let at = Moment {
                now: Duration::from_secs(second),
                wall: Time(second as i64),
            };
            let said = self
                .0
                .report(&key(uid), (reason, place.clone()), Message::new("why", ""), at);
            said.map(|_| "warned")
        }

        fn clear(&mut self, second: u64, uid: &str) -> Vec<Saying> {
            self.0.clear(&key(uid), Duration::from_secs(second))
        }
    }

    fn over(reason: UnreadReason, place: Place, seconds: u64) -> Saying {
        Saying::Over(reason, place, Duration::from_secs(seconds))
    }

    #[test]
    fn a_cause_is_said_once_at_its_beginning_and_once_at_its_end() {
        let mut table = Fixture::default();
        assert_eq!(table.report(1, "a", REFUSED, &node("n1")), Some("warned"));
        for second in 2..100 {
            assert_eq!(table.report(second, "a", REFUSED, &node("n1")), None);
            assert_eq!(table.report(second, "b", REFUSED, &node("n1")), None);
        }
        assert_eq!(
            table.report(50, "c", REFUSED, &node("n2")),
            Some("warned"),
            "another node"
        );
        assert_eq!(table.clear(100, "a"), []);
        assert_eq!(table.clear(101, "b"), [over(REFUSED, node("n1"), 100)]);
        assert_eq!(table.clear(102, "b"), [], "it is read already");
        assert_eq!(
            table.report(103, "b", REFUSED, &node("n1")),
            Some("warned"),
            "it begins again"
        );
    }

    #[test]
    fn what_passes_within_seconds_is_not_said() {
        let mut table = Fixture::default();
        for second in [0, 20, 40] {
            assert_eq!(table.report(second, "a", UNREACHABLE, &node("n1")), None);
            assert_eq!(table.report(second + 9, "a", UNREACHABLE, &node("n1")), None);
            assert_eq!(table.report(second + 9, "b", UNREACHABLE, &node("n1")), None);
            assert_eq!(table.clear(second + 9, "a"), []);
            // The cause has lasted for a minute, but none of its logs was unread for long.
            assert_eq!(table.clear(second + 10, "b"), []);
        }
        assert_eq!(table.report(60, "a", UNREACHABLE, &node("n1")), None);
        assert_eq!(table.report(70, "a", UNREACHABLE, &node("n1")), Some("warned"));
        assert_eq!(table.clear(90, "a"), [over(UNREACHABLE, node("n1"), 30)]);
    }

    #[test]
    fn two_reasons_in_turn_are_two_warnings_and_not_many() {
        let (mut table, mut warnings) = (Fixture::default(), 0);
        for second in 0..100 {
            let reason = if second % 2 == 0 { REFUSED } else { UNREACHABLE };
            warnings += usize::from(table.report(second, "a", reason, &node("n1")).is_some());
        }
        assert_eq!(warnings, 2);
        let log = table.0.get(&key("a")).unwrap();
        assert_eq!((log.reason, log.since), (UNREACHABLE, Time(0)));
        assert_eq!(
            table.clear(100, "a"),
            [over(UNREACHABLE, node("n1"), 100), over(REFUSED, node("n1"), 100)]
        );
    }

    #[test]
    fn a_pod_shows_the_containers_that_are_not_read() {
        let mut table = Fixture::default();
        table.report(1, "b", REFUSED, &node("n1"));
        table.report(1, "a", REFUSED, &node("n1"));
        let of = |uid: &str| {
            table
                .0
                .of_pod(&uid.into())
                .map(|(name, _)| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (of("a"), of("b"), of("aa")),
            (vec!["app".into()], vec!["app".into()], vec![])
        );
    }
}
