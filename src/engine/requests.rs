//! Slots: what the engine lays out for C-core to put the next calls in.

use std::mem;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use grpcio_sys::{
    gpr_timespec, grpc_byte_buffer, grpc_call, grpc_call_details, grpc_call_details_destroy,
    grpc_call_error, grpc_metadata_array, grpc_metadata_array_destroy, grpc_metadata_array_init,
    grpc_server_request_call, grpc_server_request_registered_call,
};

use super::bytes::{bytes, Message};
use super::call::Call;
use super::observer::Record;
use super::queue::slot_tag;
use super::Shared;

/// Room for one call of a method, or of any method that is not registered.
// Aligned so that a tag has four bits to spare; see `queue`.
#[repr(align(16))]
pub(super) struct Slot {
    method: Option<u32>,
    call: *mut grpc_call,
    deadline: gpr_timespec,
    details: grpc_call_details,
    metadata: grpc_metadata_array,
    payload: *mut grpc_byte_buffer,
}

// SAFETY: a slot belongs to one thread, or to C-core, at a time.
unsafe impl Send for Slot {}

/// A call that has arrived.
pub(super) struct Arrival {
    pub(super) call: Arc<Call>,
    pub(super) message: Option<Message>,
    /// The path, if the method is not registered.
    pub(super) unknown: Option<String>,
}

impl Slot {
    pub(super) fn new(method: Option<u32>) -> Box<Slot> {
        // SAFETY: C structs for which all zeros is a valid start.
        let mut slot = Box::new(unsafe { mem::zeroed::<Slot>() });
        slot.method = method;
        // SAFETY: the array is ours.
        unsafe { grpc_metadata_array_init(&mut slot.metadata) };
        slot
    }

    /// Lays the slot out. After the server's shutdown it comes back unfilled.
    pub(super) fn lay_out(self: Box<Self>, shared: &Shared) {
        let queue = shared.queue.as_raw();
        let slot: &mut Slot = Box::leak(self);
        let (call, deadline, details, metadata, payload) = (
            &raw mut slot.call,
            &raw mut slot.deadline,
            &raw mut slot.details,
            &raw mut slot.metadata,
            &raw mut slot.payload,
        );
        let method = slot.method;
        // SAFETY: leaked above, and taken back here at once.
        let slot = unsafe { Box::from_raw(slot) };
        let tag = slot_tag(slot);
        // Pairs with the load in `poll::shut_queue_down_if_idle`.
        shared.slots_out.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the slot stays where it is until its tag comes back from the queue.
        let error = unsafe {
            match method {
                Some(method) => {
                    let method = &shared.methods[method as usize];
                    grpc_server_request_registered_call(
                        shared.server.as_raw(),
                        method.handle(),
                        call,
                        deadline,
                        metadata,
                        if method.streaming_request {
                            ptr::null_mut()
                        } else {
                            payload
                        },
                        queue,
                        queue,
                        tag,
                    )
                }
                None => grpc_server_request_call(
                    shared.server.as_raw(),
                    call,
                    details,
                    metadata,
                    queue,
                    queue,
                    tag,
                ),
            }
        };
        assert_eq!(
            error,
            grpc_call_error::GRPC_CALL_OK,
            "C-core refuses a request for calls only when its arguments are wrong"
        );
    }

    /// Takes the call out of a filled slot.
    pub(super) fn take(&mut self, shared: &Arc<Shared>) -> Arrival {
        let metadata = mem::replace(&mut self.metadata, {
            // SAFETY: as in `new`.
            unsafe {
                let mut empty = mem::zeroed();
                grpc_metadata_array_init(&mut empty);
                empty
            }
        });
        // SAFETY: C-core has filled the slot, and gives the payload away with it.
        let message =
            unsafe { Message::from_raw(mem::replace(&mut self.payload, ptr::null_mut())) };
        let (streaming, deadline, unknown) = match self.method {
            Some(method) => (
                shared.methods[method as usize].is_streaming(),
                self.deadline,
                None,
            ),
            None => {
                let path = String::from_utf8_lossy(bytes(&self.details.method)).into_owned();
                let deadline = self.details.deadline;
                // SAFETY: filled by C-core, and zeroed afterwards.
                unsafe {
                    grpc_call_details_destroy(&mut self.details);
                    self.details = mem::zeroed();
                }
                (false, deadline, Some(path))
            }
        };
        let record = shared.observer.is_some().then(|| {
            let record = Record::begin(unknown.as_deref());
            if let Some(message) = &message {
                record.received(message.len());
            }
            record
        });
        // SAFETY: C-core has just given this call away, on our queue.
        let call = unsafe {
            Call::new(
                self.call,
                Arc::clone(shared),
                self.method,
                streaming,
                deadline,
                metadata,
                record,
            )
        };
        Arrival {
            call,
            message,
            unknown,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: ours; C-core does not have the slot.
        unsafe { grpc_metadata_array_destroy(&mut self.metadata) }
    }
}
