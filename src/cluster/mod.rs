//! The Kubernetes side: discovery of pods and the streams of their logs.
//!
//! This is the only module that uses the kube library. It reads: pods by list and watch, single pods, and logs. It
//! selects pods by the given scope, never reopens a log stream by itself, and never writes to the cluster.

mod access;
mod client;
mod clients;
mod connect;
mod convert;
mod discover;
mod error;
mod events;
mod list;
mod logs;
mod operation;
mod pod_cache;
mod pool;
mod renewal;
#[cfg(test)]
mod scripted_server;
mod select;
mod speaker;
mod stream_limits;
mod tasks;
mod text;
mod watch;

pub use access::Access;
pub use client::Cluster;
pub use convert::pod_from_json;
pub use discover::discover;
pub use error::{AccessError, ApiError};
pub use list::list_pods;
pub use logs::{LogError, LogQuery, LogStream, open_log};
pub use operation::rule;
pub use pool::connections;
pub use select::{Scope, ScopeError, Selection};
pub use stream_limits::{BURST, StreamLimiter, StreamLimits, StreamPermit};
