//! `SQLite` files.

pub mod connect;
pub mod diagnose;
pub mod fault;
pub mod migrate;
pub mod open;
pub mod pool;
pub mod session;
