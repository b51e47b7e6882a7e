//! Locking of values that replicas on one thread share with the simulation.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex even if a thread that held it panicked: each value is changed in one go, so it is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
