//! What goes wrong in a soak, and when: chosen from the seed before it begins.
//!
//! Pure: it harms nobody; `acts` carries it out. One replica is never harmed, so that somebody always collects and one
//! process is old enough at the end to judge its memory by.

use std::time::Duration;

use fastrand::Rng;

use kube_sim::{Cut, Verb};

/// Before the first act, so that every container that was there from the beginning is known to somebody.
const FIRST: Duration = Duration::from_secs(8);

/// A freeze that costs a replica its claims: the ttl of 20 s, the grace of 1 s, and more.
const LONG_SECONDS: std::ops::Range<f64> = 22.0..32.0;

/// A freeze after which it may hold them still.
const SHORT_SECONDS: std::ops::Range<f64> = 0.5..10.0;

/// How long the store is held: mostly for less than the 15 s without renewal after which a holder stops, but longer
/// than writing may go on without one at times.
const HOLD_SECONDS: std::ops::Range<f64> = 1.0..8.0;

/// How long streams are mute. They are probed after 5 s, so both ends of it happen.
const MUTE_SECONDS: std::ops::Range<f64> = 1.0..15.0;

/// Between the end of a replica and the start of the one in its place.
const VACANT_SECONDS: std::ops::Range<f64> = 1.0..10.0;

/// How long a replica is left alone after something has befallen it: to come to work, or to end within its grace.
const SETTLING: Duration = Duration::from_secs(6);

/// Something that goes wrong. A slot is the place of a replica; another may have come to it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    /// SIGKILL, and another replica after so long.
    Kill(usize, Duration),
    /// SIGSTOP, and SIGCONT after so long.
    Freeze(usize, Duration),
    /// SIGTERM, and another replica when it has ended, after so long at the earliest.
    End(usize, Duration),
    /// Nobody can write to the store for so long.
    Hold(Duration),
    /// The open streams are cut.
    Cut(Verb, Cut),
    /// The open streams are mute for so long.
    Mute(Verb, Duration),
    /// So many requests are refused with this status.
    Refuse(Verb, u16, u32),
}

impl What {
    /// How long it goes on, the slot it befalls included.
    fn lasts(&self) -> Duration {
        match self {
            Self::Kill(_, time) | Self::Freeze(_, time) | Self::End(_, time) => *time + SETTLING,
            Self::Hold(time) | Self::Mute(_, time) => *time,
            Self::Cut(..) | Self::Refuse(..) => Duration::ZERO,
        }
    }
}

/// Something that goes wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Act {
    /// Since the containers began to write.
    pub(super) at: Duration,
    pub(super) what: What,
}

/// The kinds of act. Each comes once before one comes again, unless none of the others can be played.
#[derive(Clone, Copy, Debug)]
enum Card {
    Kill,
    LongFreeze,
    ShortFreeze,
    End,
    Hold,
    Cut,
    Mute,
    Refuse,
}

const DECK: [Card; 8] = [
    Card::Kill,
    Card::LongFreeze,
    Card::ShortFreeze,
    Card::End,
    Card::Hold,
    Card::Cut,
    Card::Mute,
    Card::Refuse,
];

/// Everything that goes wrong in a soak of `duration`, in order; all of it is over by then. With one replica only the
/// store and the API server fail.
pub(super) fn plan(seed: u64, replicas: usize, duration: Duration) -> Vec<Act> {
    let mut dealer = Dealer {
        rng: Rng::with_seed(seed),
        spared: seed as usize % replicas.max(1),
        free: vec![Duration::ZERO; replicas],
        released: Duration::ZERO,
        muted: false,
    };
    // On average one in 15 s over half an hour, one in 3 s over less than a minute.
    let pause = (duration / 10).clamp(Duration::from_secs(5), Duration::from_secs(30));
    let (mut acts, mut deck) = (Vec::new(), Vec::new());
    let mut at = FIRST;
    while at < duration {
        if deck.is_empty() {
            deck.extend(DECK);
            dealer.rng.shuffle(&mut deck);
        }
        // The next card that can be played now; the others wait.
        let what = (0..deck.len()).rev().find_map(|place| {
            let what = dealer
                .play(deck[place], at)
                .filter(|what| at + what.lasts() <= duration)?;
            deck.remove(place);
            Some(what)
        });
        if let Some(what) = what {
            dealer.note(&what, at);
            acts.push(Act { at, what });
        } else {
            // What waits may have to wait for ever, as near the end.
            deck.clear();
        }
        at += Duration::from_secs(1) + pause.mul_f64(dealer.rng.f64());
    }
    acts
}

/// Who knows what can be done.
struct Dealer {
    rng: Rng,
    spared: usize,
    /// From when on something may befall each slot.
    free: Vec<Duration>,
    /// From when on the store is not held.
    released: Duration,
    /// Whether streams have been mute since they were cut last.
    muted: bool,
}

impl Dealer {
    fn seconds(&mut self, range: std::ops::Range<f64>) -> Duration {
        Duration::from_secs_f64(range.start + (range.end - range.start) * self.rng.f64())
    }

