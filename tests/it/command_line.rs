//! The command line of the built binary: where settings come from, what it prints, its exit status, and real signals.
//! It never collects anything.

use std::process::{Command, Output};
use std::time::Duration;

use podlog::exit::Failure;
use podlog::stop;
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs the binary with these variables and no other `PODLOG_*`.
fn podlog(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(args).envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_flag_overrides_its_variable_and_a_variable_overrides_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("podlog.toml");
    std::fs::write(
        &file,
        "ttl = '31s'\nmargin = '6s'\nrenew = '4s'\nnamespace = ['x', 'y']\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let variables = [("PODLOG_CONFIG", path), ("PODLOG_TTL", "32s"), ("PODLOG_MARGIN", "7s")];
    let output = podlog(&["run", "--print-config", "--ttl=33s"], &variables);
    let shown = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for line in [
        "ttl = \"33s\" # --ttl".to_owned(),
        "margin = \"7s\" # PODLOG_MARGIN".to_owned(),
        format!("renew = \"4s\" # {path}"),
        format!("namespace = [\"x\", \"y\"] # {path}"),
        "grace = \"20s\" # default".to_owned(),
    ] {
        assert!(shown.lines().any(|l| l == line), "{line} not in\n{shown}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let url = "mysql://u:hunter2@db/podlog";
    for (args, password) in [
        (&["run", "--print-config"][..], None),
        (&["run", "--help"], None),
        (&["run", "--ttl=1s"], None),
        (&["run", "--tll"], None),
        (&["run"], Some(("PODLOG_LOCK_PASSWORD", "hunter2"))),
        (&["locks", "list", "--cluster="], None),
    ] {
        let variables: Vec<_> = [("PODLOG_LOCK", url), ("PODLOG_SINK", url)]
            .into_iter()
            .chain(password)
            .collect();
        let output = podlog(args, &variables);
        let all = stdout(&output) + &stderr(&output);
        assert!(!all.contains("hunter2") && !all.is_empty(), "{args:?}: {all}");
    }
}

#[test]
fn a_usage_error_is_reported_on_one_line_with_status_2() {
    for args in [
        &["run", "--ttl=1s"][..],
        &["run", "--tll=1s"],
        &["run", "--config=/nowhere.toml"],
        &["run"],
        &["walk"],
        &[],
    ] {
        let output = podlog(args, &[("PODLOG_SINK", "no url")]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            said.starts_with("podlog: ") && said.matches('\n').count() == 1,
            "{args:?}: {said}"
        );
    }
}

#[test]
fn a_misspelt_variable_is_warned_about_in_the_chosen_log_format() {
    let variables = [
        ("PODLOG_TTLL", "1s"),
        ("PODLOG_LOG_FORMAT", "json"),
        ("PODLOG_SINK", "no url"),
    ];
    let said = stderr(&podlog(&["run"], &variables));
    let event: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(event["variable"], "PODLOG_TTLL", "{said}");
    assert_eq!(event["level"], "WARN");
    let quiet = stderr(&podlog(&["run", "--log-level=error"], &variables));
    assert!(!quiet.contains("TTLL"), "{quiet}");
}

#[test]
fn a_misspelt_log_level_is_refused_with_the_list_of_levels() {
    for (args, variables) in [
        (&["run", "--log-level=wran"][..], &[][..]),
        (&["check"], &[("PODLOG_LOG_LEVEL", "info,wran")]),
        (&["locks", "list"], &[("RUST_LOG", "wran")]),
    ] {
        let output = podlog(args, variables);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            said.contains("wran") && said.contains("use error, warn, info, debug, trace or off"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = podlog(&["completions", shell], &[]);
        assert!(output.status.success());
        assert!(stdout(&output).contains("streams-per-node"), "{shell}");
    }
}

#[tokio::test]
async fn the_first_signal_requests_a_shutdown_and_the_second_one_exits_at_once() {
    let stop = CancellationToken::new();
    let (told, asked) = oneshot::channel();
    let work = {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            told.send(()).ok();
            std::future::pending::<Result<(), Failure>>().await
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(stop::run(stop::Signals::catch().unwrap(), stop, work));
    let second = Duration::from_secs(10);
    kill_process(getpid(), Signal::TERM).unwrap();
    tokio::time::timeout(second, asked).await.unwrap().unwrap();
    kill_process(getpid(), Signal::INT).unwrap();
    let outcome = tokio::time::timeout(second, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(outcome.unwrap_err().code(), 130);

    let stop = CancellationToken::new();
    let asked = stop.clone();
    let work = async move {
        asked.cancelled().await;
        Err(Failure::failed("its own end"))
    };
    tasks.spawn(stop::run(stop::Signals::catch().unwrap(), stop, work));
    kill_process(getpid(), Signal::TERM).unwrap();
    let outcome = tokio::time::timeout(second, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(outcome, Err(Failure::failed("its own end")));
}
