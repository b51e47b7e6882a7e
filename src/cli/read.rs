//! Reads the command line, the variables and the settings file.
//!
//! Its only effect is to read the settings file. `config` decides what the settings mean and whether they are safe
//! together.

use std::ffi::OsString;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use super::commands::{Cli, all_flags, command};
use super::{file, show};
use crate::exit::Failure;

/// A command line that was read.
#[derive(Debug)]
pub struct Typed {
    /// The values.
    pub cli: Cli,
    /// The settings as TOML, each with its source; secrets are masked.
    pub settings: String,
    /// Variables whose names begin with `PODLOG_` and that podlog does not know. They are probably misspelled.
    pub unknown: Vec<String>,
}

/// Reads a command line, the variables, and the settings file that they name. A request for help or the version is
/// returned as [`Failure::help`].
pub fn read(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Typed, Failure> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let help = help_of(&args);
    let typed = command()
        .try_get_matches_from(&args)
        .map_err(|e| refuse(&e, None, &help))?;
    let cli = Cli::from_arg_matches(&typed).map_err(|e| refuse(&e, None, &help))?;
    let Some(path) = &cli.general.config else {
        let settings = show::settings(&typed, None);
        return Ok(Typed {
            cli,
            settings,
            unknown: unknown_variables(std::env::vars_os()),
        });
    };
    let file = file::SettingsFile::read(path)?;
    // Values of the file that nothing overrides are parsed like additional arguments.
    let more = file.args(&command(), &typed);
    let matches = command()
        .try_get_matches_from(args.iter().cloned().chain(more))
        .map_err(|e| refuse(&e, Some(&file), &help))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|e| refuse(&e, Some(&file), &help))?;
    let settings = show::settings(&matches, Some((&file, &typed)));
    Ok(Typed {
        cli,
        settings,
        unknown: unknown_variables(std::env::vars_os()),
    })
}

/// Converts an error of clap to one line. It quotes no secret: clap does not parse the values of flags that may be
/// secret.
fn refuse(error: &clap::Error, file: Option<&file::SettingsFile>, help: &str) -> Failure {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Failure::help(error.render().to_string());
    }
    let text = error.render().to_string();
    let message = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => "no command given".into(),
        _ => message,
    };
    match file {
        Some(file) => Failure::usage(format!("{}: {message}", file.name())).with_remedy("correct the file"),
        None => Failure::usage(message).with_remedy(format!("see {help}")),
    }
}

/// The command line that shows the help of the command that was typed.
fn help_of(args: &[OsString]) -> String {
    let mut innermost = command();
    let mut words = vec!["podlog".to_owned()];
    // Flags and their values stand between the words of a command.
    for word in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        let Some(next) = innermost.find_subcommand(word).filter(|next| !next.is_hide_set()) else {
            continue;
        };
        innermost = next.clone();
        words.push(word.to_owned());
    }
    words.push("--help".to_owned());
    words.join(" ")
}

/// Variables that podlog reads and that have no flag.
const OTHER_VARIABLES: [&str; 4] = [
    "PODLOG_LOCK_PASSWORD",
    "PODLOG_LOCK_PASSWORD_FILE",
    "PODLOG_SINK_PASSWORD",
    "PODLOG_SINK_PASSWORD_FILE",
];

/// Kubernetes sets these in every pod of a namespace that has a service named podlog.
const SERVICE_VARIABLES: [&str; 2] = ["PODLOG_SERVICE_", "PODLOG_PORT"];

/// Variables whose names begin with `PODLOG_` and that podlog does not know.
fn unknown_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let flags = all_flags(&command());
    variables
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("PODLOG_") && !name.starts_with("PODLOG_TEST_"))
        .filter(|name| !SERVICE_VARIABLES.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !OTHER_VARIABLES.contains(&name.as_str()))
        .filter(|name| {
            flags
                .iter()
                .all(|flag| flag.get_env().is_none_or(|env| env != name.as_str()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    #[test]
    fn a_wrong_flag_is_refused_on_one_line_that_names_the_nearest_flag() {
        let failure = read(["podlog", "run", "--tll", "3s"]).unwrap_err();
        let line = failure.to_string();
        assert_eq!(failure.code(), 2);
        assert!(
            line.contains("'--tll'") && line.contains("'--ttl'") && !line.contains('\n'),
            "{line}"
        );
        let line = read(["podlog", "run", "--ttl", "3"]).unwrap_err().to_string();
        assert!(
            line.contains("--ttl") && line.contains("such as 20s") && !line.contains('\n'),
            "{line}"
        );
        let line = read(["podlog"]).unwrap_err().to_string();
        assert_eq!(line, "no command given; see podlog --help");
        for (args, help) in [
            (&["podlog", "walk"][..], "see podlog --help"),
            (&["podlog", "run", "--tll=3s"], "see podlog run --help"),
            (&["podlog", "--log-format", "xml", "check"], "see podlog check --help"),
            (&["podlog", "locks", "release"], "see podlog locks release --help"),
        ] {
            let line = read(args).unwrap_err().to_string();
            assert!(line.ends_with(help), "{line}");
        }
    }

    #[test]
    fn a_request_for_help_has_exit_status_0() {
        let failure = read(["podlog", "run", "--help"]).unwrap_err();
        assert_eq!(failure.code(), 0);
        for flag in [
            "--lock",
            "--ttl",
            "--streams-per-node",
            "PODLOG_POLL_INTERVAL",
            "terminationGracePeriodSeconds",
        ] {
            assert!(failure.to_string().contains(flag), "{flag}");
        }
    }

    #[test]
    fn a_switch_may_have_a_value() {
        let opt_in = |args: &[&str]| match read(args).unwrap().cli.command {
            Command::Run(run) => run.pods.opt_in,
            _ => panic!("not run"),
        };
        assert!(!opt_in(&["podlog", "run"]));
        assert!(opt_in(&["podlog", "run", "--opt-in"]));
        assert!(!opt_in(&["podlog", "run", "--opt-in=false"]));
        assert!(opt_in(&["podlog", "run", "--opt-in=yes"]));
    }

    #[test]
    fn unknown_variables_are_found() {
        let names = [
            "PODLOG_TTLL",
            "PODLOG_TTL",
            "PODLOG_SERVICE_HOST",
            "PODLOG_LOCK_PASSWORD",
            "HOME",
        ];
        let variables = names.iter().map(|name| (OsString::from(name), OsString::new()));
        assert_eq!(unknown_variables(variables), ["PODLOG_TTLL"]);
    }
}
