//! Runs code of the program so that a panic in it goes no further.

use std::any::Any;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};

use crate::logging;
use crate::thrown::message_of;

/// Runs code of the program. A panic in it is logged, with what it was that panicked, and goes no further. Whatever `run`
/// owns is dropped here, too.
pub(crate) fn caught<T>(what: impl Display, run: impl FnOnce() -> T) -> Option<T> {
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(panic) => {
            log(&what, panic);
            None
        }
    }
}

/// Is compiled once for all.
#[cold]
fn log(what: &dyn Display, panic: Box<dyn Any + Send>) {
    logging::error!("{what} panicked: {}", message_of(panic));
}

/// Drops what is the program's, one after the other: a second panic, while the first one unwinds, would end the process.
pub(crate) fn drop_each<T>(what: &str, all: Vec<T>) {
    for it in all {
        caught(what, || drop(it));
    }
}
