//! The completion queue: where C-core says what happened, to whoever asks.

use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use grpcio_sys::{
    gpr_clock_type, gpr_inf_future, gpr_inf_past, gpr_timespec, grpc_completion_queue,
    grpc_completion_queue_create_for_next, grpc_completion_queue_destroy,
    grpc_completion_queue_next, grpc_completion_queue_shutdown, grpc_completion_type,
};

use super::call::{Call, Operation};
use super::library::Library;
use super::requests::Slot;
use super::shim::touchdown_queue_post;

/// What a thread that polls is told.
pub(super) enum Event {
    /// A call arrived in the slot, or, if not `filled`, none ever will.
    Request { slot: Box<Slot>, filled: bool },
    /// Something that was begun on a call has ended.
    Operation {
        call: Arc<Call>,
        operation: Operation,
    },
    /// Somebody wants to see that the queue is polled.
    Check(Check),
    /// Another thread is to take this one's place, if there can be one.
    Renewal,
    /// The server is shut down.
    ServerStopped,
    /// The queue is shut down and empty: there will be no more events.
    QueueStopped,
}

/// What the thread does that polls next.
#[repr(align(16))]
pub(super) struct Check(pub(super) Box<dyn FnOnce() + Send>);

/// A tag carries a pointer and, in the bits that its alignment leaves free,
/// what it points at. `Slot`, `Call` and `Check` are aligned to 16 bytes.
const KIND_MASK: usize = 0xf;
const KIND_SLOT: usize = 0;
const KIND_RENEWAL: usize = 0xd;
const KIND_CHECK: usize = 0xe;
const KIND_SERVER: usize = 0xf;

pub(super) fn slot_tag(slot: Box<Slot>) -> *mut std::ffi::c_void {
    Box::into_raw(slot).cast()
}

pub(super) fn server_tag() -> *mut std::ffi::c_void {
    ptr::without_provenance_mut(KIND_SERVER)
}

/// Gives a reference to the call away to the queue; [`Queue::next`] takes it back.
pub(super) fn call_tag(call: &Arc<Call>, operation: Operation) -> *mut std::ffi::c_void {
    Arc::into_raw(Arc::clone(call))
        .cast_mut()
        .map_addr(|address| address | operation as usize)
        .cast()
}

/// Takes back what [`call_tag`] gave away, when C-core refused the operation.
///
/// # Safety
/// `tag` is from `call_tag`, and C-core does not have it.
pub(super) unsafe fn drop_call_tag(tag: *mut std::ffi::c_void) {
    // SAFETY: as the caller promises.
    drop(unsafe { Arc::from_raw(untagged::<Call>(tag)) });
}

/// Takes back what [`call_tag`] gave away, when the operation has ended.
///
/// # Safety
/// `tag` is from `call_tag`, and comes back once.
pub(super) unsafe fn take_call_tag(tag: *mut std::ffi::c_void) -> (Arc<Call>, Operation) {
    // SAFETY: as the caller promises.
    let call = unsafe { Arc::from_raw(untagged::<Call>(tag)) };
    (call, Operation::from_bits(tag.addr() & KIND_MASK))
}

fn untagged<T>(tag: *mut std::ffi::c_void) -> *mut T {
    tag.map_addr(|address| address & !KIND_MASK).cast()
}

/// How long a thread leaves polling alone that C-core could not do: its reason may go, and meanwhile the processor is for
/// others.
const POLL_PAUSE: Duration = Duration::from_millis(10);

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
    pub(super) fn next(&self) -> Event {
        loop {
            // SAFETY: a constant.
            let never = unsafe { gpr_inf_future(gpr_clock_type::GPR_CLOCK_MONOTONIC) };
            if let Some(event) = self.wait(never) {
                return event;
            }
            // C-core could not poll: it wants a descriptor, or memory.
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// As `next`, but says `None` instead of blocking.
    pub(super) fn try_next(&self) -> Option<Event> {
        // SAFETY: a constant.
        self.wait(unsafe { gpr_inf_past(gpr_clock_type::GPR_CLOCK_MONOTONIC) })
    }

    fn wait(&self, deadline: gpr_timespec) -> Option<Event> {
        // SAFETY: the queue is alive.
        let event = unsafe { grpc_completion_queue_next(self.raw, deadline, ptr::null_mut()) };
        match event.type_ {
            grpc_completion_type::GRPC_QUEUE_SHUTDOWN => return Some(Event::QueueStopped),
            grpc_completion_type::GRPC_QUEUE_TIMEOUT => return None,
            grpc_completion_type::GRPC_OP_COMPLETE => {}
        }
        let succeeded = event.success != 0;
        Some(match event.tag.addr() & KIND_MASK {
            KIND_SERVER => Event::ServerStopped,
            KIND_RENEWAL => Event::Renewal,
            KIND_SLOT => Event::Request {
                // SAFETY: from `slot_tag`, and each tag comes back once.
                slot: unsafe { Box::from_raw(event.tag.cast::<Slot>()) },
                filled: succeeded,
            },
            KIND_CHECK => {
                // SAFETY: from `post`, and each tag comes back once.
                Event::Check(*unsafe { Box::from_raw(untagged::<Check>(event.tag)) })
            }
            _ => {
                // SAFETY: from `call_tag`, and each tag comes back once.
                let (call, operation) = unsafe { take_call_tag(event.tag) };
                Event::Operation { call, operation }
            }
        })
    }

    /// Has whichever thread polls do this next. Drops it if the queue is shut down.
    pub(super) fn post(&self, check: Check) {
        let tag = Box::into_raw(Box::new(check)).map_addr(|address| address | KIND_CHECK);
        // SAFETY: the queue is alive.
        if unsafe { touchdown_queue_post(self.raw, tag.cast()) } == 0 {
            // SAFETY: made just now, and C-core does not have it.
            drop(unsafe { Box::from_raw(untagged::<Check>(tag.cast())) });
        }
    }

    /// Has whichever thread polls next let another take its place.
    pub(super) fn renew(&self) {
        let tag = ptr::without_provenance_mut(KIND_RENEWAL);
        // SAFETY: the queue is alive. If it is shut down nothing is posted, and nothing wanted.
        let _ = unsafe { touchdown_queue_post(self.raw, tag) };
    }

    /// Lets `next` say [`Event::QueueStopped`] once nothing is outstanding.
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
