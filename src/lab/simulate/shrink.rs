//! Shortens a history that fails: it removes steps as long as the history still fails (delta debugging).
//!
//! The number of attempts is limited. It never looks at what a step does.

use super::history::{History, Step};

/// The shortest history found that still `fails`, with at most this many attempts. It first removes halves, and at last
/// single steps.
#[must_use]
pub fn shrink(history: &History, attempts: u32, fails: impl Fn(&History) -> bool) -> History {
    let mut best = history.clone();
    let mut left = attempts;
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 {
        let (mut at, mut shrunk) = (0, false);
        while at < best.steps.len() {
            if left == 0 {
                return best;
            }
            left -= 1;
            let end = (at + size).min(best.steps.len());
            let steps: Vec<Step> = [&best.steps[..at], &best.steps[end..]].concat();
            let shorter = best.with(steps);
            if fails(&shorter) {
                (best, shrunk) = (shorter, true);
            } else {
                at = end;
            }
        }
        if !shrunk || size > 1 {
            size /= 2;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::history::Action;
    use super::super::random::random_history;
    use super::*;

    #[test]
    fn a_history_is_shortened_to_the_steps_that_make_it_fail() {
        let history = random_history(1);
        let steps = (0..60).map(|number| Step(Action::Rotate(number), 20)).collect();
        let history = history.with(steps);
        let has = |history: &History, number| history.steps.contains(&Step(Action::Rotate(number), 20));
        let shrunk = shrink(&history, 1000, |history| has(history, 7) && has(history, 41));
        assert_eq!(
            shrunk.steps,
            [Step(Action::Rotate(7), 20), Step(Action::Rotate(41), 20)]
        );
    }

    #[test]
    fn the_number_of_attempts_is_limited() {
        let count = std::cell::Cell::new(0);
        let shrunk = shrink(&random_history(1), 9, |_| {
            count.set(count.get() + 1);
            false
        });
        assert_eq!((shrunk, count.get()), (random_history(1), 9));
    }
}
