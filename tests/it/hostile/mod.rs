//! Input that means harm, or could not mean it better if it did: containers, pods, API servers, kubeconfigs and tables
//! as nobody would write them. In each, nothing panics, no secret is said, and a pod beside is collected whole.

mod api;
mod containers;
mod database;
mod fixture;
mod kubeconfig;
mod names;
mod proxy;
mod values;
mod versions;
