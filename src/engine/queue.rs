//! The completion queue: where C-core says what happened, to any thread that asks.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::time::Duration;

use grpcio_sys::{
    gpr_clock_type, gpr_inf_future, gpr_inf_past, gpr_timespec, grpc_completion_queue,
    grpc_completion_queue_create_for_next, grpc_completion_queue_destroy,
    grpc_completion_queue_next, grpc_completion_queue_shutdown, grpc_completion_type,
};

use super::library::Library;
use super::shim::{touchdown_queue_poll, touchdown_queue_post};

/// What a thread that polls is told.
#[derive(Clone, Copy)]
pub(super) enum Told {
    /// What was begun, or posted, with this tag has ended.
    Tag { tag: *mut c_void, succeeded: bool },
    /// The queue is shut down and empty: there will be no more.
    Stopped,
}

/// How long a thread leaves polling alone that C-core could not do: its reason may go, and meanwhile the processor is for
/// others.
const POLL_PAUSE: Duration = Duration::from_millis(10);

/// After how many events a thread looks at the sockets, as long as there is no end of events. C-core itself does so only when
/// there is none left, and who has much to do that leads to more (calls that end, turns of connections) would keep it from
/// all others.
const EVENTS_IN_ONE_GO: u32 = 64;

/// How many sockets are looked at then; the first look may be for a thread that was to be woken.
const LOOKS: c_int = 2;

thread_local! {
    /// How many events this thread has got since it last looked. A new one looks first: while streams begin, each thread gets one event,
    /// and has others started.
    static EVENTS: Cell<u32> = const { Cell::new(EVENTS_IN_ONE_GO) };
}

/// A completion queue of C-core, shared by all threads that poll it.
pub(super) struct Queue {
    raw: *mut grpc_completion_queue,
    _library: Library,
}

// SAFETY: C-core's completion queues are made to be used from many threads.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    pub(super) fn new() -> Queue {
        let library = Library::acquire();
        Queue {
            // SAFETY: the library is initialised, and stays so as long as self.
            raw: unsafe { grpc_completion_queue_create_for_next(ptr::null_mut()) },
            _library: library,
        }
    }

    pub(super) fn as_raw(&self) -> *mut grpc_completion_queue {
        self.raw
    }

    /// Blocks until something happened. Meanwhile this thread does C-core's
    /// input and output.
    #[inline]
    pub(super) fn next(&self) -> Told {
        loop {
            // SAFETY: a constant.
            let never = unsafe { gpr_inf_future(gpr_clock_type::GPR_CLOCK_MONOTONIC) };
            if let Some(told) = self.wait(never) {
                return told;
            }
            // C-core could not poll: it wants a descriptor, or memory.
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// As `next`, but says `None` instead of blocking.
    #[inline]
    pub(super) fn try_next(&self) -> Option<Told> {
        // SAFETY: a constant.
        self.wait(unsafe { gpr_inf_past(gpr_clock_type::GPR_CLOCK_MONOTONIC) })
    }

    #[inline]
    fn wait(&self, deadline: gpr_timespec) -> Option<Told> {
        match EVENTS.get() {
            EVENTS_IN_ONE_GO.. => self.poll(),
            events => EVENTS.set(events + 1),
        }
        // SAFETY: the queue is alive.
        let event = unsafe { grpc_completion_queue_next(self.raw, deadline, ptr::null_mut()) };
        match event.type_ {
            grpc_completion_type::GRPC_QUEUE_SHUTDOWN => Some(Told::Stopped),
            grpc_completion_type::GRPC_QUEUE_TIMEOUT => None,
            grpc_completion_type::GRPC_OP_COMPLETE => Some(Told::Tag {
                tag: event.tag,
                succeeded: event.success != 0,
            }),
        }
    }

    /// Looks at the sockets, and does what is due there.
    #[cold]
    fn poll(&self) {
        EVENTS.set(0);
        // SAFETY: the queue is alive.
        unsafe { touchdown_queue_poll(self.raw, LOOKS) }
    }

    /// Has the thread that polls next get this tag. False if the queue is shut down, and then it does not.
    pub(super) fn post(&self, tag: *mut c_void) -> bool {
        // SAFETY: the queue is alive; the tag is not looked into.
        unsafe { touchdown_queue_post(self.raw, tag) != 0 }
    }

    /// Lets `next` say [`Told::Stopped`] once nothing is outstanding.
    /// Nothing may be begun on a call of this queue afterwards.
    pub(super) fn shut_down(&self) {
        // SAFETY: the queue is alive; shutting down twice is harmless.
        unsafe { grpc_completion_queue_shutdown(self.raw) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the last reference is gone, so no thread polls, and the threads
        // that polled did so until the queue was empty.
        unsafe { grpc_completion_queue_destroy(self.raw) }
    }
}
