//! What a panic has thrown: what it says, and how it is dropped.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

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
