//! What an error gives back.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Work that was not taken. The lock is never waited for; it is there so that an error with work in it may be passed to
/// other threads, as boxed errors are. In a box, since errors are moved about.
pub(super) struct Returned<T>(Box<Mutex<T>>);

impl<T> Returned<T> {
    pub(super) fn new(it: T) -> Self {
        Self(Box::new(Mutex::new(it)))
    }

    pub(super) fn take(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Returned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}