    /// What a card means now, if it can be done.
    fn play(&mut self, card: Card, at: Duration) -> Option<What> {
        let open = |slot: &usize| *slot != self.spared && self.free[*slot] <= at;
        let open: Vec<usize> = (0..self.free.len()).filter(open).collect();
        let slot = self.rng.choice(open);
        Some(match card {
            Card::Kill => What::Kill(slot?, self.seconds(VACANT_SECONDS)),
            Card::LongFreeze => What::Freeze(slot?, self.seconds(LONG_SECONDS)),
            Card::ShortFreeze => What::Freeze(slot?, self.seconds(SHORT_SECONDS)),
            Card::End => What::End(slot?, self.seconds(VACANT_SECONDS)),
            Card::Hold if self.released > at => return None,
            Card::Hold => What::Hold(self.seconds(HOLD_SECONDS)),
            Card::Cut => {
                // A log stream that is mute and then ends in order, just before its pod is deleted, looks like one that
                // was read to its end, and there is no log left to compare it with.
                let how = if self.rng.bool() && !self.muted {
                    Cut::Clean
                } else {
                    Cut::Reset
                };
                What::Cut(self.streams(), how)
            }
            Card::Mute => What::Mute(self.streams(), self.seconds(MUTE_SECONDS)),
            Card::Refuse => {
                let verb = [Verb::Log, Verb::Log, Verb::Get, Verb::List, Verb::Watch][self.rng.usize(..5)];
                let status = [429, 500, 502, 503, 504][self.rng.usize(..5)];
                What::Refuse(verb, status, self.rng.u32(1..20))
            }
        })
    }

    /// Mostly those of logs.
    fn streams(&mut self) -> Verb {
        if self.rng.u32(..4) == 0 { Verb::Watch } else { Verb::Log }
    }

    /// Takes in that it happens.
    fn note(&mut self, what: &What, at: Duration) {
        let over = at + what.lasts();
        match what {
            What::Kill(slot, _) | What::Freeze(slot, _) | What::End(slot, _) => self.free[*slot] = over,
            What::Hold(_) => self.released = over,
            What::Mute(Verb::Log, _) => self.muted = true,
            What::Cut(Verb::Log, _) => self.muted = false,
            What::Cut(..) | What::Mute(..) | What::Refuse(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_mins(30);

    fn slot(what: &What) -> Option<usize> {
        match what {
            What::Kill(slot, _) | What::Freeze(slot, _) | What::End(slot, _) => Some(*slot),
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
            let acts = plan(seed, 3, HALF_AN_HOUR);
            assert!((60..200).contains(&acts.len()), "seed {seed}: {} acts", acts.len());
            assert!(acts.is_sorted_by_key(|act| act.at));
            assert!(
                acts.iter()
                    .all(|act| act.at >= FIRST && act.at + act.what.lasts() <= HALF_AN_HOUR)
            );
            let kinds = |is: fn(&What) -> bool| acts.iter().filter(|act| is(&act.what)).count();
            let lost_claims = |what: &What| matches!(what, What::Freeze(_, time) if time.as_secs() >= 22);
            for (kind, count) in [
                ("kill", kinds(|what| matches!(what, What::Kill(..)))),
                ("long freeze", kinds(lost_claims)),
                (
                    "freeze",
                    kinds(|what| matches!(what, What::Freeze(..))) - kinds(lost_claims),
                ),
                ("end", kinds(|what| matches!(what, What::End(..)))),
                ("hold", kinds(|what| matches!(what, What::Hold(_)))),
                ("cut", kinds(|what| matches!(what, What::Cut(..)))),
                ("mute", kinds(|what| matches!(what, What::Mute(..)))),
                ("refuse", kinds(|what| matches!(what, What::Refuse(..)))),
            ] {
                assert!(count >= 5, "seed {seed}: {kind} happens {count} times");
            }
        }
    }

    #[test]
    fn one_replica_is_left_alone_and_nothing_befalls_one_twice_at_a_time() {
        for seed in 0..50 {
            let acts = plan(seed, 3, HALF_AN_HOUR);
            let mut free = [Duration::ZERO; 3];
            for Act { at, what } in &acts {
                let Some(slot) = slot(what) else { continue };
                assert_ne!(slot, seed as usize % 3, "seed {seed}");
                assert!(free[slot] <= *at, "seed {seed}: {what:?} at {at:?}");
                free[slot] = *at + what.lasts();
            }
            assert!(plan(seed, 1, HALF_AN_HOUR).iter().all(|act| slot(&act.what).is_none()));
        }
    }

    #[test]
    fn half_a_minute_holds_some_of_it_and_no_time_nothing() {
        for seed in 0..50 {
            let acts = plan(seed, 3, Duration::from_secs(30));
            assert!(acts.len() >= 3, "seed {seed}: {acts:?}");
        }
        assert_eq!(plan(1, 3, Duration::ZERO), []);
    }
}
