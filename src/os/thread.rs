//! The ends of threads.

use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;

/// Frees what is left of a thread, if it has ended; gives the handle back if not. It never waits, not even for the values
/// of thread-local variables that a thread drops at its end.
pub(crate) fn join_if_ended(thread: JoinHandle<()>) -> Option<JoinHandle<()>> {
    // SAFETY: nobody else has joined or detached this thread, since its handle is here.
    match unsafe { libc::pthread_tryjoin_np(thread.as_pthread_t(), ptr::null_mut()) } {
        0 => {
            // Joined already: its handle must not do it again, nor detach it.
            let _ = thread.into_pthread_t();
            None
        }
        _ => Some(thread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_runs_is_not_waited_for_and_one_that_has_ended_is_freed() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || ended.recv().unwrap_or_default());
        let mut left = Some(join_if_ended(thread).expect("it runs still"));
        drop(end);
        while let Some(thread) = left.take() {
            std::thread::yield_now();
            left = join_if_ended(thread);
        }
    }
}
