//! The commands and flags of podlog, as clap parses them.
//!
//! Nothing here reads the command line, variables or files; `read` does.

use clap::builder::BoolishValueParser;
use clap::{ArgMatches, CommandFactory, Parser, Subcommand};

use super::flags;
#[cfg(feature = "lab")]
use super::lab;

/// Collects the logs of Kubernetes pods, each line once, from any number of equal replicas.
///
/// Every flag is also an environment variable: `--poll-interval` is `PODLOG_POLL_INTERVAL`. A flag overrides its
/// variable. A variable overrides the settings file (--config).
///
/// Exit status: 0 success; 1 failure; 2 a wrong flag or setting; 3 the API server or a database cannot be reached;
/// 4 the API server or a database refuses; 130 or 143 stopped by a second SIGINT or SIGTERM.
#[derive(Parser, Clone, Debug)]
#[command(name = "podlog", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub general: flags::GeneralArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of podlog.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Collect logs until it is stopped.
    Run(Box<flags::Run>),
    /// Collect a simulated cluster with several replicas, kill one, and audit the stored lines.
    ///
    /// The exit status is 1 if the audit finds lost, duplicated or reordered lines.
    #[cfg(feature = "lab")]
    Demo(lab::Demo),
    /// Play random histories of several replicas in virtual time, and check every promise after each step.
    ///
    /// Needs no cluster, no database and no network: everything runs in one process with a simulated clock. A seed
    /// decides when pods start, write, crash and end, and how replicas, the lock store, the API server and the sink
    /// fail. The exit status is 1 if a promise is broken. Then the seed and a short history that breaks it are printed.
    #[cfg(feature = "lab")]
    Simulate(lab::Simulate),
    /// Not in this build.
    #[cfg(not(feature = "lab"))]
    #[command(hide = true)]
    Demo(AnyArguments),
    /// Not in this build.
    #[cfg(not(feature = "lab"))]
    #[command(hide = true)]
    Simulate(AnyArguments),
    /// Check that `podlog run` has everything it needs with these settings, and report what is missing.
    ///
    /// Takes the settings of `podlog run`. Connects to the lock store, the sink and the API server, tests the rights,
    /// and leaves nothing behind. The exit status is 0 if nothing failed, otherwise that of `podlog run`.
    Check {
        /// Print the findings as JSON.
        #[arg(long, env = "PODLOG_JSON", action = clap::ArgAction::Set, default_value_t = false)]
        json: bool,
        #[command(flatten)]
        #[allow(missing_docs)]
        run: Box<flags::Run>,
    },
    /// Create or update the tables of the lock store and of the sink.
    Migrate(flags::Migrate),
    /// List the claims, or release one.
    #[command(subcommand)]
    Locks(Locks),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The arguments of a command that this build does not have. It accepts all arguments, so that the error always says how
/// to get the command, and never that a flag is unknown.
#[cfg(not(feature = "lab"))]
#[derive(clap::Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct AnyArguments {
    /// All arguments.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub all: Vec<std::ffi::OsString>,
}

/// The commands for claims.
#[derive(Subcommand, Clone, Debug)]
pub enum Locks {
    /// List all claims: the replica that holds each pod, and until when.
    List {
        /// Print the claims as JSON.
        #[arg(long, env = "PODLOG_JSON", action = clap::ArgAction::Set, default_value_t = false)]
        json: bool,
        #[command(flatten)]
        #[allow(missing_docs)]
        lock: flags::LockArgs,
    },
    /// Release the claim on a pod. Its holder stops, and another replica continues at the checkpoint.
    Release {
        /// The pod.
        #[arg(value_name = "NAMESPACE/POD")]
        pod: String,
        /// The UID of the pod, if several pods have had this name.
        #[arg(long, env = "PODLOG_UID", value_name = "UID")]
        uid: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs)]
        lock: flags::LockArgs,
    },
}

/// The commands and flags, as clap's values.
#[must_use]
pub fn command() -> clap::Command {
    with_common_options(Cli::command())
}

/// Adds what all flags share. A switch may have a value, so that `--opt-in=false` can override a settings file. The
/// help does not show the values of variables, which may be secret.
fn with_common_options(command: clap::Command) -> clap::Command {
    command
        .mut_args(arg_with_common_options)
        .mut_subcommands(with_common_options)
}

fn arg_with_common_options(arg: clap::Arg) -> clap::Arg {
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

/// The matches of the innermost subcommand, which has the global flags too.
pub(super) fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

/// Every flag of every command with its long name, once.
pub(super) fn all_flags(command: &clap::Command) -> Vec<clap::Arg> {
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
        assert!(flags.len() > 30);
        for flag in flags {
            let name = flag.get_long().unwrap();
            let variable = format!("PODLOG_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(flag.get_env().and_then(|v| v.to_str()), Some(&*variable), "--{name}");
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 10, "--{name} is not documented");
        }
    }
}
