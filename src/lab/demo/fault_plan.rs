//! The faults of a soak and their times, which the seed determines before the soak begins.
//!
//! It only makes the plan; `injector` carries it out. One replica gets no fault. So one replica always collects, and
//! one process runs long enough to check its memory.

use std::time::Duration;

use fastrand::Rng;

use kube_sim::{Cut, Verb};

/// The time of the first fault. Until then replicas have seen every container that exists from the beginning.
const FIRST_FAULT: Duration = Duration::from_secs(8);

/// A freeze after which a replica has lost its claims: longer than the ttl of 20 s and the grace of 1 s.
const LONG_SECONDS: std::ops::Range<f64> = 22.0..32.0;

/// A freeze after which a replica may still hold its claims.
const SHORT_SECONDS: std::ops::Range<f64> = 0.5..10.0;

/// How long the store is locked: mostly less than the 15 s without a renewal after which a holder stops, but sometimes
/// longer than a holder may write without one.
const LOCK_SECONDS: std::ops::Range<f64> = 1.0..8.0;

/// How long streams send nothing. Replicas probe a silent stream after 5 s, so some muted streams are noticed and some
/// are not.
const MUTE_SECONDS: std::ops::Range<f64> = 1.0..15.0;

/// The time between the end of a replica and the start of its replacement.
const VACANT_SECONDS: std::ops::Range<f64> = 1.0..10.0;

/// How long a replica gets no other fault after a fault: to start collecting, or to end within its grace period.
const SETTLE_TIME: Duration = Duration::from_secs(6);

/// One fault. A slot is the index of a replica, or of the replica that has replaced it.
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
    /// How long it lasts, including the time for which its slot gets no other fault afterwards.
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

/// All faults of a soak of `duration`, in order. All of them end before the soak ends. With one replica, only the store
/// and the API server get faults.
pub(super) fn plan(seed: u64, replicas: usize, duration: Duration) -> Vec<PlannedFault> {
    let mut planner = Planner {
        rng: Rng::with_seed(seed),
        protected: seed as usize % replicas.max(1),
        slot_free_at: vec![Duration::ZERO; replicas],
        store_free_at: Duration::ZERO,
        log_streams_muted: false,
    };
    // On average one fault in 15 s for half an hour, and one in 3 s for less than a minute.
    let pause = (duration / 10).clamp(Duration::from_secs(5), Duration::from_secs(30));
    let (mut faults, mut remaining) = (Vec::new(), Vec::new());
    let mut at = FIRST_FAULT;
    while at < duration {
        if remaining.is_empty() {
            remaining.extend(ALL_TYPES);
            planner.rng.shuffle(&mut remaining);
        }
        // The first type that is possible now. The others remain for later.
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
            // The remaining types may never become possible, for example near the end.
            remaining.clear();
        }
        at += Duration::from_secs(1) + pause.mul_f64(planner.rng.f64());
    }
    faults
}

/// Chooses faults that are possible at a time.
struct Planner {
    rng: Rng,
    /// The slot that gets no fault.
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
                // If a muted stream ends without an error just before its pod is deleted, it looks like one that was
                // read to its end, and no log is left to compare it with.
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
    fn the_same_seed_gives_the_same_plan() {
        let plan = |seed| plan(seed, 3, HALF_AN_HOUR);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_type_of_fault_occurs_and_all_faults_end_in_time() {
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
    fn one_replica_gets_no_fault_and_no_replica_has_two_at_a_time() {
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
    fn a_short_soak_has_a_few_faults_and_an_empty_one_has_none() {
        for seed in 0..50 {
            let faults = plan(seed, 3, Duration::from_secs(30));
            assert!(faults.len() >= 3, "seed {seed}: {faults:?}");
        }
        assert_eq!(plan(1, 3, Duration::ZERO), []);
    }
}
