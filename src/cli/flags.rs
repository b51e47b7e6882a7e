//! Every flag, with its text in `--help` and in the manual.
//!
//! These structs hold the values as typed. They decide nothing; `config` does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::units::{Listen, Secret, Size, duration};

/// The settings file and logging.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "General")]
pub struct GeneralArgs {
    /// TOML file with settings. Its keys are the names of the flags without the leading dashes.
    ///
    /// A flag overrides its variable, and a variable overrides the file. A key that is not a flag is an error.
    #[arg(long, env = "PODLOG_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Log level: error, warn, info, debug or trace, or filters such as `info,podlog::locks=debug`.
    ///
    /// A single level applies to podlog itself; libraries stay at warn. A filter without a level beside it, such as
    /// `kube=debug`, adds to that. Without this setting the variable `RUST_LOG` applies. Without both, the level is
    /// info.
    #[arg(long, env = "PODLOG_LOG_LEVEL", value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
    /// Format of podlog's own log lines on stderr: text or json.
    #[arg(
        long,
        env = "PODLOG_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The lock store and the cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Claims")]
pub struct LockArgs {
    /// Where claims are stored: `mysql://user@host/database`, or `sqlite://FILE` for replicas on one machine.
    ///
    /// The password comes from `PODLOG_LOCK_PASSWORD` or from the file that `PODLOG_LOCK_PASSWORD_FILE`
    /// names, so that no process list shows it.
    #[arg(long, env = "PODLOG_LOCK", value_name = "URL", default_value = "sqlite://podlog.db")]
    pub lock: Secret,
    /// Name of the cluster whose pods are collected. Replicas with the same lock store and cluster share the pods.
    #[arg(long, env = "PODLOG_CLUSTER", value_name = "NAME", default_value = "default")]
    pub cluster: String,
}

/// How this replica claims pods.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Claims")]
pub struct ClaimArgs {
    /// How long a claim lasts without renewal. After this time other replicas take the pods of a crashed one.
    #[arg(long, env = "PODLOG_TTL", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub ttl: Duration,
    /// How often claims are renewed.
    #[arg(long, env = "PODLOG_RENEW", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub renew: Duration,
    /// How long before a claim expires its holder stops acting on it.
    ///
    /// This allows for clocks that run at different rates, and for a database clock that jumps at a failover.
    #[arg(long, env = "PODLOG_MARGIN", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub margin: Duration,
    /// How long after a claim expires other replicas wait before they take it.
    #[arg(long, env = "PODLOG_TAKEOVER_GRACE", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub takeover_grace: Duration,
    /// Maximum number of pods that a replica claims. Set the same number for all replicas.
    #[arg(long, env = "PODLOG_MAX_PODS", value_name = "COUNT", default_value_t = 4000)]
    pub max_pods: u32,
    /// Readable part of this replica's identity. A random suffix makes the identity unique for each start.
    ///
    /// The default is the value of `POD_NAME`, or the name of the host.
    #[arg(long, env = "PODLOG_REPLICA_ID", value_name = "NAME")]
    pub replica_id: Option<String>,
    /// Do not create or update the tables. Run `podlog migrate` as a user that has the rights for it.
    #[arg(long, env = "PODLOG_NO_MIGRATE", action = ArgAction::Set, default_value_t = false)]
    pub no_migrate: bool,
}

/// Which pods to collect.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Pods")]
pub struct PodArgs {
    /// Kubeconfig file. Without this setting podlog uses KUBECONFIG, `~/.kube/config` or the service account of the
    /// pod.
    #[arg(long, env = "PODLOG_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use instead of the current one.
    #[arg(long, env = "PODLOG_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Namespaces to collect, separated by commas or in several flags. Without this setting all are collected.
    #[arg(long, env = "PODLOG_NAMESPACE", value_name = "NAMES", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Collect only pods whose labels match, such as `app=shop,tier!=test`.
    #[arg(long, env = "PODLOG_SELECTOR", value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Collect only pods whose fields match, such as `spec.nodeName=n1`.
    #[arg(long, env = "PODLOG_FIELD_SELECTOR", value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// Collect only pods with the annotation `podlog.io/collect: "true"`, instead of all pods without `"false"`.
    #[arg(long, env = "PODLOG_OPT_IN", action = ArgAction::Set, default_value_t = false)]
    pub opt_in: bool,
    /// Also collect the logs of podlog's own pods.
    #[arg(long, env = "PODLOG_INCLUDE_SELF", action = ArgAction::Set, default_value_t = false)]
    pub include_self: bool,
    /// How often pods are listed while they cannot be watched.
    #[arg(long, env = "PODLOG_POLL_INTERVAL", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub poll_interval: Duration,
}

