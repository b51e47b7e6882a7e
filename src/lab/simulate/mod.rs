//! Random histories of whole collectors on a paused clock, and the proof that each came to a good end.
//!
//! [`World`] is several real collectors over a simulated cluster, a table in memory and a sink that judges. A
//! [`History`] is data, made from a seed: what happens to pods, replicas, the store, the API and the sink, and how much
//! time passes between. [`play`](play::play()) plays one and says which [`Rule`] was broken, if one was; a history that
//! fails is shortened by [`shrink()`]. The tests and `podlog simulate` play the same histories with the same code.
//!
//! Nothing here opens a socket, reads a real clock but to tell how long it took, or runs in `podlog run`.

pub mod api;
pub mod breach;
mod chance;
mod command;
pub mod history;
mod judge;
mod ledger_audit;
pub mod play;
mod player;
mod replica;
mod shrink;
pub mod sink;
pub mod store;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use breach::{Breach, Rule};
pub use command::simulate;
pub use history::History;
pub use ledger_audit::LedgerAudit;
pub use replica::Replica;
pub use shrink::shrink;
pub use world::{LEASE, World};

/// A panic elsewhere leaves whole values behind: each is changed in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
