//! Runs code of the program so that a panic in it goes no further.

use std::any::Any;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};

use crate::logging;

/// Runs code of the program. A panic in it is logged, with what it was that panicked, and goes no further. Whatever `run`
/// owns is dropped here, too.
pub(crate) fn caught<T>(what: impl Display, run: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| logging::error!("{what} panicked: {}", message_of(panic)))
        .ok()
}

/// What a caught panic said. It is dropped, and no panic leaves this.
pub(crate) fn message_of(panic: Box<dyn Any + Send>) -> String {
    let message = panic_message(&*panic);
    drop_thrown(panic);
    message
}

/// Drops what was thrown. It may panic as it is dropped, and so may what that throws; after four times it is leaked.
pub(crate) fn drop_thrown(mut thrown: Box<dyn Any + Send>) {
    for _ in 0..4 {
        match panic::catch_unwind(AssertUnwindSafe(move || drop(thrown))) {
            Ok(()) => return,
            Err(next) => thrown = next,
        }
    }
    std::mem::forget(thrown);
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a value that is not text").to_owned()
}
