//! What goes wrong in a soak, and when: chosen from the seed before it begins.
//!
//! Pure: it carries out nothing; `injector` does that. One replica is never touched, so that there is always one that
//! collects, and one process is old enough at the end to judge its memory by.

use std::time::Duration;

use fastrand::Rng;

use kube_sim::{Cut, Verb};

/// Before the first fault, so that every container that was there from the beginning is known to a replica.
const FIRST_FAULT: Duration = Duration::from_secs(8);

/// A freeze that costs a replica its claims: the ttl of 20 s, the grace of 1 s, and more.
const LONG_SECONDS: std::ops::Range<f64> = 22.0..32.0;

/// A freeze after which it may hold them still.
const SHORT_SECONDS: std::ops::Range<f64> = 0.5..10.0;

/// How long the store is locked: mostly less than the 15 s without a renewal after which a holder stops, but sometimes
/// longer than a holder may write without one.
const LOCK_SECONDS: std::ops::Range<f64> = 1.0..8.0;

/// How long streams send nothing. Replicas probe a silent stream after 5 s, so some muted streams are noticed and some
/// are not.
const MUTE_SECONDS: std::ops::Range<f64> = 1.0..15.0;

/// Between the end of a replica and the start of the one in its place.
const VACANT_SECONDS: std::ops::Range<f64> = 1.0..10.0;

/// How long a replica is left alone after a fault: to start collecting, or to end within its grace period.
const SETTLE_TIME: Duration = Duration::from_secs(6);

/// One fault. A slot is the index of a replica; by now another replica may have replaced the one it began with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum DemoFault {
    /// SIGKILL, and a new replica in this slot after this time.
    Kill(usize, Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(usize, Duration),
    /// SIGTERM, and a new replica in this slot when the old one has ended, after this time at the earliest.
    Terminate(usize, Duration),
    /// The store cannot be written to for this time.
    LockStore(Duration),
    /// All open streams of this verb are cut.
    Cut(Verb, Cut),
    /// All open streams of this verb stay open and send nothing for this time.
    Mute(Verb, Duration),
    /// The next requests of this verb are refused: the status, and how many requests.
    Refuse(Verb, u16, u32),
}

impl DemoFault {
    /// How long it lasts, including the time for which its slot is left alone afterwards.
    fn duration(&self) -> Duration {
        match self {
            Self::Kill(_, time) | Self::Freeze(_, time) | Self::Terminate(_, time) => *time + SETTLE_TIME,
            Self::LockStore(time) | Self::Mute(_, time) => *time,
            Self::Cut(..) | Self::Refuse(..) => Duration::ZERO,
        }
    }
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PlannedFault {
    /// Time since the containers began to write.
    pub(super) at: Duration,
    pub(super) fault: DemoFault,
}

/// The types of fault. Each occurs once before one occurs again, unless none of the others is possible.
#[derive(Clone, Copy, Debug)]
enum FaultType {
    Kill,
    LongFreeze,
    ShortFreeze,
    Terminate,
    LockStore,
    Cut,
    Mute,
    Refuse,
}

const ALL_TYPES: [FaultType; 8] = [
    FaultType::Kill,
    FaultType::LongFreeze,
    FaultType::ShortFreeze,
    FaultType::Terminate,
    FaultType::LockStore,
    FaultType::Cut,
    FaultType::Mute,
    FaultType::Refuse,
];

/// All faults of a soak of `duration`, in order; all of them are over by then. With one replica only the store and the
/// API server fail.
pub(super) fn plan(seed: u64, replicas: usize, duration: Duration) -> Vec<PlannedFault> {
    let mut planner = Planner {
        rng: Rng::with_seed(seed),
        protected: seed as usize % replicas.max(1),
        slot_free_at: vec![Duration::ZERO; replicas],
        store_free_at: Duration::ZERO,
        log_streams_muted: false,
    };
    // On average one in 15 s over half an hour, one in 3 s over less than a minute.
    let pause = (duration / 10).clamp(Duration::from_secs(5), Duration::from_secs(30));
    let (mut faults, mut remaining) = (Vec::new(), Vec::new());
    let mut at = FIRST_FAULT;
    while at < duration {
        if remaining.is_empty() {
            remaining.extend(ALL_TYPES);
            planner.rng.shuffle(&mut remaining);
        }
        // The next type that is possible now; the others wait.
        let fault = (0..remaining.len()).rev().find_map(|place| {
            let fault = planner
                .choose(remaining[place], at)
                .filter(|fault| at + fault.duration() <= duration)?;
            remaining.remove(place);
            Some(fault)
        });
        if let Some(fault) = fault {
            planner.record(&fault, at);
            faults.push(PlannedFault { at, fault });
        } else {
            // The types that are left may never become possible, as near the end.
            remaining.clear();
        }
        at += Duration::from_secs(1) + pause.mul_f64(planner.rng.f64());
    }
    faults
}

/// Knows which faults are possible at a time.
struct Planner {
    rng: Rng,
    protected: usize,
    /// Per slot, the time from which it may get another fault.
    slot_free_at: Vec<Duration>,
    /// Time from which the store is not locked.
    store_free_at: Duration,
    /// Whether log streams have been muted since they were last cut.
    log_streams_muted: bool,
}

impl Planner {
    fn seconds(&mut self, range: std::ops::Range<f64>) -> Duration {
        Duration::from_secs_f64(range.start + (range.end - range.start) * self.rng.f64())
    }

