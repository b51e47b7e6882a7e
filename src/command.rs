//! Reads the command line, sets up logging, signals and the runtime, and runs the chosen command.
//!
//! It creates the runtime of everything except the renewer. It never decides what a setting means.

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command, Locks, flags};
use crate::config::{Config, LockConfig, Passwords, SinkConfig, Unreadable, checked};
use crate::exit::Failure;
use crate::{admin, backends, cli, stop, telemetry};

/// How long the process waits for blocking calls after the command has ended.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

/// What `podlog demo` and `podlog simulate` say in a build that does not have them.
#[cfg(not(feature = "lab"))]
const WITHOUT_LAB: &str = "this podlog was built without its laboratory; run `cargo run --release -- demo` or `cargo run --release -- simulate` in a clone of its repository";

/// Runs the command of a command line.
pub fn execute(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let typed = cli::read(args)?;
    if let Command::Completions { shell } = typed.cli.command {
        print(|out| clap_complete::generate(shell, &mut cli::command(), "podlog", out));
        return Ok(());
    }
    if let Command::Run(run) | Command::Check { run, .. } = &typed.cli.command
        && run.process.print_config
    {
        print(|out| out.extend_from_slice(typed.settings.as_bytes()));
        // Invalid settings are printed before the error, because they explain it.
        return checked(run, &Passwords::from_env()?).map(drop);
    }
    #[cfg(not(feature = "lab"))]
    if let Command::Demo(_) | Command::Simulate(_) = &typed.cli.command {
        return Err(Failure::usage(WITHOUT_LAB));
    }
    #[cfg(feature = "lab")]
    if let Command::Simulate(simulate) = &typed.cli.command {
        // A thousand histories would log too much to read, so they log only if a log level is set.
        if typed.cli.general.log_level.is_some() {
            telemetry::start(typed.cli.general.log_level.as_deref(), typed.cli.general.log_format)?;
        }
        return crate::lab::simulate(simulate);
    }
    telemetry::start(typed.cli.general.log_level.as_deref(), typed.cli.general.log_format)?;
    for variable in &typed.unknown {
        tracing::warn!(
            variable,
            "this environment variable begins with PODLOG_ but is not a setting; check its spelling"
        );
    }
    if matches!(typed.cli.command, Command::Run(_)) {
        stop::die_with_parent();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Failure::failed(format!("threads cannot be started: {e}")).with_remedy("raise the process limits")
        })?;
    let outcome = runtime.block_on(work(typed.cli));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    outcome
}

/// Runs a command until it ends or is stopped by signals.
async fn work(cli: Cli) -> Result<(), Failure> {
    let signals = stop::Signals::catch()?;
    let token = CancellationToken::new();
    let passwords = Passwords::from_env();
    if let Command::Check { json, run } = cli.command {
        let config = settings_to_check(&run, passwords);
        return stop::run(signals, token.clone(), Box::pin(crate::check(config, json, token))).await;
    }
    let passwords = passwords?;
    match cli.command {
        Command::Run(run) => {
            let config = checked(&run, &passwords)?;
            stop::run(signals, token.clone(), crate::run(config, token)).await
        }
        #[cfg(feature = "lab")]
        Command::Demo(demo) => stop::run(signals, token.clone(), crate::lab::demo(demo, token)).await,
        Command::Migrate(flags::Migrate { lock, sink }) => {
            let (store, sink) = (LockConfig::new(&lock, &passwords)?, SinkConfig::new(&sink, &passwords)?);
            stop::run(signals, token.clone(), backends::migrate(store, sink, token)).await
        }
        Command::Locks(locks) => {
            let (Locks::List { lock, .. } | Locks::Release { lock, .. }) = &locks;
            let store = LockConfig::new(lock, &passwords)?;
            stop::run(signals, token.clone(), admin::execute(store, locks, token)).await
        }
        #[cfg(not(feature = "lab"))]
        Command::Demo(_) => Ok(()),
        // These ended above, or in `execute` because they need no runtime.
        Command::Check { .. } | Command::Completions { .. } | Command::Simulate(_) => Ok(()),
    }
}

/// The settings of `podlog check`, or each that cannot be read: those of passwords, and those of flags.
fn settings_to_check(run: &flags::Run, passwords: Result<Passwords, Unreadable>) -> Result<Config, Unreadable> {
    let mut unreadable = match passwords {
        Ok(passwords) => return Config::unchecked(run, &passwords),
        Err(unreadable) => unreadable,
    };
    if let Err(Unreadable(others)) = Config::unchecked(run, &Passwords::default()) {
        unreadable.0.extend(others);
    }
    Err(unreadable)
}

/// Writes a text to stdout. A closed stdout is not a failure.
fn print(fill: impl FnOnce(&mut Vec<u8>)) {
    let mut text = Vec::new();
    fill(&mut text);
    std::io::stdout().write_all(&text).ok();
}

#[cfg(all(test, not(feature = "lab")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_laboratory_says_how_to_get_it() {
        for arguments in [&["demo"][..], &["demo", "--pods", "3"], &["simulate", "--help"]] {
            let line = [&["podlog"][..], arguments].concat();
            let failure = execute(line.into_iter().map(OsString::from)).unwrap_err();
            assert_eq!(failure.code(), 2);
            assert!(failure.to_string().contains("cargo run --release"), "{failure}");
        }
    }

    #[test]
    fn the_help_of_a_build_without_the_laboratory_does_not_offer_it() {
        let help = cli::command().render_long_help().to_string();
        assert!(!help.contains("demo") && !help.contains("simulate"), "{help}");
    }
}
