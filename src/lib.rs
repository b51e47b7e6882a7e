//! podlog collects the logs of Kubernetes pods through the Kubernetes API. It runs as N equal
//! replicas; each pod is collected by the one replica that holds the pod's row in a table of
//! claims, so each line is delivered once.

pub mod clock;
pub mod cluster;
pub mod domain;
pub mod follow;
pub mod grant;
pub mod locks;
pub mod metrics;
pub mod reckoning;
pub mod sim;
pub mod sinks;
