//! What was typed: the command line, the variables and the settings file, in this order of weight.
//!
//! Reading has no effect but reading the settings file. What the settings mean, and whether they
//! are safe together, is decided in `config`.

pub mod file;
pub mod flags;
#[cfg(feature = "lab")]
pub mod lab;
pub mod show;
pub mod units;
#[cfg(not(feature = "lab"))]
pub mod without_lab;

use std::ffi::OsString;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exit::Failure;

/// Collects the logs of Kubernetes pods, each line once, from any number of equal replicas.
///
/// Every flag is also a variable of the same name: `--poll-interval` is `PODLOG_POLL_INTERVAL`. A flag
/// goes before its variable, a variable before the settings file (--config).
///
/// Exit status: 0 all is well; 1 failed; 2 a wrong flag or setting; 3 the API server or a database cannot be reached; 4 refused by one of them; 130 or 143
/// stopped by a second SIGINT or SIGTERM.
#[derive(Parser, Clone, Debug)]
#[command(name = "podlog", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub general: flags::General,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What podlog can do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Collect logs until told to stop.
    Run(Box<flags::Run>),
    /// Collect the logs of a simulated cluster with several replicas, kill one, and count the lines.
    ///
    /// The exit status is 1 when the audit of the lines is not clean.
    #[cfg(feature = "lab")]
    Demo(lab::Demo),
    /// Play random histories of several replicas in virtual time, and look for broken promises.
    ///
    /// Needs no cluster, no database and no network. Pods come, write, crash and go, and replicas, the lock store, the
    /// API server and the sink fail in all ways known, as a seed says; all of it in one process whose clock is made.
    /// The exit status is 1 when a promise is broken; the seed and a short history that does it are printed.
    #[cfg(feature = "lab")]
    Simulate(lab::Simulate),
    /// Not in this build.
    #[cfg(not(feature = "lab"))]
    #[command(hide = true)]
    Demo(without_lab::Arguments),
    /// Not in this build.
    #[cfg(not(feature = "lab"))]
    #[command(hide = true)]
    Simulate(without_lab::Arguments),
    /// Look whether everything is there that `podlog run` needs with these settings, and say what is missing.
    ///
    /// Takes the settings of `podlog run`. Connects to the lock store, the sink and the API server, tries the
    /// rights, and leaves nothing behind. The exit status is 0 when all is well, otherwise as of `podlog run`.
    Check {
        /// Print JSON.
        #[arg(long, env = "PODLOG_JSON", action = clap::ArgAction::Set, default_value_t = false)]
        json: bool,
        #[command(flatten)]
        #[allow(missing_docs)]
        run: Box<flags::Run>,
    },
    /// Create or update the tables of the lock store and of the sink.
    Migrate(flags::Migrate),
    /// Look at the claims, or free one.
    #[command(subcommand)]
    Locks(Locks),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What can be done with claims.
#[derive(Subcommand, Clone, Debug)]
pub enum Locks {
    /// Show all claims: who holds which pod, and until when.
    List {
        /// Print JSON.
        #[arg(long, env = "PODLOG_JSON", action = clap::ArgAction::Set, default_value_t = false)]
        json: bool,
        #[command(flatten)]
        #[allow(missing_docs)]
        claims: flags::Claims,
    },
    /// Free the claim on a pod, whoever holds it. The holder stops, another replica goes on at its checkpoint.
    Release {
        /// The pod.
        #[arg(value_name = "NAMESPACE/POD")]
        pod: String,
        /// The incarnation of the pod, when there are several.
        #[arg(long, env = "PODLOG_UID", value_name = "UID")]
        uid: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs)]
        claims: flags::Claims,
    },
}

/// A command line, read.
#[derive(Debug)]
pub struct Typed {
    /// The values.
    pub cli: Cli,
    /// The settings as TOML, each with where it came from; secrets masked.
    pub settings: String,
    /// Variables whose names begin like ours and mean nothing: probably typing errors.
    pub unknown: Vec<String>,
}

/// The commands and flags as clap knows them.
#[must_use]
pub fn command() -> clap::Command {
    finish(Cli::command())
}

/// What every flag has, said once: a switch may stand alone or have a value, so that `--opt-in=false`
/// can overrule a file; and help does not show values of variables, which may be secret.
fn finish(command: clap::Command) -> clap::Command {
    command.mut_args(trim).mut_subcommands(finish)
}

