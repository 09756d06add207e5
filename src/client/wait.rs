//! Waiting for what grpcio gives as a future.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// The thread that waits, and whether there is something for it to look at.
struct Waiting {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Pairs with the swap in `wait`.
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Blocks until the future is ready. Unlike an executor's own `block_on`, which panics on a thread that
/// is at work for an executor already, this can be called on any thread.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    // One for each wait: what else parks or wakes this thread is not mistaken for an end of this one.
    let waiting = Arc::new(Waiting {
        thread: thread::current(),
        is_woken: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&waiting));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        while !waiting.is_woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Has the future do what it can do without waiting, and drops it.
pub fn begin(future: impl Future) {
    let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A future that is ready when it is polled again, which a thread of its own sees to.
    fn second_time() -> impl Future<Output = &'static str> {
        let mut polled = false;
        poll_fn(move |context| {
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready("ready");
            }
            let waker = context.waker().clone();
            thread::spawn(move || waker.wake());
            Poll::Pending
        })
    }

    #[test]
    fn a_wait_ends_when_the_future_is_ready() {
        assert_eq!(wait(second_time()), "ready");
    }

    #[test]
    fn a_thread_that_was_unparked_before_waits_all_the_same() {
        thread::current().unpark();
        assert_eq!(wait(second_time()), "ready");
    }

    #[test]
    fn a_wait_within_a_wait_takes_nothing_from_it() {
        let mut outer = Box::pin(second_time());
        let both = poll_fn(|context| {
            let polled = outer.as_mut().poll(context);
            polled.map(|it| (it, wait(second_time())))
        });
        assert_eq!(wait(both), ("ready", "ready"));
    }
}
