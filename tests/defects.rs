//! Shows that the simulation can fail: it must find every deliberate defect within a number of histories.
//!
//! `PODLOG_TEST_WRITE_TABLES=1 cargo test --release --features defects --test defects` writes the result to
//! `tests/SIMULATION.md`. `PODLOG_TEST_DEFECT=NAME` tests one defect only. The test also fails if a history that shows
//! a defect fails without it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use podlog::defect::{Defect, choose};
use podlog::lab::simulate::play::play;
use podlog::lab::simulate::{Breach, History, random_history, shrink};

/// Histories in which a defect must be found.
const HISTORIES: u64 = 2_000;

/// How many plays the shortening of a history may cost.
const ATTEMPTS: u32 = 60;

const HEAD: &str = "| defect | what it does | found after so many histories | broken rule | steps that suffice |\n\
                    |---|---|---|---|---|\n";
const BEGIN: &str = "<!-- defects: made by the tests -->\n";
const END: &str = "<!-- end of defects -->";

/// The first seed whose history breaks a rule, and how.
fn find() -> Option<(u64, Breach)> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None::<(u64, Breach)>));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // A smaller seed may still be running on another thread; larger ones are not started.
                    if seed >= HISTORIES || found.lock().unwrap().is_some() {
                        return;
                    }
                    if let Some(breach) = play(&random_history(seed)).breach {
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(least, _)| seed < *least) {
                            *found = Some((seed, breach));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// The description of a defect from `src/defect.rs`.
fn says(name: &str) -> String {
    let source = include_str!("../src/defect.rs");
    let (before, _) = source.split_once(&format!("\n    {name},\n")).unwrap();
    let lines: Vec<&str> = before
        .lines()
        .rev()
        .map_while(|line| line.trim().strip_prefix("/// "))
        .collect();
    let words: Vec<&str> = lines.into_iter().rev().collect();
    words.join(" ")
}

/// Searches for a defect, and returns the result as a row of the table.
fn row(defect: Defect) -> Option<String> {
    let begun = Instant::now();
    choose(Some(defect));
    let found = find();
    let Some((seed, breach)) = found else {
        println!("{defect:?}: not found in {:.0?}", begun.elapsed());
        return None;
    };
    let rule = breach.rule;
    let same = |history: &History| play(history).breach.is_some_and(|breach| breach.rule == rule);
    let shrunk = shrink(&random_history(seed), ATTEMPTS, same);
    println!("{defect:?}: seed {seed} in {:.0?}: {breach}\n{shrunk}", begun.elapsed());
    choose(None);
    let anyway = play(&random_history(seed)).breach;
    assert_eq!(anyway, None, "seed {seed} breaks a rule without {defect:?}");
    let (name, steps) = (format!("{defect:?}"), shrunk.steps.len());
    let (what, rule) = (says(&name), rule.as_str());
    Some(format!("| `{name}` | {what} | {} | {rule} | {steps} |\n", seed + 1))
}

#[test]
fn every_deliberate_defect_is_found() {
    let only = std::env::var("PODLOG_TEST_DEFECT").ok();
    let named = |name: &String| Defect::ALL.iter().any(|defect| *name == format!("{defect:?}"));
    assert!(only.as_ref().is_none_or(named), "there is no defect {only:?}");
    let mut table = String::from(HEAD);
    let mut missed = Vec::new();
    for defect in Defect::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{defect:?}")) {
            continue;
        }
        match row(defect) {
            Some(row) => table.push_str(&row),
            None => missed.push(defect),
        }
    }
    println!("{table}");
    assert!(missed.is_empty(), "not found within {HISTORIES} histories: {missed:?}");
    if std::env::var("PODLOG_TEST_WRITE_TABLES").as_deref() == Ok("1") && only.is_none() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/SIMULATION.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (head, rest) = text.split_once(BEGIN).unwrap();
        let (_, tail) = rest.split_once(END).unwrap();
        std::fs::write(path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
    }
}
