//! The command line: commands, flags, variables and the settings file.
//!
//! What the settings mean, and whether they are safe together, is decided in `config`.

mod commands;
pub mod file;
pub mod flags;
#[cfg(feature = "lab")]
pub mod lab;
mod read;
pub mod show;
pub mod units;

pub use commands::{Cli, Command, Locks, command};
pub use read::{Typed, read};
