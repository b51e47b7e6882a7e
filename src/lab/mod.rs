//! The laboratory: `podlog demo`, `podlog simulate`, and the stand-ins that they and the tests share.
//!
//! Only a build with the cargo feature `lab` has it. Nothing of the product imports it; only `command` starts its two
//! commands.

mod demo;
pub mod memory;
pub mod row;
pub mod simulate;

pub use demo::demo;
pub use simulate::simulate;
