//! Tests of which settings are accepted and which are refused, and of the messages.

use std::time::Duration;

use super::*;
use crate::cli::{Command, read};
use crate::exit::Failure;

fn config(args: &[&str]) -> Result<Config, Failure> {
    let typed = read(["podlog", "run"].iter().chain(args)).unwrap();
    match typed.cli.command {
        Command::Run(run) => checked(&run, &Passwords::default()),
        _ => panic!("not run"),
    }
}

fn refusal(args: &[&str]) -> String {
    let failure = config(args).expect_err(&args.join(" "));
    let line = failure.to_string();
    assert_eq!(failure.code(), 2, "{line}");
    assert!(
        !line.contains('\n') && line.contains(';'),
        "one line with a remedy: {line}"
    );
    line
}

#[test]
fn the_defaults_are_safe() {
    let config = config(&[]).unwrap();
    assert_eq!(config.lease.ttl, Duration::from_secs(20));
    assert_eq!(config.store.url.to_string(), "sqlite://podlog.db");
    assert_eq!(config.sink.url.to_string(), "stdout");
    assert_eq!(config.http, Some(([127, 0, 0, 1], 9464).into()));
    assert!(config.migrate);
}

#[test]
fn times_that_would_lose_claims_are_refused_with_the_arithmetic() {
    assert!(config(&["--ttl=16s", "--write-timeout=3s"]).is_ok());
    let line = refusal(&["--ttl=15s"]);
    assert!(
        line.contains("margin 5s + renew 5s + 2 x statement deadline 3s = 16s"),
        "{line}"
    );
    // A renewal that is not answered is not sent again before its deadline, however short the interval.
    let line = refusal(&["--ttl=10s", "--renew=1s", "--margin=5s", "--write-timeout=1s"]);
    assert!(
        line.contains(
            "margin 5s + statement deadline 3s, which is longer than renew + 2 x statement deadline 3s = 14s"
        ),
        "{line}"
    );
    assert!(config(&["--ttl=14s", "--renew=1s", "--margin=5s", "--write-timeout=3s"]).is_ok());
    assert!(refusal(&["--margin=1s"]).contains("at least 1s 20ms"));
    assert!(refusal(&["--write-timeout=8s"]).contains("leaves 7s for a write"));
    assert!(refusal(&["--grace=7s"]).contains("use at least 8s"));
    assert!(refusal(&["--renew=0s"]).contains("--renew"));
    assert!(refusal(&["--takeover-grace=1m"]).contains("--takeover-grace"));
}

#[test]
fn times_that_are_too_long_are_refused_before_they_are_added_up() {
    for flag in ["ttl", "renew", "margin", "takeover-grace", "write-timeout", "grace"] {
        for time in ["18446744073709551615s", "584542046090y", "25h"] {
            let line = refusal(&[&format!("--{flag}={time}")]);
            assert!(line.contains("use at most 1day"), "{line}");
        }
        let line = config(&[&format!("--{flag}=1day")]).map_err(|failure| failure.to_string());
        assert!(
            line.as_ref().err().is_none_or(|line| !line.contains("at most 1day")),
            "{line:?}"
        );
    }
    let sink = "--sink=sqlite://records.db";
    assert!(refusal(&[sink, "--retain=18446744073709551615s"]).contains("--retain"));
    assert!(config(&[sink, "--retain=100years"]).is_ok());
}

#[test]
fn sizes_counts_and_spans_out_of_range_are_refused() {
    assert!(refusal(&["--max-line=4095"]).contains("--max-line 4095B"));
    assert!(config(&["--max-line=4KiB"]).is_ok());
    for args in [
        "--chunk-bytes=1GiB",
        "--max-pods=0",
        "--open-rate=0",
        "--reopen=4h",
        "--reopen=1s",
        "--probe=1s",
        "--poll-interval=0s",
        "--chunk-age=1m",
        "--retain=7d",
    ] {
        let line = refusal(&[args]);
        assert!(line.contains(args.split_once('=').unwrap().0), "{line}");
    }
    assert!(config(&["--retain=7d", "--sink=mysql://h/d"]).is_ok());
}

#[test]
fn an_invalid_url_is_refused_without_repeating_it() {
    let line = refusal(&["--lock=root:hunter2@tcp(db)/podlog"]);
    assert!(
        !line.contains("hunter2") && line.contains("mysql://user@host/database"),
        "{line}"
    );
}

#[test]
fn unknown_stores_sinks_and_invalid_namespaces_are_refused() {
    assert!(refusal(&["--lock=redis://h/d"]).contains("no lock store redis"));
    assert!(refusal(&["--sink=kafka://h/d"]).contains("no sink `kafka`"));
    assert!(refusal(&["--namespace=A B"]).contains("A B"));
    assert!(refusal(&["--sink=sqlite::memory:"]).contains("--sink"));
}

#[test]
fn a_replica_has_a_new_identity_at_each_start() {
    let name = |args: &[&str]| config(args).unwrap().replica.to_string();
    let (one, two) = (name(&["--replica-id=a"]), name(&["--replica-id=a"]));
    assert!(one.starts_with("a#") && one.len() == 10 && one != two, "{one} {two}");
    assert!(refusal(&["--replica-id=a b"]).contains("--replica-id"));
    assert!(refusal(&["--cluster="]).contains("--cluster"));
}

#[test]
fn namespaces_are_sorted_and_unique() {
    let namespaces = config(&["--namespace=b,a", "--namespace", "b"])
        .unwrap()
        .selection
        .namespaces;
    assert_eq!(namespaces, ["a", "b"]);
}

#[test]
fn a_config_shows_no_secret() {
    let config = config(&["--lock=mysql://u:hunter2@h/d", "--sink=mysql://u:hunter2@h/d"]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.store.url.to_string(), "mysql://u:***@h/d");
}
