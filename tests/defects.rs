//! That the simulation can fail: every deliberate defect is found within so many histories.
//!
//! `PODLOG_TEST_WRITE_TABLES=1 cargo test --release --features defects --test defects` writes what it found to
//! `tests/SIMULATION.md`. `PODLOG_TEST_DEFECT=NAME` looks for one only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use podlog::defect::{Defect, choose};
use podlog::simulate::play::play;
use podlog::simulate::{Breach, History, shrink};

/// Histories in which a defect must be found.
const HISTORIES: u64 = 2_000;

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
                    // A smaller seed may still be under way elsewhere; those that follow are not begun.
                    if seed >= HISTORIES || found.lock().unwrap().is_some() {
                        return;
                    }
                    if let Some(breach) = play(&History::of(seed)).breach {
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

#[test]
fn every_deliberate_defect_is_found() {
    let only = std::env::var("PODLOG_TEST_DEFECT").ok();
    let mut table =
        String::from("| defect | found with seed | broken rule | steps that suffice |\n|---|---|---|---|\n");
    let mut missed = Vec::new();
    for defect in Defect::ALL {
        let name = format!("{defect:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        choose(Some(defect));
        let Some((seed, breach)) = find() else {
            println!("{name}: not found");
            missed.push(name);
            continue;
        };
        let rule = breach.rule;
        let same = |history: &History| play(history).breach.is_some_and(|breach| breach.rule == rule);
        let shrunk = shrink(&History::of(seed), 150, same);
        println!("{name}: seed {seed}: {breach}\n{shrunk}");
        writeln!(
            table,
            "| `{name}` | {seed} | {} | {} |",
            rule.as_str(),
            shrunk.steps.len()
        )
        .unwrap();
    }
    choose(None);
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
