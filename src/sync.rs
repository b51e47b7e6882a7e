//! Locking of mutexes whose values stay whole after a panic. It never waits across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex even if a task that held it panicked. Each value behind such a mutex is changed in one step or can be
/// read after any step, so it is valid then too, and a panic of one task must not end the others.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
