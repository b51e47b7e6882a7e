//! `podlog simulate`: random histories of whole replicas on a paused clock, and the rules that each history must keep.
//!
//! A [`Fleet`] has several real collectors, a simulated cluster, a table of claims in memory, and a sink that checks
//! what is written to it. A [`History`] is a list of steps made from a seed. Each step changes pods, replicas, the lock
//! store, the API server or the sink, and then time passes. [`play`](play::play()) plays a history and returns the
//! [`Rule`] that was broken, if one was. [`shrink()`] shortens a history that fails. The tests and `podlog simulate`
//! play the same histories.
//!
//! Nothing here opens a socket. The real clock is read only to measure how long `podlog simulate` takes.

mod actions;
pub mod api_gate;
mod checks;
mod command;
mod fleet;
mod guards;
pub mod history;
mod lease;
mod ledger_audit;
pub mod play;
mod random;
pub mod repeats;
mod replica;
pub mod rule;
mod shrink;
pub mod sink;
pub mod store;

pub use checks::find_imbalance;
pub use command::simulate;
pub use fleet::{Fleet, pod_key};
pub use history::History;
pub use lease::LEASE;
pub use ledger_audit::LedgerAudit;
pub use random::random_history;
pub use replica::SimReplica;
pub use rule::{Breach, Rule};
pub use shrink::shrink;
