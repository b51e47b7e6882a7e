//! Random histories of whole collectors on a paused clock, and the checks that each came to a good end.
//!
//! A [`Fleet`] is several real collectors over a simulated cluster, a table of claims in memory, and a sink that checks
//! its writers. A [`History`] is data made from a seed: what happens to pods, replicas, the store, the API server and
//! the sink, and how much time passes between. [`play`](play::play()) plays one and says which [`Rule`] was broken, if
//! one was. [`shrink()`] shortens a history that fails. The tests and `podlog simulate` play the same histories.
//!
//! Nothing here opens a socket. The real clock is read only to say how long `podlog simulate` took.

mod actions;
pub mod api_gate;
mod command;
mod fleet;
pub mod history;
mod lease;
mod ledger_audit;
pub mod play;
mod random;
mod replica;
pub mod rule;
mod rules;
mod shrink;
pub mod sink;
pub mod store;

pub use command::simulate;
pub use fleet::{Fleet, pod_key};
pub use history::History;
pub use lease::LEASE;
pub use ledger_audit::LedgerAudit;
pub use random::random_history;
pub use replica::SimReplica;
pub use rule::{Breach, Rule};
pub use rules::uneven;
pub use shrink::shrink;