fn trim(arg: clap::Arg) -> clap::Arg {
    let arg = arg.hide_env_values(true);
    if arg.get_value_parser().type_id() != clap::builder::ValueParser::bool().type_id() {
        return arg;
    }
    arg.num_args(0..=1)
        .require_equals(true)
        .value_name("true|false")
        .default_missing_value("true")
        .value_parser(BoolishValueParser::new())
        .hide_possible_values(true)
        .hide_default_value(true)
}

/// Reads a command line and what goes with it. Asking for help or the version is no failure.
pub fn read(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Typed, Failure> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let typed = command().try_get_matches_from(&args).map_err(|e| refuse(&e, None))?;
    let cli = Cli::from_arg_matches(&typed).map_err(|e| refuse(&e, None))?;
    let Some(path) = &cli.general.config else {
        let settings = show::settings(&typed, None);
        return Ok(Typed {
            cli,
            settings,
            unknown: unknown(std::env::vars_os()),
        });
    };
    let file = file::File::read(path)?;
    // What the file says and nobody overruled is read as if it had been typed last.
    let more = file.args(&command(), &typed);
    let matches = command()
        .try_get_matches_from(args.iter().cloned().chain(more))
        .map_err(|e| refuse(&e, Some(&file)))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|e| refuse(&e, Some(&file)))?;
    let settings = show::settings(&matches, Some((&file, &typed)));
    Ok(Typed {
        cli,
        settings,
        unknown: unknown(std::env::vars_os()),
    })
}

/// The matches of the innermost subcommand, which has the global flags too.
pub(crate) fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

/// Every flag of every command with its long name, once.
pub(crate) fn all_flags(command: &clap::Command) -> Vec<clap::Arg> {
    let mut all: Vec<clap::Arg> = Vec::new();
    let own = command.get_arguments().cloned();
    for arg in own.chain(command.get_subcommands().flat_map(all_flags)) {
        let name = arg.get_long();
        let new =
            name.is_some_and(|name| !["help", "version"].contains(&name)) && all.iter().all(|a| a.get_long() != name);
        if new {
            all.push(arg);
        }
    }
    all
}

/// Puts what clap says on one line. Values are left out where they could be secret: clap is never
/// asked to judge those.
fn refuse(error: &clap::Error, file: Option<&file::File>) -> Failure {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Failure::help(error.render().to_string());
    }
    let text = error.render().to_string();
    let said = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    let said = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => "no command given".into(),
        _ => said,
    };
    match file {
        Some(file) => Failure::usage(format!("{}: {said}; correct the file", file.name())),
        None => Failure::usage(format!("{said}; see podlog --help")),
    }
}

/// Variables that are read but are no flags.
pub(crate) const OTHER_VARIABLES: [&str; 4] = [
    "PODLOG_LOCK_PASSWORD",
    "PODLOG_LOCK_PASSWORD_FILE",
    "PODLOG_SINK_PASSWORD",
    "PODLOG_SINK_PASSWORD_FILE",
];

/// Kubernetes sets these in every pod of a namespace that has a service named podlog.
const SERVICE_VARIABLES: [&str; 2] = ["PODLOG_SERVICE_", "PODLOG_PORT"];

fn unknown(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
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

    #[test]
    fn the_commands_are_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_of_the_same_name_and_a_text() {
        let flags = all_flags(&command());
        assert!(flags.len() > 40);
        for flag in flags {
            let name = flag.get_long().unwrap();
            let variable = format!("PODLOG_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(flag.get_env().and_then(|v| v.to_str()), Some(&*variable), "--{name}");
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 10, "--{name} is not documented");
        }
    }

    #[test]
    fn a_wrong_flag_is_refused_on_one_line_with_the_nearest_right_one() {
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
    }

    #[test]
    fn help_is_shown_and_is_no_failure() {
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
    fn a_switch_stands_alone_or_is_told() {
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
    fn variables_that_mean_nothing_are_noticed() {
        let names = [
            "PODLOG_TTLL",
            "PODLOG_TTL",
            "PODLOG_SERVICE_HOST",
            "PODLOG_LOCK_PASSWORD",
            "HOME",
        ];
        let variables = names.iter().map(|name| (OsString::from(name), OsString::new()));
        assert_eq!(unknown(variables), ["PODLOG_TTLL"]);
    }
}
