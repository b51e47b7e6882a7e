//! A simulated Kubernetes cluster for tests: an API server that fits in a process.
//!
//! [`SimCluster`] holds pods, containers and their log files, and serves them over the HTTP API that real clients
//! speak. Put [`SimCluster::service`] under a `kube::Client`, or open a port with [`SimCluster::serve`] and point any
//! client at it, `kubectl` included.
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
//! // Its API server on a port of the loopback interface.
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let stop = CancellationToken::new();
//! let server = tokio::spawn({
//!     let (cluster, stop) = (cluster.clone(), stop.clone());
//!     async move { cluster.serve(listener, stop).await }
//! });
//!
//! // What `kubectl --server http://ADDRESS --namespace shop logs cart-0` asks for.
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
//! Lists and watches of pods: label and field selectors, pages, tables, bookmarks, initial events, compacted history.
//! Container logs as the kubelet serves them, with the habits that confuse log collectors: `sinceTime` in whole
//! seconds, records of 16 KiB that are joined again, followers that stay silent after a rotation, streams that end in
//! order although lines are missing. RBAC refusals and access reviews. Faults of requests and streams, see [`Fault`].
//!
//! # What a test controls
//!
//! Nothing happens by itself. Containers start, write, rotate and exit when the test says so, see [`SimPod`];
//! [`workload::Workload`] drives a whole busy cluster from a seed. Statuses fall behind by a chosen delay, see
//! [`SimCluster::delay_status`]. Time is tokio's and identifiers come from a seed, so on a paused clock the same calls
//! give the same bytes.
//!
//! # What a collector is judged by
//!
//! The cluster keeps every line that a container ever wrote, also those that the API no longer serves:
//! [`SimCluster::written`]. [`audit`] compares them with the lines that were stored.
//!
//! # What is not simulated
//!
//! Kinds of objects other than pods (namespaces and nodes can be listed, nothing more), writes through the API,
//! authentication, scheduling, probes, and restarts by a kubelet.

mod answer;
mod api;
pub mod audit;
mod clock;
mod cluster;
mod error;
mod faults;
mod files;
mod handle;
mod kubeconfig;
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
pub use kubeconfig::kubeconfig;
pub use pod::{ContainerKind, PodSpec, RestartPolicy};
pub use settings::SimSettings;
pub use shared::Requests;
pub use stream::SimBody;
