//! `SQLite` files.

pub(crate) mod connect;
pub(crate) mod diagnose;
pub(crate) mod errors;
pub(crate) mod migrate;
pub(crate) mod open;
pub(crate) mod pool;
pub(crate) mod session;
