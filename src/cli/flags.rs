//! Every flag, with the text that `--help` and the manual show for it.
//!
//! These structs hold what was typed and nothing more. They decide nothing; `config` does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::units::{Listen, Secret, Size, duration};

/// What the program says about itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "General")]
pub struct General {
    /// TOML file with settings: the names of these flags without dashes in front.
    ///
    /// A flag goes before its variable, a variable before the file. A key that is no flag is an error.
    #[arg(long, env = "PODLOG_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// How much to log: error, warn, info, debug or trace, or filters such as `info,podlog::locks=debug`.
    ///
    /// A single word applies to podlog itself; libraries stay at warn. Without this setting the
    /// variable `RUST_LOG` counts, and without that it is info.
    #[arg(long, env = "PODLOG_LOG_LEVEL", value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
    /// How log lines look on stderr.
    #[arg(
        long,
        env = "PODLOG_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the claims are.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Claims")]
pub struct Claims {
    /// Where claims are stored: `mysql://user@host/database`, or `sqlite://FILE` for replicas on one machine.
    ///
    /// The password comes from `PODLOG_LOCK_PASSWORD` or from the file that `PODLOG_LOCK_PASSWORD_FILE`
    /// names, so that it stands in no process list.
    #[arg(long, env = "PODLOG_LOCK", value_name = "URL", default_value = "sqlite://podlog.db")]
    pub lock: Secret,
    /// Name of the cluster whose pods are collected. Replicas with the same store and name share the work.
    #[arg(long, env = "PODLOG_CLUSTER", value_name = "NAME", default_value = "default")]
    pub cluster: String,
}

/// How long a claim lasts.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Claims")]
pub struct Times {
    /// How long a claim lasts without renewal. A crashed replica is replaced after this time.
    #[arg(long, env = "PODLOG_TTL", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub ttl: Duration,
    /// How often claims are renewed.
    #[arg(long, env = "PODLOG_RENEW", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub renew: Duration,
    /// How long before its expiry a claim is no longer acted on.
    ///
    /// Covers clocks that run at different rates, and a database clock that jumps at a failover.
    #[arg(long, env = "PODLOG_MARGIN", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub margin: Duration,
    /// How long after its expiry the claim of another replica may be taken.
    #[arg(long, env = "PODLOG_TAKEOVER_GRACE", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub takeover_grace: Duration,
    /// The most pods this replica claims. Give all replicas the same number.
    #[arg(long, env = "PODLOG_MAX_PODS", value_name = "COUNT", default_value_t = 4000)]
    pub max_pods: u32,
    /// Readable part of this replica's identity; a random suffix makes it unique per start.
    ///
    /// By default the value of `POD_NAME`, or the host's name.
    #[arg(long, env = "PODLOG_REPLICA_ID", value_name = "NAME")]
    pub replica_id: Option<String>,
    /// Do not create or update the tables; `podlog migrate` does it with other rights.
    #[arg(long, env = "PODLOG_NO_MIGRATE", action = ArgAction::Set, default_value_t = false)]
    pub no_migrate: bool,
}

/// Which pods to collect.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Pods")]
pub struct Pods {
    /// Kubeconfig file. Without it KUBECONFIG, `~/.kube/config` or the service account of the pod is used.
    #[arg(long, env = "PODLOG_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, instead of its current one.
    #[arg(long, env = "PODLOG_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Namespaces to collect, separated by commas or given several times; none means all.
    #[arg(long, env = "PODLOG_NAMESPACE", value_name = "NAMES", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Only pods whose labels match, such as `app=shop,tier!=test`.
    #[arg(long, env = "PODLOG_SELECTOR", value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only pods whose fields match, such as `spec.nodeName=n1`.
    #[arg(long, env = "PODLOG_FIELD_SELECTOR", value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// Collect only pods with the annotation `podlog.io/collect: "true"`, instead of all without `"false"`.
    #[arg(long, env = "PODLOG_OPT_IN", action = ArgAction::Set, default_value_t = false)]
    pub opt_in: bool,
    /// Collect the logs of podlog's own pods too.
    #[arg(long, env = "PODLOG_INCLUDE_SELF", action = ArgAction::Set, default_value_t = false)]
    pub include_self: bool,
    /// How often pods are listed while watching them does not work.
    #[arg(long, env = "PODLOG_POLL_INTERVAL", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub poll_interval: Duration,
}

