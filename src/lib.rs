//! podlog collects the logs of Kubernetes pods, each line once.
pub mod sim;
