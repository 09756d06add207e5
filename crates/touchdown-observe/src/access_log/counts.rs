//! How many lines there were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// How many lines of an [`AccessLog`](super::AccessLog) were written, and how many were not. A clone has the same numbers.
///
/// Each call that was to be logged is in one of them once nothing waits any more: so from the end of the server's stop on.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// How many calls were logged: their lines were taken by what they were given to. The program's logger takes all, and has
    /// [numbers of its own](fn@crate::log::lost).
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// How many calls should have been logged, and were not: there was no room in the queue, the line could not be written, or
    /// it waited still when the program's time to close was over.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    // The numbers stand for themselves: nothing is read by them, so they are relaxed.
    pub(super) fn add_written(&self) {
        self.0.written.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, lines: u64) {
        self.0.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}