/// How logs are read.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Streams")]
pub struct Streams {
    /// The longest line; the rest of a longer one is cut off, marked and counted. At least 4KiB.
    #[arg(long, env = "PODLOG_MAX_LINE", value_name = "SIZE", default_value = "256KiB")]
    pub max_line: Size,
    /// How many bytes of one stream are written together.
    #[arg(long, env = "PODLOG_CHUNK_BYTES", value_name = "SIZE", default_value = "256KiB")]
    pub chunk_bytes: Size,
    /// How long a line waits for others to be written with it.
    #[arg(long, env = "PODLOG_CHUNK_AGE", value_name = "DURATION", default_value = "200ms", value_parser = duration)]
    pub chunk_age: Duration,
    /// The most log streams open at once; further ones are read by turns.
    #[arg(long, env = "PODLOG_MAX_STREAMS", value_name = "COUNT", default_value_t = 8000)]
    pub max_streams: u32,
    /// The most log streams open per node. Each costs the node an inotify instance, of which it has 128 by default.
    #[arg(long, env = "PODLOG_STREAMS_PER_NODE", value_name = "COUNT", default_value_t = 100)]
    pub streams_per_node: u32,
    /// The most log streams opened per second.
    #[arg(long, env = "PODLOG_OPEN_RATE", value_name = "PER_SECOND", default_value_t = 50)]
    pub open_rate: u32,
    /// How often an open stream is replaced by a new one, spread out by chance. The kubelet ends streams after 4 h.
    #[arg(long, env = "PODLOG_REOPEN", value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub reopen: Duration,
    /// How long a stream may be silent before a second read checks that nothing was missed.
    #[arg(long, env = "PODLOG_PROBE", value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub probe: Duration,
}

/// Where records go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sink")]
pub struct Sink {
    /// Where records go: `stdout`, `file:///DIRECTORY`, `sqlite://FILE` or `mysql://user@host/database`.
    ///
    /// The password comes from `PODLOG_SINK_PASSWORD` or from the file that `PODLOG_SINK_PASSWORD_FILE` names.
    #[arg(long, env = "PODLOG_SINK", value_name = "URL", default_value = "stdout")]
    pub sink: Secret,
    /// How long one try of writing to the sink may take.
    #[arg(long, env = "PODLOG_WRITE_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub write_timeout: Duration,
    /// Delete stored records older than this, for sinks that are databases; without it they stay for ever.
    #[arg(long, env = "PODLOG_RETAIN", value_name = "DURATION", value_parser = duration)]
    pub retain: Option<Duration>,
}

/// How the process behaves.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub struct Process {
    /// How long to finish after SIGTERM: write what was read, hand the pods on. Keep it below the
    /// pod's terminationGracePeriodSeconds.
    #[arg(long, env = "PODLOG_GRACE", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub grace: Duration,
    /// Address of `/healthz`, `/readyz`, `/metrics` and `/status`, or `off`. In a pod use `0.0.0.0:9464`.
    #[arg(long, env = "PODLOG_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub http: Listen,
    /// Print the settings as TOML with where each came from, secrets masked, and exit.
    #[arg(long, env = "PODLOG_PRINT_CONFIG", action = ArgAction::Set, default_value_t = false)]
    pub print_config: bool,
}

/// Everything `podlog run` can be told.
#[derive(Args, Clone, Debug)]
pub struct Run {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub claims: Claims,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub times: Times,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pods: Pods,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub streams: Streams,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: Sink,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub process: Process,
}

/// Everything `podlog migrate` can be told.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub claims: Claims,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: Sink,
}
