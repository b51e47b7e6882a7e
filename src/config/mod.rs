//! What the settings mean, checked once as a whole.
//!
//! A [`Config`] that exists is safe to run with. Nothing here reads the command line or connects
//! to anything.

mod checks;
mod secret;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::flags;
pub use crate::cli::flags::LogFormat;
pub use crate::cli::show::table;
use crate::cli::units::Listen;
use crate::cluster::{self, Access, Scope};
use crate::domain::ReplicaId;
use crate::domain::claim::Lease;
use crate::exit::Failure;
use crate::locks::{Holder, LockUrl};
use crate::sinks::SinkUrl;

pub use secret::{Passwords, SecretUrl};

/// Everything a replica is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica; unique per process start.
    pub replica: ReplicaId,
    /// Where the claims are.
    pub store: Store,
    /// The times of a claim.
    pub lease: Lease,
    /// Which pods to collect.
    pub selection: Selection,
    /// How logs are read.
    pub streams: Streams,
    /// Where records go.
    pub sink: SinkConfig,
    /// The most pods to hold.
    pub max_pods: usize,
    /// How long to finish after SIGTERM.
    pub grace: Duration,
    /// Where to serve health, metrics and status, if anywhere.
    pub http: Option<SocketAddr>,
    /// Whether to create and update tables at the start.
    pub migrate: bool,
}

/// Where the claims are.
#[derive(Clone, Debug)]
pub struct Store {
    /// The lock store, with its password.
    pub url: LockUrl,
    /// Replicas with the same store and cluster share the work.
    pub cluster: String,
}

/// Where records go.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// The sink, with its password.
    pub url: SinkUrl,
    /// How long one try of writing may take.
    pub timeout: Duration,
    /// The age at which stored records are deleted, if ever.
    pub retain: Option<Duration>,
}

/// Which pods to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The kubeconfig file, when not the usual one.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, when not the current one.
    pub context: Option<String>,
    /// Namespaces, sorted; empty for all.
    pub namespaces: Vec<String>,
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector.
    pub fields: Option<String>,
    /// Only pods whose annotation asks for it.
    pub opt_in: bool,
    /// podlog's own pods too.
    pub include_self: bool,
    /// How often to list while watching does not work.
    pub poll: Duration,
}

/// How logs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// The longest line in bytes.
    pub max_line: usize,
    /// Bytes of a stream that are written together.
    pub chunk_bytes: usize,
    /// How long a line waits for others.
    pub chunk_age: Duration,
    /// The most streams open.
    pub open: usize,
    /// The most streams open per node.
    pub per_node: usize,
    /// The most streams opened per second.
    pub open_rate: u32,
    /// The longest time a stream is kept open; shortened by chance for each stream.
    pub reopen: Duration,
    /// How long a stream may be silent before it is checked.
    pub probe: Duration,
}

impl Config {
    /// What `podlog run` was told. Fails with the first setting that is wrong or unsafe.
    pub fn new(typed: &flags::Run, passwords: &Passwords) -> Result<Self, Failure> {
        let config = Self::unchecked(typed, passwords)?;
        if let Some(fault) = config.faults().into_iter().next() {
            return Err(fault);
        }
        config.scope().check().map_err(Failure::usage)?;
        Ok(config)
    }

    /// The same without judging whether the settings are safe; only for telling what is wrong with them.
    pub fn unchecked(typed: &flags::Run, passwords: &Passwords) -> Result<Self, Failure> {
        Ok(Self {
            replica: replica(typed.times.replica_id.as_deref())?,
            store: Store::new(&typed.claims, passwords)?,
            lease: Lease {
                ttl: typed.times.ttl,
                renew: typed.times.renew,
                margin: typed.times.margin,
                takeover_grace: typed.times.takeover_grace,
            },
            selection: Selection::new(&typed.pods),
            streams: Streams::new(&typed.streams),
            sink: SinkConfig::new(&typed.sink, passwords)?,
            max_pods: typed.times.max_pods as usize,
            grace: typed.process.grace,
            http: match typed.process.http {
                Listen::Off => None,
                Listen::At(address) => Some(address),
            },
            migrate: !typed.times.no_migrate,
        })
    }

    /// The first fault of each group of settings.
    #[must_use]
    pub fn faults(&self) -> Vec<Failure> {
        checks::faults(self)
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

    /// On whose behalf claims are made.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder {
            replica: self.replica.clone(),
            cluster: self.store.cluster.clone(),
            ttl: self.lease.ttl,
            takeover_grace: self.lease.takeover_grace,
        }
    }

    /// How to find the cluster.
    #[must_use]
    pub fn access(&self) -> Access {
        Access {
            kubeconfig: self.selection.kubeconfig.clone(),
            context: self.selection.context.clone(),
        }
    }
}

impl Store {
    /// Where the claims are, as told to any command that touches them.
    pub fn new(typed: &flags::Claims, passwords: &Passwords) -> Result<Self, Failure> {
        checks::name("cluster", &typed.cluster)?;
        let example = "mysql://user@host/database or sqlite://podlog.db";
        Ok(Self {
            url: secret::url("lock", &typed.lock, passwords.lock.as_ref(), example)?,
            cluster: typed.cluster.clone(),
        })
    }
}

impl SinkConfig {
    /// Where records go.
    pub fn new(typed: &flags::Sink, passwords: &Passwords) -> Result<Self, Failure> {
        let example = "stdout, file:///var/log/pods or mysql://user@host/database";
        Ok(Self {
            url: secret::url("sink", &typed.sink, passwords.sink.as_ref(), example)?,
            timeout: typed.write_timeout,
            retain: typed.retain,
        })
    }
}

impl Selection {
    fn new(typed: &flags::Pods) -> Self {
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

impl Streams {
    fn new(typed: &flags::Streams) -> Self {
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

/// An identity that no other process start has: a readable name and 32 random bits. Two replicas
/// draw the same with a chance of 1 in 4 thousand million even when they have the same name.
fn replica(name: Option<&str>) -> Result<ReplicaId, Failure> {
    let host = || {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = variable("POD_NAME").or_else(|| variable("HOSTNAME")).or_else(kernel);
        let legal: String = name
            .unwrap_or_default()
            .trim()
            .chars()
            .filter(|c| checks::legal(*c))
            .take(63)
            .collect();
        if legal.is_empty() { "podlog".to_owned() } else { legal }
    };
    let name = name.map_or_else(host, str::to_owned);
    checks::name("replica-id", &name)?;
    Ok(format!("{name}#{:08x}", fastrand::u32(..)).into())
}
