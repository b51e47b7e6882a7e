//! The laboratory: `podlog demo`, `podlog simulate`, and the lock store in memory that simulation and tests share.
//!
//! Only a build with the cargo feature `lab` has it. Of the product only `command` imports it, to start the two commands.

mod demo;
pub mod memory;
pub mod row;
pub mod simulate;

pub use demo::demo;
pub use simulate::simulate;
