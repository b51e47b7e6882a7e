//! Runs the demo of the built binary, with real processes, a real SIGKILL and a real database file. It checks what the
//! demo prints and leaves behind, not how it counts. It finds processes in `/proc`.

#![cfg(target_os = "linux")]
// A binary that cannot be started should panic.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than any demo started here may take.
const PATIENCE: Duration = Duration::from_secs(50);

/// A demo whose directory is `dir`, so that its processes can be distinguished from others.
fn demo(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.arg("demo").args(args).env("TMPDIR", dir);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Processes that have `dir` in their arguments, as every replica of a demo there has.
fn replicas(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let args = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&args).contains(dir.to_str().unwrap()) {
            found.push(process.path());
        }
    }
    found
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Waits until something holds; false when it did not in time.
fn comes_true(within: Duration, mut what: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Runs a demo to its end. Returns its exit status, the JSON it printed, and its messages.
fn play(args: &[&str]) -> (Option<i32>, Value, String) {
    play_within(PATIENCE, args)
}

fn play_within(patience: Duration, args: &[&str]) -> (Option<i32>, Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let output = demo(dir.path(), args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(begun.elapsed() < patience, "it took {:?}\n{said}", begun.elapsed());
    assert_eq!(replicas(dir.path()), [] as [PathBuf; 0]);
    assert_eq!(files(dir.path()), 0, "the directory was not removed");
    let printed = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}\n{said}"));
    (output.status.code(), printed, said)
}

#[test]
fn a_demo_with_a_killed_replica_is_clean() {
    let (status, printed, said) = play(&["--json", "--duration=10s", "--pods=20"]);
    assert_eq!(status, Some(0), "{printed}\n{said}");
    assert_eq!(printed["clean"], true);
    assert!(printed["written"].as_u64() > Some(5_000), "{printed}");
    assert_eq!(printed["written"], printed["delivered"]);
    // The ttl of 20 s since the last renewal, the grace of 1 s, and some for a busy machine.
    let took = printed["takeover_s"].as_f64().unwrap();
    assert!((10.0..25.0).contains(&took), "{printed}");
    assert!(
        said.contains("was killed with SIGKILL") && said.contains("seed "),
        "{said}"
    );
}

#[test]
fn without_claims_every_line_is_stored_three_times() {
    let (status, printed, said) = play(&["--json", "--duration=5s", "--pods=20", "--claims=off"]);
    assert_eq!(status, Some(1), "{printed}\n{said}");
    let count = |name: &str| printed[name].as_u64().unwrap();
    assert_eq!(count("delivered"), 3 * count("written"), "{printed}");
    assert_eq!(count("duplicated"), 2 * count("written"));
    assert_eq!(count("lost") + count("foreign"), 0);
    assert!(said.contains("stored 3 times"), "{said}");
}

#[test]
fn a_soak_with_random_faults_loses_nothing_and_stores_nothing_twice() {
    // With this seed the soak has a kill, a freeze beyond the ttl and a locked store.
    let args = ["--json", "--soak=45s", "--chaos", "--pods=20", "--seed=15"];
    // The soak itself, 90 s for what is not stored yet, and some to start and to end.
    let (status, printed, said) = play_within(Duration::from_secs(160), &args);
    assert_eq!(status, Some(0), "{printed}\n{said}");
    for wrong in ["lost", "duplicated", "out_of_order", "foreign"] {
        assert_eq!(printed[wrong], 0, "{printed}\n{said}");
    }
    assert!(printed["written"].as_u64() > Some(5_000), "{printed}");
    assert!(printed["soak"]["faults"].as_u64() > Some(5), "{printed}");
    for event in [
        "was killed with SIGKILL",
        "the store's file is locked",
        "started in place of",
        "continues",
    ] {
        assert!(said.contains(event), "{event} is not in\n{said}");
    }
    let frozen = said.split("is frozen with SIGSTOP for ").skip(1);
    let longest = frozen
        .filter_map(|rest| rest.split_once(' ')?.0.parse().ok())
        .fold(0.0, f64::max);
    assert!(
        longest > 20.0,
        "no replica is frozen for longer than a claim lasts:\n{said}"
    );
    let used = &printed["soak"]["figures"]["replicas"];
    for figure in ["memory_mib", "open_files", "threads"] {
        assert!(used[figure]["end"].as_f64() > Some(1.0), "{printed}");
        assert!(used[figure]["slope_per_hour"].is_f64(), "{printed}");
    }
}

#[test]
fn chaos_without_a_soak_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &["--chaos"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--soak 30m --chaos"), "{said}");
}

/// A demo whose replicas have started.
fn started(dir: &Path) -> Child {
    let child = demo(dir, &["--replicas=2"]).spawn().unwrap();
    assert!(comes_true(PATIENCE, || replicas(dir).len() == 2), "no replicas came up");
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let child = started(dir.path());
    send(&child, Signal::INT);
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(replicas(dir.path()), [] as [PathBuf; 0]);
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn the_replicas_of_a_killed_demo_exit_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = started(dir.path());
    send(&child, Signal::KILL);
    child.wait().unwrap();
    let gone = comes_true(PATIENCE, || replicas(dir.path()).is_empty());
    assert!(gone, "still there: {:?}", replicas(dir.path()));
}
