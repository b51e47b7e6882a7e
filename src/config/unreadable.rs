//! The settings that cannot be read, all of them, so that `podlog check` names each at once.
//!
//! Values only; nothing is read here.

use crate::exit::Failure;

/// Every setting that cannot be read, in order.
#[derive(Clone, Debug)]
pub struct Unreadable(pub Vec<Failure>);

impl From<Unreadable> for Failure {
    /// The first of them.
    fn from(Unreadable(failures): Unreadable) -> Self {
        let first = failures.into_iter().next();
        first.unwrap_or_else(|| Self::failed("the settings cannot be read"))
    }
}
