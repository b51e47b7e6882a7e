//! Input from an attacker or from a broken program: containers, pods, API servers, kubeconfigs and tables. Nothing
//! panics, no secret is printed, and another pod is collected completely.

mod api;
mod containers;
mod database;
mod fixture;
mod kubeconfig;
mod names;
pub(crate) mod proxy;
mod values;
mod versions;
