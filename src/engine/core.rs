//! What a server's calls and threads hold on to of C-core.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::queue::Queue;
use super::server::Server;

pub(super) struct Core {
    // In the order in which they have to go: the server before the queue.
    pub(super) server: Server,
    pub(super) queue: Queue,
    pub(super) methods: Vec<Registered>,
    /// Slots that C-core has, and those whose event somebody is at work on. As long as there
    /// are any, something may be begun on the queue.
    slots_out: AtomicUsize,
    has_more_slots: AtomicBool,
}

/// A method, as C-core knows it.
pub(super) struct Registered {
    handle: *mut c_void,
    /// Whether a call is there only with its message.
    pub(super) with_message: bool,
    pub(super) prompt: bool,
}

// SAFETY: the handle is a name that C-core reads.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Registered {
    pub(super) fn new(handle: *mut c_void, with_message: bool, prompt: bool) -> Registered {
        Registered {
            handle,
            with_message,
            prompt,
        }
    }

    pub(super) fn handle(&self) -> *mut c_void {
        self.handle
    }
}

impl Core {
    pub(super) fn new(server: Server, queue: Queue, methods: Vec<Registered>) -> Core {
        Core {
            server,
            queue,
            methods,
            slots_out: AtomicUsize::new(0),
            has_more_slots: AtomicBool::new(false),
        }
    }

    pub(super) fn slot_is_out(&self) {
        // Pairs with the load in `has_slots_out`.
        self.slots_out.fetch_add(1, Ordering::SeqCst);
    }

    /// Says, once, that there are to be more slots, unless the server is at its end. One is out then, until it is done with.
    pub(super) fn are_more_slots_wanted(&self) -> bool {
        if self.has_more_slots.load(Ordering::Relaxed)
            || self.has_more_slots.swap(true, Ordering::Relaxed)
        {
            return false;
        }
        let one_more = |slots| (slots > 0).then_some(slots + 1);
        let ordering = Ordering::SeqCst;
        (self.slots_out)
            .fetch_update(ordering, ordering, one_more)
            .is_ok()
    }

    pub(super) fn slot_is_done_with(&self) {
        self.slots_out.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn has_slots_out(&self) -> bool {
        self.slots_out.load(Ordering::SeqCst) > 0
    }
}
