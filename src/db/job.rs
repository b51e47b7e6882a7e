//! Work on a connection that a session does within its deadline.

use std::future::Future;

/// Work on a connection of type `C`. It can be done again from the start after any failure.
pub(crate) trait Job<C>: Sync {
    /// What it returns.
    type Answer: Send;

    /// Does the work once.
    fn run(&self, conn: &mut C) -> impl Future<Output = Result<Self::Answer, sqlx::Error>> + Send;
}
