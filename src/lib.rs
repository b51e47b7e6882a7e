//! podlog collects the logs of Kubernetes pods through the Kubernetes API and stores each line once.
//!
//! It runs as any number of equal replicas. Each pod is collected by the one replica that holds the pod's row in a
//! table of claims. This crate is the program `podlog` and the parts that it is made of. The manual is the README;
//! ARCHITECTURE.md follows a line from the API server to the sink.
//!
//! # How the parts fit together
//!
//! - [`domain`] holds the values and the decisions: which replica takes which pod, what to read next, which lines are
//!   new, when lines are missing. It does no I/O and reads no clock. Start reading there.
//! - [`cluster`], [`locks`] and [`sinks`] are the three sides to the outside: Kubernetes, the table of claims, and the
//!   place for records. They never import one another.
//! - [`follow`] reads the logs of one pod. [`collector`] owns all claims of a replica and starts one task per pod.
//!   [`renewer`] renews the claims on a thread of its own.
//! - [`run()`] puts these parts together, and [`command`] starts it from a command line.
//!
//! # A claim in ten lines
//!
//! A claim expires unless its holder renews it. Others wait a little longer, and each new claim has a larger fence:
//!
//! ```
//! # #[cfg(feature = "lab")] {
//! use std::time::Duration;
//! use podlog::lab::row::{Hold, fence_after};
//! use podlog::domain::{Fence, ReplicaId};
//!
//! let (ttl, grace) = (Duration::from_secs(20), Duration::from_secs(1));
//! let (a, b) = (ReplicaId::from("a"), ReplicaId::from("b"));
//!
//! // Replica a claims the pod at database time 100 s. The row expires at 120 s.
//! let claimed = Duration::from_secs(100);
//! let row = Hold::claimed(&a, Fence(7), claimed, ttl);
//!
//! // Replica b must wait until the grace has passed too.
//! assert!(!row.may_be_claimed(&b, Duration::from_secs(120), grace));
//! assert!(row.may_be_claimed(&b, Duration::from_secs(121), grace));
//! assert!(fence_after(row.fence, Duration::from_secs(121)) > row.fence);
//! # }
//! ```
//!
//! # What other programs may use
//!
//! - [`domain`], the rules, for tools that look at the tables of podlog;
//! - [`locks::LockStore`] and [`sinks::Sink`], the two traits for new stores and sinks;
//! - [`command`], to run podlog as part of another program.
//!
//! The other modules are public so that the tests can use each part alone. They may change in every release.

pub mod admin;
pub mod check;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod collector;
pub mod command;
pub mod config;
pub mod db;
pub mod defect;
pub mod domain;
pub mod exit;
pub mod follow;
pub mod grant;
#[cfg(feature = "lab")]
pub mod lab;
pub mod locks;
pub mod metrics;
pub mod renewer;
pub mod retention;
pub mod run;
pub mod sinks;
pub mod status;
pub mod stop;
pub mod telemetry;

pub use check::check;
pub use run::{locks_command, migrate, run};