/// How logs are read.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Streams")]
pub struct StreamArgs {
    /// Maximum length of a line. A longer line is cut, marked as cut and counted. At least 4KiB.
    #[arg(long, env = "PODLOG_MAX_LINE", value_name = "SIZE", default_value = "256KiB")]
    pub max_line: Size,
    /// How many bytes of one stream are written together.
    #[arg(long, env = "PODLOG_CHUNK_BYTES", value_name = "SIZE", default_value = "256KiB")]
    pub chunk_bytes: Size,
    /// How long a line waits for other lines to be written with it.
    #[arg(long, env = "PODLOG_CHUNK_AGE", value_name = "DURATION", default_value = "200ms", value_parser = duration)]
    pub chunk_age: Duration,
    /// Maximum number of log streams that a replica has open. Further streams are read in turns.
    #[arg(long, env = "PODLOG_MAX_STREAMS", value_name = "COUNT", default_value_t = 8000)]
    pub max_streams: u32,
    /// Maximum number of log streams that a replica has open per node. Each uses an inotify instance of the node,
    /// which has 128 by default.
    #[arg(long, env = "PODLOG_STREAMS_PER_NODE", value_name = "COUNT", default_value_t = 100)]
    pub streams_per_node: u32,
    /// Maximum number of log streams that a replica opens per second.
    #[arg(long, env = "PODLOG_OPEN_RATE", value_name = "PER_SECOND", default_value_t = 50)]
    pub open_rate: u32,
    /// How often an open stream is replaced by a new one, with a random variation. The kubelet ends streams after 4 h.
    #[arg(long, env = "PODLOG_REOPEN", value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub reopen: Duration,
    /// How long a stream may be silent before a second read checks whether lines were missed.
    #[arg(long, env = "PODLOG_PROBE", value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub probe: Duration,
}

/// Where records go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sink")]
pub struct SinkArgs {
    /// Where records go: `stdout`, `file:///DIRECTORY`, `sqlite://FILE` or `mysql://user@host/database`.
    ///
    /// The password comes from `PODLOG_SINK_PASSWORD` or from the file that `PODLOG_SINK_PASSWORD_FILE` names.
    #[arg(long, env = "PODLOG_SINK", value_name = "URL", default_value = "stdout")]
    pub sink: Secret,
    /// How long one attempt to write to the sink may take.
    #[arg(long, env = "PODLOG_WRITE_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub write_timeout: Duration,
    /// Delete stored records older than this, in sinks that are databases. Without this setting records are kept
    /// forever.
    #[arg(long, env = "PODLOG_RETAIN", value_name = "DURATION", value_parser = duration)]
    pub retain: Option<Duration>,
}

/// How the process behaves.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// How long a replica may take after SIGTERM to write the lines it has read and to release its pods. Keep it
    /// below the pod's terminationGracePeriodSeconds.
    #[arg(long, env = "PODLOG_GRACE", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub grace: Duration,
    /// Address that serves `/healthz`, `/readyz`, `/metrics` and `/status`, or `off`. In a pod use `0.0.0.0:9464`.
    #[arg(long, env = "PODLOG_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub http: Listen,
    /// Print the settings as TOML, with the source of each and with secrets masked, and exit.
    #[arg(long, env = "PODLOG_PRINT_CONFIG", action = ArgAction::Set, default_value_t = false)]
    pub print_config: bool,
}

/// All flags of `podlog run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub lock: LockArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub claim: ClaimArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pods: PodArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub streams: StreamArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: SinkArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub process: ProcessArgs,
}

/// All flags of `podlog migrate`.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub lock: LockArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sink: SinkArgs,
}
