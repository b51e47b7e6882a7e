//! `podlog simulate`: plays the histories of many seeds on all cores, and prints a short history for each of the first
//! that fail.
//!
//! It prints progress to stderr and the outcome to stdout. It needs no server and starts no runtime.

use std::fmt;
use std::io::Write as _;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::play::{RunOutcome, play};
use super::random::random_history;
use super::shrink::shrink;
use crate::cli::lab::Simulate;
use crate::exit::Failure;

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How many times a history is played to make it shorter. That takes about a minute.
const SHRINK_ATTEMPTS: u32 = 300;

/// How many failed histories are printed. Of further ones only the seed is printed.
const SHOWN_HISTORIES: usize = 3;

/// The totals of all histories.
#[derive(Debug, Default)]
struct Summary {
    histories: u64,
    failed: Vec<u64>,
    steps: usize,
}

/// `podlog simulate`. Fails with status 1 when a history fails.
pub fn simulate(flags: &Simulate) -> Result<(), Failure> {
    let begun = Instant::now();
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    let seeds = flags.seeds.0.clone();
    let summary = play_all(seeds.clone(), flags.jobs.map_or_else(cores, |jobs| jobs as usize));
    let (failed, seconds) = (summary.failed.len(), begun.elapsed().as_secs_f64());
    print_line(format_args!(
        "simulate: histories={} failed={failed} steps={} seconds={seconds:.1}",
        summary.histories, summary.steps
    ));
    match summary.failed.first() {
        None => Ok(()),
        Some(seed) => Err(
            Failure::failed(format!("{failed} of {} histories broke a rule", summary.histories))
                .with_remedy(format!("play the first again with --seeds {seed}..{}", seed + 1)),
        ),
    }
}

fn play_all(seeds: Range<u64>, jobs: usize) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, seeds, sender) = (&next, &seeds, sender.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sender.send((seed, play(&random_history(seed)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        collect_outcomes(&outcomes, seeds.end - seeds.start)
    })
}

fn collect_outcomes(outcomes: &mpsc::Receiver<(u64, RunOutcome)>, all: u64) -> Summary {
    let (mut summary, mut last_progress) = (Summary::default(), Instant::now());
    for (seed, outcome) in outcomes {
        summary.histories += 1;
        summary.steps += outcome.steps;
        if let Some(breach) = &outcome.breach {
            summary.failed.push(seed);
            print_line(format_args!("simulate: seed {seed}: {breach}"));
            if summary.failed.len() <= SHOWN_HISTORIES {
                show(seed, &outcome);
            }
        }
        if last_progress.elapsed() >= PROGRESS_INTERVAL {
            last_progress = Instant::now();
            let (done, failed) = (summary.histories, summary.failed.len());
            writeln!(
                std::io::stderr(),
                "simulate: {done} of {all} histories, {failed} failed"
            )
            .ok();
        }
    }
    summary.failed.sort_unstable();
    summary
}

/// Prints a short history that breaks the same rule.
fn show(seed: u64, outcome: &RunOutcome) {
    let rule = |outcome: &RunOutcome| outcome.breach.as_ref().map(|breach| breach.rule);
    let shrunk = shrink(&random_history(seed), SHRINK_ATTEMPTS, |history| {
        rule(&play(history)) == rule(outcome)
    });
    if let Some(breach) = play(&shrunk).breach {
        let steps = shrunk.steps.len();
        print_line(format_args!(
            "simulate: seed {seed} with {steps} steps: {breach}\n{shrunk}"
        ));
    }
}

/// A closed stdout is not a failure.
fn print_line(text: impl fmt::Display) {
    writeln!(std::io::stdout(), "{text}").ok();
}
