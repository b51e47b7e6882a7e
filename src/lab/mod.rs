//! The laboratory: `podlog demo`, `podlog simulate`, and the lock store in memory that the simulation and the tests
//! use.
//!
//! Only a build with the cargo feature `lab` contains it. `command` imports it to start the two commands; no other part
//! of the product does.

mod demo;
pub mod memory;
pub mod row;
pub mod simulate;

pub use demo::demo;
pub use simulate::simulate;
