//! The flags of `podlog demo` and `podlog simulate`, which only a build with the cargo feature `lab` has.
//!
//! As in `flags`, these structs hold the values as typed.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::units::duration;

/// The flags of `podlog demo`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Demo")]
pub struct Demo {
    /// Print the audit as JSON.
    #[arg(long, env = "PODLOG_JSON", action = ArgAction::Set, default_value_t = false)]
    pub json: bool,
    /// Seed of the simulated cluster. Without it, a random seed is used and printed.
    #[arg(long, env = "PODLOG_SEED", value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How many pods the simulated cluster has.
    #[arg(long, env = "PODLOG_PODS", value_name = "COUNT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub pods: u32,
    /// How many replicas collect them.
    #[arg(long, env = "PODLOG_REPLICAS", value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// How long lines are written.
    #[arg(long, env = "PODLOG_DURATION", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub duration: Duration,
    /// Write for this long instead, while pods are created and deleted. Kill no replica. Report the replicas' resource
    /// use.
    ///
    /// Lines are written at a moderate rate. The memory, open files, threads and tasks of each replica are measured
    /// every 10 s; at the end their growth is printed. Open files or tasks that grow are a failure, and so is memory
    /// that grows by more than 20 MiB per hour over at least 10 minutes. Replaces `--duration`; at least 10 s.
    #[arg(long, env = "PODLOG_SOAK", value_name = "DURATION", value_parser = duration)]
    pub soak: Option<Duration>,
    /// With `--soak`: inject faults into replicas, the store and the API server at random times. The seed decides
    /// them.
    ///
    /// Replicas are killed, frozen or terminated, and replaced; one replica is spared. The store is locked for some
    /// seconds. Streams are cut or become silent, and requests are refused.
    #[arg(long, env = "PODLOG_CHAOS", action = ArgAction::Set, default_value_t = false)]
    pub chaos: bool,
    /// Keep the collected records and the replicas' logs in this directory, which must be new or empty.
    ///
    /// Without it they are in a temporary directory that is removed at the end.
    #[arg(long, env = "PODLOG_KEEP", value_name = "DIRECTORY")]
    pub keep: Option<PathBuf>,
    /// Rotate the simulated logs every few seconds.
    ///
    /// Lines that are rotated away while no replica collects the pod can no longer be read. They count as gaps, not as
    /// lost.
    #[arg(long, env = "PODLOG_ROTATE", action = ArgAction::Set, default_value_t = false)]
    pub rotate: bool,
    /// Whether replicas claim pods. `off` shows what happens when each collects everything.
    #[arg(long, env = "PODLOG_CLAIMS", value_name = "WHETHER", default_value = "on")]
    pub claims: Switch,
}

/// The flags of `podlog simulate`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Simulation")]
pub struct Simulate {
    /// How many histories to play, or the seeds of those to play: `1000` is `0..1000`.
    #[arg(long, env = "PODLOG_SEEDS", value_name = "COUNT|FROM..TO", default_value = "1000")]
    pub seeds: Seeds,
    /// How many histories to play at the same time; without it one for each core.
    #[arg(long, env = "PODLOG_JOBS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// A range of seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub std::ops::Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").unwrap_or(("0", text));
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if from < to => Ok(Self(from..to)),
            _ => Err("not a number above 0 such as 1000, nor a range such as 40..50".into()),
        }
    }
}
