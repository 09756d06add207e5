//! Runs code of the program so that a panic in it goes no further.

use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};

use crate::logging;
use crate::thrown::message_of;

/// Runs code of the program. A panic in it is logged, with what it was that panicked, and goes no further. Whatever `run`
/// owns is dropped here, too.
pub(crate) fn caught<T>(what: impl Display, run: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| logging::error!("{what} panicked: {}", message_of(panic)))
        .ok()
}

/// Drops what is the program's, one after the other: a second panic, while the first one unwinds, would end the process.
pub(crate) fn drop_each<T>(what: &str, all: Vec<T>) {
    for it in all {
        caught(what, || drop(it));
    }
}
