//! Room for C-core's own threads, made sure of before it is started.

use std::io;
use std::thread;

use parking_lot::Mutex;

use crate::os::memory::default_stack_size;
use crate::text::ROOM_FOR_THREADS;

/// How many threads C-core starts at once.
const THREADS_OF_CORE: usize = 4;

/// Makes sure that C-core can have its threads, whose stacks are of the system's default size: it starts as many
/// and lets them end. If C-core cannot start one of its own, it waits for it without end.
///
/// # Errors
///
/// That of the thread, with what to change.
pub(super) fn check_room_for_core() -> io::Result<()> {
    let size = default_stack_size();
    let to_end = Mutex::new(());
    let not_yet = to_end.lock();
    let started = thread::scope(|scope| {
        let mut started = Ok(());
        for _ in 0..THREADS_OF_CORE {
            let thread = thread::Builder::new().name("td-probe".to_owned());
            let thread = thread.stack_size(size);
            started =
                started.and_then(|()| thread.spawn_scoped(scope, || drop(to_end.lock())).map(drop));
        }
        drop(not_yet);
        started
    });
    started.map_err(|error| {
        let message = format!(
            "gRPC C-core needs {THREADS_OF_CORE} threads with stacks of {} KiB each: {error}; {ROOM_FOR_THREADS}",
            size >> 10
        );
        io::Error::new(error.kind(), message)
    })
}
