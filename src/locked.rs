//! Taking a lock of the standard library, whoever panicked with it.
//!
//! A panic ends one task here, and nothing that holds one of our locks can leave what it guards half changed:
//! what stood behind the lock then is as true as before. What it never does: wait for anything but other
//! threads that hold the lock, for as long as they need to change a few fields.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a lock guards, whoever panicked with it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
