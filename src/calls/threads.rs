//! The threads of a server: started, counted, and waited for at its end.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::logging;
use crate::os::thread::join_if_ended;
use crate::text::ROOM_FOR_THREADS;

/// How many threads that have ended are not worth a look.
const FEW: usize = 16;

#[derive(Default)]
pub(super) struct Threads {
    /// How large the stacks of the threads that run handlers are, in bytes; Rust's default if it is not set.
    stack_size: Option<usize>,
    started: Mutex<Started>,
    /// Signalled when the last thread is about to end.
    all_ended: Condvar,
}

#[derive(Default)]
struct Started {
    running: usize,
    handles: Vec<JoinHandle<()>>,
}

/// Ends the process if one of these threads panics. That is a bug of this crate (what a handler
/// does is caught), and without the thread calls would hang, for ever and without a word.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        logging::error!("a thread of touchdown's engine panicked: aborting");
        std::process::abort();
    }
}

impl Threads {
    pub(super) fn new(stack_size: Option<usize>) -> Threads {
        Threads {
            stack_size,
            ..Threads::default()
        }
    }

    /// A thread that runs handlers, to be started.
    pub(super) fn worker(&self) -> Builder {
        let thread = Builder::new().name("td-worker".to_owned());
        match self.stack_size {
            Some(size) => thread.stack_size(size),
            None => thread,
        }
    }

    /// Starts a thread that counts as one of these.
    ///
    /// # Errors
    ///
    /// If there can be no thread, with what limits them.
    pub(super) fn spawn(
        self: &Arc<Self>,
        thread: Builder,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let threads = Arc::clone(self);
        let mut started = self.started.lock();
        let handle = thread.spawn(move || {
            let bomb = Bomb;
            body();
            std::mem::forget(bomb);
            let mut started = threads.started.lock();
            started.running -= 1;
            if started.running == 0 {
                threads.all_ended.notify_all();
            }
        });
        let handle = handle.map_err(|error| {
            let message = format!("cannot start a thread: {error}; {ROOM_FOR_THREADS}");
            io::Error::new(error.kind(), message)
        })?;
        started.running += 1;
        started.handles.push(handle);
        // A thread that has ended keeps its stack until it is joined. Where many come and go, that is not left to a time
        // of rest.
        if started.handles.len() > 2 * started.running + FEW {
            let handles = std::mem::take(&mut started.handles);
            started.handles = handles.into_iter().filter_map(join_if_ended).collect();
        }
        Ok(())
    }

    /// Frees what is left of threads that have ended. Waits for none: a handler's thread-local value may take its
    /// time to be dropped.
    pub(super) fn join_ended(&self) {
        let mut started = self.started.lock();
        let handles = std::mem::take(&mut started.handles);
        started.handles = handles.into_iter().filter_map(join_if_ended).collect();
    }

    /// Waits for all of them to end. Says whether they did.
    pub(super) fn join(&self, deadline: Instant) -> bool {
        let mut started = self.started.lock();
        while started.running > 0 {
            let wait = self.all_ended.wait_until(&mut started, deadline);
            if wait.timed_out() {
                return started.running == 0;
            }
        }
        let handles = std::mem::take(&mut started.handles);
        drop(started);
        join(handles);
        true
    }
}

/// Waits for threads that have passed their last line. Only one of the server's own threads is told so by itself,
/// and then cannot wait for it.
fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn threads_that_come_and_go_are_joined_meanwhile() {
        let threads = Arc::new(Threads::default());
        let begin = || Builder::new();
        let (stay, stays) = mpsc::channel::<()>();
        threads
            .spawn(begin(), move || {
                let _ = stays.recv();
            })
            .unwrap();
        let (done, is_done) = mpsc::channel();
        for _ in 0..10 * FEW {
            let done = done.clone();
            threads
                .spawn(begin(), move || done.send(()).unwrap())
                .unwrap();
            is_done.recv().unwrap();
        }
        // Those that were not quite at their end when somebody looked.
        let left = threads.started.lock().handles.len();
        assert!(left < 4 * FEW, "{left} are left");
        drop(stay);
        assert!(threads.join(Instant::now() + Duration::from_secs(20)));
    }
}
