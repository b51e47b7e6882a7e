//! A simulated Kubernetes cluster for tests. It runs in the process of the test.
//!
//! [`SimCluster`] has pods, containers and their logs, and serves them over the HTTP API of Kubernetes. There are two
//! ways to connect a client. [`SimCluster::service`] is a service for `kube::Client`. [`SimCluster::serve`] listens on
//! a port, for `kubectl` and every other client.
//!
//! ```
//! use kube_sim::{PodSpec, SimCluster};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cluster with one running pod that has written one line.
//! let cluster = SimCluster::default();
//! let pod = cluster.create(PodSpec::new("shop", "cart-0").node("node-1").app("app"))?;
//! pod.start("app")?;
//! pod.line("app", "hello")?;
//!
//! // The API server listens on a port of the loopback interface.
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let stop = CancellationToken::new();
//! let server = tokio::spawn({
//!     let (cluster, stop) = (cluster.clone(), stop.clone());
//!     async move { cluster.serve(listener, stop).await }
//! });
//!
//! // This is the request of `kubectl --server http://ADDRESS --namespace shop logs cart-0`.
//! let mut connection = TcpStream::connect(address).await?;
//! connection.write_all(b"GET /api/v1/namespaces/shop/pods/cart-0/log HTTP/1.0\r\n\r\n").await?;
//! let mut answer = String::new();
//! connection.read_to_string(&mut answer).await?;
//! assert!(answer.ends_with("hello\n"));
//!
//! stop.cancel();
//! server.await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is simulated
//!
//! - Lists and watches of pods: label and field selectors, pages, tables, bookmarks, initial events, compacted history.
//! - Container logs as the kubelet serves them, with the properties that confuse log collectors: `sinceTime` in whole
//!   seconds, long lines in records of 16 KiB that are joined again, streams that send nothing more after a rotation,
//!   streams that end without an error although lines are missing.
//! - Refused requests and access reviews (RBAC).
//! - Faults of requests and streams, see [`Fault`].
//!
//! # What a test controls
//!
//! Nothing happens by itself. A test starts containers, lets them write, rotates their logs and ends them, see
//! [`SimPod`]. It can delay what the API shows of them, see [`SimCluster::delay_status`]. [`workload::Workload`] does
//! all this for a busy cluster: a seed determines what happens.
//!
//! The time is that of tokio, and identifiers come from a seed. With a paused clock, the same calls give the same
//! bytes.
//!
//! # How to check a collector
//!
//! The cluster keeps every line that a container has ever written, also lines that the API no longer serves, see
//! [`SimCluster::written`]. [`audit`] compares them with the lines that a collector has stored.
//!
//! # What is not simulated
//!
//! Objects other than pods (namespaces and nodes can only be listed), writes through the API, authentication,
//! scheduling, probes, and restarts of containers by a kubelet.

mod answer;
mod api;
pub mod audit;
mod clock;
mod cluster;
mod error;
mod faults;
mod files;
mod handle;
mod list;
mod logs;
mod pod;
mod published;
mod rights;
mod route;
mod select;
mod serve;
mod settings;
mod shared;
mod state;
mod stream;
mod sync;
mod watch;
pub mod workload;

pub use api::SimService;
pub use cluster::SimCluster;
pub use error::SimError;
pub use faults::{Cut, Fault, RequestSubject, Target, Verb};
pub use files::{ContainerInstance, Output, Text, WrittenLine, WrittenLog};
pub use handle::SimPod;
pub use pod::{ContainerKind, PodSpec, RestartPolicy};
pub use serve::kubeconfig;
pub use settings::SimSettings;
pub use shared::Requests;
pub use stream::SimBody;
