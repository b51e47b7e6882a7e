//! Where claims are stored: the trait that every lock store implements, and the statements of each store.
//!
//! Whether a claim has expired is decided in `mysql/statements.rs` and `sqlite/statements.rs`, by the database's clock.
//!
//! A store answers who holds what. It never decides who should hold what (that is
//! `domain::plan`), and it never starts anything. "Held by another" is an answer; "the store
//! failed" is an error; nothing here turns one into the other.

/// The state of a row whose pod is collected to its end. A macro, so that `concat!` can put it into statements.
macro_rules! state_finished {
    () => {
        2
    };
}

pub(crate) mod batch;
mod batched_store;
mod jobs;
mod mysql;
mod open;
pub(crate) mod schema;
mod sqlite;
mod store;
mod url;

pub use batch::BATCH_ROWS;
pub use open::{diagnose, migrate, open};
pub use store::{CALL_DEADLINE, DEAD_REPLICA_TTL, Holder, LockStore, STATEMENT_DEADLINE, call};
pub use url::LockUrl;
