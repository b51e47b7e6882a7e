//! The settings: what the flags mean, and whether they are safe together.
//!
//! A [`Config`] that [`checked`] returns is safe to run with. Nothing here reads the command line or connects to
//! anything.

mod checks;
mod names;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod unreadable;

pub use checks::{checked, violations};
pub use secret::{Passwords, SecretUrl};
pub use settings::{ClusterConfig, Config, LockConfig, SinkConfig, StreamConfig};
pub use unreadable::Unreadable;
