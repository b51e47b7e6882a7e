//! A simulated Kubernetes cluster: an API server that fits in a process.
//!
//! [`SimCluster`] is a world of pods, containers and log files behind the HTTP API that real clients speak: a
//! `kube::Client` over [`SimCluster::service`], or anything that can reach a port given to [`SimCluster::serve`],
//! `kubectl` included. It lists and watches pods (selectors, pages, tables, bookmarks, compaction) and serves logs as
//! the kubelet does, its oddities among them: whole-second `sinceTime`, joined partial records, followers that go
//! mute after a rotation, a clean end that proves nothing.
//!
//! Nothing happens by itself. Containers start, write, rotate and exit because a caller says so (see [`SimPod`], or
//! [`workload::Workload`] for a whole busy cluster), and faults strike where they are put. Readers are cursors and not
//! tasks, time is tokio's, identifiers come from a seed; so on a paused clock the same calls give the same bytes.
//!
//! It keeps every line ever written, also those the API no longer serves: [`SimCluster::truth`] is what a collector
//! is judged by.
//!
//! Not simulated: object kinds other than pods (namespaces and nodes can be listed, nothing more), writes through
//! the API, authentication, scheduling, probes, and the kubelet's own delays: a state is visible as soon as it is set.

mod answer;
mod api;
mod clock;
mod cluster;
mod faults;
mod files;
mod handle;
mod list;
mod logs;
mod pod;
mod rights;
mod route;
mod select;
mod serve;
mod show;
mod stream;
mod watch;
pub mod workload;
mod world;

pub use api::SimService;
pub use cluster::{Requests, Settings, SimCluster, SimError};
pub use faults::{Cut, Effect, OpenStream, Target, Verb};
pub use files::{Instance, Output, Text, TrueLine, Truth};
pub use handle::SimPod;
pub use pod::{Kind, PodSpec, RestartPolicy};
pub use stream::SimBody;
