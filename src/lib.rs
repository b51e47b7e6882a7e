//! podlog collects the logs of Kubernetes pods through the Kubernetes API and stores each line once.
//!
//! It runs as any number of equal replicas. The replica that holds a pod's row in a table of claims collects that pod.
//! This crate contains the program `podlog` and all its parts. README.md and `docs/` are the manual. ARCHITECTURE.md
//! follows a line from the API server to the sink.
//!
//! # How the parts fit together
//!
//! - [`domain`] holds the values and the decisions: which replica takes which pod, what to read next, and where lines
//!   may be missing. It does no I/O and reads no clock. Start reading there.
//! - [`cluster`], [`locks`] and [`sinks`] connect to the outside: to Kubernetes, to the table of claims, and to the
//!   place where records are stored. They never import one another.
//! - [`follow`] reads the logs of one pod. `collector` owns all claims of a replica and starts one task per pod.
//!   [`renewer`] renews the claims on a thread of its own.
//! - [`run()`] puts these parts together, and [`command`] starts it from a command line.
//!
//! # Example: the deadline of a claim
//!
//! The holder of a claim stops acting before the row expires. Its deadline counts from the time at which it sent the
//! last renewal, not from the answer. So a slow answer never makes it stop later:
//!
//! ```
//! use std::time::Duration;
//! use podlog::domain::claim::{Deadline, Lease};
//!
//! let s = Duration::from_secs;
//! let lease = Lease { ttl: s(20), renew: s(5), margin: s(5), takeover_grace: s(1) };
//!
//! // The replica asked for the claim at 100 s of its own clock. It may act on it until 115 s.
//! let deadline = Deadline::new(lease.deadline(s(100)));
//! assert!(deadline.allows(s(110), s(5)), "a write of at most 5 s may begin at 110 s");
//! assert!(!deadline.allows(s(111), s(5)), "and none may begin at 111 s");
//!
//! // A renewal that was sent at 105 s is answered at 107 s: the claim is good until 120 s.
//! assert!(deadline.renew(s(107), lease.deadline(s(105))));
//! assert_eq!(deadline.get(), s(120));
//! // Another replica may take the row 21 s after that renewal arrived at the database, at 126 s or later.
//! ```
//!
//! # What other programs may use
//!
//! - [`domain`], the rules, for tools that look at the tables of podlog;
//! - [`locks::LockStore`] and [`sinks::Sink`], the two traits for new stores and sinks;
//! - [`command`], to run podlog as part of another program.
//!
//! The other modules are public so that the tests can use each part alone. They may change in every release.

mod admin;
mod backends;
mod check;
pub mod cli;
pub mod clock;
pub mod cluster;
mod collector;
pub mod command;
pub mod config;
mod db;
pub mod defect;
pub mod domain;
pub mod exit;
pub mod follow;
pub mod grant;
#[cfg(feature = "lab")]
pub mod lab;
pub mod locks;
pub mod metrics;
mod net;
pub mod renewer;
mod retention;
pub mod run;
pub mod sinks;
pub mod status;
pub mod stop;
mod sync;
mod telemetry;
pub mod unread;
pub mod unstored;

pub use check::execute as check;
pub use run::run;
