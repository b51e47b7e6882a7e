//! All settings of a replica, built from the flags.
//!
//! Nothing here checks whether the settings are safe together, reads the command line or connects to anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::names;
use super::secret::{self, Passwords};
use super::unreadable::Unreadable;
use crate::cli::flags;
use crate::cli::units::Listen;
use crate::cluster::{self, Access, Scope};
use crate::domain::ReplicaId;
use crate::domain::claim::Lease;
use crate::exit::Failure;
use crate::locks::{Holder, LockUrl};
use crate::sinks::SinkUrl;

/// All settings of a replica.
#[derive(Clone, Debug)]
pub struct Config {
    /// The identity of this replica, unique per process start.
    pub replica: ReplicaId,
    /// The lock store.
    pub store: LockConfig,
    /// How long a claim lasts and how it is renewed.
    pub lease: Lease,
    /// Which pods to collect.
    pub selection: ClusterConfig,
    /// Settings of log streams.
    pub streams: StreamConfig,
    /// The sink.
    pub sink: SinkConfig,
    /// The most pods that this replica holds.
    pub max_pods: usize,
    /// The time to finish after SIGTERM.
    pub grace: Duration,
    /// Address of the HTTP endpoints; `None` for no endpoints.
    pub http: Option<SocketAddr>,
    /// Whether `podlog run` creates and updates tables.
    pub migrate: bool,
}

/// The lock store.
#[derive(Clone, Debug)]
pub struct LockConfig {
    /// Its URL, with the password.
    pub url: LockUrl,
    /// The name of the cluster. Replicas with the same store and cluster share the work.
    pub cluster: String,
}

/// The sink.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Its URL, with the password.
    pub url: SinkUrl,
    /// The longest time for one attempt to write.
    pub timeout: Duration,
    /// The age at which stored records are deleted; `None` for never.
    pub retain: Option<Duration>,
}

/// Which pods to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The kubeconfig file; `None` for the default.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; `None` for its current context.
    pub context: Option<String>,
    /// Namespaces, sorted; empty for all.
    pub namespaces: Vec<String>,
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector.
    pub fields: Option<String>,
    /// Collect only pods that the annotation `podlog.io/collect: "true"` includes.
    pub opt_in: bool,
    /// Collect podlog's own pods too.
    pub include_self: bool,
    /// The time between two lists while watching does not work.
    pub poll: Duration,
}

/// Settings of log streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// The longest line in bytes.
    pub max_line: usize,
    /// The most bytes of a stream that are written together.
    pub chunk_bytes: usize,
    /// The longest time that a line waits for others to be written with it.
    pub chunk_age: Duration,
    /// The most open streams.
    pub open: usize,
    /// The most open streams per node.
    pub per_node: usize,
    /// The most streams opened per second.
    pub open_rate: u32,
    /// The longest time that a stream stays open. Each stream has a random part of it subtracted.
    pub reopen: Duration,
    /// The silence of a stream after which it is probed.
    pub probe: Duration,
}

impl Config {
    /// The settings of `podlog run`, not yet checked for safety: see [`checked`](super::checked).
    /// Names every setting that cannot be read.
    pub fn unchecked(typed: &flags::Run, passwords: &Passwords) -> Result<Self, Unreadable> {
        let mut failures = Vec::new();
        let replica = names::replica_id(typed.claim.replica_id.as_deref());
        let replica = replica.map_err(|failure| failures.push(failure));
        let store = LockConfig::new(&typed.lock, passwords).map_err(|failure| failures.push(failure));
        let sink = SinkConfig::new(&typed.sink, passwords).map_err(|failure| failures.push(failure));
        match (replica, store, sink) {
            (Ok(replica), Ok(store), Ok(sink)) => Ok(Self::with(typed, replica, store, sink)),
            _ => Err(Unreadable(failures)),
        }
    }

    fn with(typed: &flags::Run, replica: ReplicaId, store: LockConfig, sink: SinkConfig) -> Self {
        Self {
            replica,
            store,
            lease: Lease {
                ttl: typed.claim.ttl,
                renew: typed.claim.renew,
                margin: typed.claim.margin,
                takeover_grace: typed.claim.takeover_grace,
            },
            selection: ClusterConfig::new(&typed.pods),
            streams: StreamConfig::new(&typed.streams),
            sink,
            max_pods: typed.claim.max_pods as usize,
            grace: typed.process.grace,
            http: match typed.process.http {
                Listen::Off => None,
                Listen::At(address) => Some(address),
            },
            migrate: !typed.claim.no_migrate,
        }
    }

    /// Which pods to collect, for the cluster.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let pods = &self.selection;
        let default = cluster::Selection::default();
        Scope {
            namespaces: pods.namespaces.clone(),
            labels: pods.labels.clone(),
            fields: pods.fields.clone(),
            selection: cluster::Selection {
                opt_in: pods.opt_in,
                exclude_app: default.exclude_app.filter(|_| !pods.include_self),
            },
            poll_interval: pods.poll,
        }
    }

    /// The identity and the times with which claims are made.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder {
            replica: self.replica.clone(),
            cluster: self.store.cluster.clone(),
            ttl: self.lease.ttl,
            takeover_grace: self.lease.takeover_grace,
        }
    }

    /// How to reach the cluster.
    #[must_use]
    pub fn access(&self) -> Access {
        Access {
            kubeconfig: self.selection.kubeconfig.clone(),
            context: self.selection.context.clone(),
        }
    }
}

impl LockConfig {
    /// The lock store of any command that uses it.
    pub fn new(typed: &flags::LockArgs, passwords: &Passwords) -> Result<Self, Failure> {
        names::check("cluster", &typed.cluster)?;
        let example = "mysql://user@host/database or sqlite://podlog.db";
        Ok(Self {
            url: secret::url("lock", &typed.lock, passwords.lock.as_ref(), example)?,
            cluster: typed.cluster.clone(),
        })
    }
}

impl SinkConfig {
    /// The sink.
    pub fn new(typed: &flags::SinkArgs, passwords: &Passwords) -> Result<Self, Failure> {
        let example = "stdout, file:///var/log/pods or mysql://user@host/database";
        Ok(Self {
            url: secret::url("sink", &typed.sink, passwords.sink.as_ref(), example)?,
            timeout: typed.write_timeout,
            retain: typed.retain,
        })
    }
}

impl ClusterConfig {
    fn new(typed: &flags::PodArgs) -> Self {
        let mut namespaces: Vec<String> = typed.namespace.iter().map(|n| n.trim().to_owned()).collect();
        namespaces.retain(|n| !n.is_empty());
        namespaces.sort_unstable();
        namespaces.dedup();
        Self {
            kubeconfig: typed.kubeconfig.clone(),
            context: typed.context.clone(),
            namespaces,
            labels: typed.selector.clone().filter(|s| !s.is_empty()),
            fields: typed.field_selector.clone().filter(|s| !s.is_empty()),
            opt_in: typed.opt_in,
            include_self: typed.include_self,
            poll: typed.poll_interval,
        }
    }
}

impl StreamConfig {
    fn new(typed: &flags::StreamArgs) -> Self {
        Self {
            max_line: usize::try_from(typed.max_line.0).unwrap_or(usize::MAX),
            chunk_bytes: usize::try_from(typed.chunk_bytes.0).unwrap_or(usize::MAX),
            chunk_age: typed.chunk_age,
            open: typed.max_streams as usize,
            per_node: typed.streams_per_node as usize,
            open_rate: typed.open_rate,
            reopen: typed.reopen,
            probe: typed.probe,
        }
    }
}