    /// A fault of this type at this time, if one is possible.
    fn choose(&mut self, kind: FaultType, at: Duration) -> Option<DemoFault> {
        let open = |slot: &usize| *slot != self.protected && self.slot_free_at[*slot] <= at;
        let open: Vec<usize> = (0..self.slot_free_at.len()).filter(open).collect();
        let slot = self.rng.choice(open);
        Some(match kind {
            FaultType::Kill => DemoFault::Kill(slot?, self.seconds(VACANT_SECONDS)),
            FaultType::LongFreeze => DemoFault::Freeze(slot?, self.seconds(LONG_SECONDS)),
            FaultType::ShortFreeze => DemoFault::Freeze(slot?, self.seconds(SHORT_SECONDS)),
            FaultType::Terminate => DemoFault::Terminate(slot?, self.seconds(VACANT_SECONDS)),
            FaultType::LockStore if self.store_free_at > at => return None,
            FaultType::LockStore => DemoFault::LockStore(self.seconds(LOCK_SECONDS)),
            FaultType::Cut => {
                // A log stream that is muted and then ends in order, just before its pod is deleted, looks like one
                // that was read to its end, and there is no log left to compare it with.
                let how = if self.rng.bool() && !self.log_streams_muted {
                    Cut::Clean
                } else {
                    Cut::Reset
                };
                DemoFault::Cut(self.streams(), how)
            }
            FaultType::Mute => DemoFault::Mute(self.streams(), self.seconds(MUTE_SECONDS)),
            FaultType::Refuse => {
                let verb = [Verb::Log, Verb::Log, Verb::Get, Verb::List, Verb::Watch][self.rng.usize(..5)];
                let status = [429, 500, 502, 503, 504][self.rng.usize(..5)];
                DemoFault::Refuse(verb, status, self.rng.u32(1..20))
            }
        })
    }

    /// Mostly log streams.
    fn streams(&mut self) -> Verb {
        if self.rng.u32(..4) == 0 { Verb::Watch } else { Verb::Log }
    }

    /// Records that the fault occurs.
    fn record(&mut self, fault: &DemoFault, at: Duration) {
        let over = at + fault.duration();
        match fault {
            DemoFault::Kill(slot, _) | DemoFault::Freeze(slot, _) | DemoFault::Terminate(slot, _) => {
                self.slot_free_at[*slot] = over;
            }
            DemoFault::LockStore(_) => self.store_free_at = over,
            DemoFault::Mute(Verb::Log, _) => self.log_streams_muted = true,
            DemoFault::Cut(Verb::Log, _) => self.log_streams_muted = false,
            DemoFault::Cut(..) | DemoFault::Mute(..) | DemoFault::Refuse(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_mins(30);

    fn slot(fault: &DemoFault) -> Option<usize> {
        match fault {
            DemoFault::Kill(slot, _) | DemoFault::Freeze(slot, _) | DemoFault::Terminate(slot, _) => Some(*slot),
            _ => None,
        }
    }

    #[test]
    fn one_seed_is_one_plan() {
        let plan = |seed| plan(seed, 3, HALF_AN_HOUR);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn everything_happens_in_order_and_is_over_in_time() {
        for seed in 0..50 {
            let faults = plan(seed, 3, HALF_AN_HOUR);
            assert!(
                (60..200).contains(&faults.len()),
                "seed {seed}: {} faults",
                faults.len()
            );
            assert!(faults.is_sorted_by_key(|fault| fault.at));
            assert!(
                faults
                    .iter()
                    .all(|fault| fault.at >= FIRST_FAULT && fault.at + fault.fault.duration() <= HALF_AN_HOUR)
            );
            let kinds = |is: fn(&DemoFault) -> bool| faults.iter().filter(|fault| is(&fault.fault)).count();
            let lost_claims = |fault: &DemoFault| matches!(fault, DemoFault::Freeze(_, time) if time.as_secs() >= 22);
            for (kind, count) in [
                ("kill", kinds(|fault| matches!(fault, DemoFault::Kill(..)))),
                ("long freeze", kinds(lost_claims)),
                (
                    "freeze",
                    kinds(|fault| matches!(fault, DemoFault::Freeze(..))) - kinds(lost_claims),
                ),
                ("terminate", kinds(|fault| matches!(fault, DemoFault::Terminate(..)))),
                (
                    "lock the store",
                    kinds(|fault| matches!(fault, DemoFault::LockStore(_))),
                ),
                ("cut", kinds(|fault| matches!(fault, DemoFault::Cut(..)))),
                ("mute", kinds(|fault| matches!(fault, DemoFault::Mute(..)))),
                ("refuse", kinds(|fault| matches!(fault, DemoFault::Refuse(..)))),
            ] {
                assert!(count >= 5, "seed {seed}: {kind} happens {count} times");
            }
        }
    }

    #[test]
    fn one_replica_is_left_alone_and_nothing_befalls_one_twice_at_a_time() {
        for seed in 0..50 {
            let faults = plan(seed, 3, HALF_AN_HOUR);
            let mut slot_free_at = [Duration::ZERO; 3];
            for PlannedFault { at, fault } in &faults {
                let Some(slot) = slot(fault) else { continue };
                assert_ne!(slot, seed as usize % 3, "seed {seed}");
                assert!(slot_free_at[slot] <= *at, "seed {seed}: {fault:?} at {at:?}");
                slot_free_at[slot] = *at + fault.duration();
            }
            assert!(
                plan(seed, 1, HALF_AN_HOUR)
                    .iter()
                    .all(|fault| slot(&fault.fault).is_none())
            );
        }
    }

    #[test]
    fn half_a_minute_holds_some_of_it_and_no_time_nothing() {
        for seed in 0..50 {
            let faults = plan(seed, 3, Duration::from_secs(30));
            assert!(faults.len() >= 3, "seed {seed}: {faults:?}");
        }
        assert_eq!(plan(1, 3, Duration::ZERO), []);
    }
}
