//! Slots: what the engine lays out for C-core to put the next calls in.

use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::slice;
use std::sync::Arc;

use grpcio_sys::{
    gpr_timespec, grpc_byte_buffer, grpc_call, grpc_call_details, grpc_call_details_destroy,
    grpc_call_error, grpc_metadata, grpc_metadata_array, grpc_metadata_array_destroy,
    grpc_metadata_array_init, grpc_server_request_call, grpc_server_request_registered_call,
};

use super::bytes::{bytes, fault_of, received};
use super::call::CoreCall;
use super::core::Core;
use super::shim::{touchdown_call_fault, touchdown_call_takes_a_stream};
use super::tag::{tag, untagged, KIND_SLOT};
use crate::calls::transport::Arrival;
use crate::calls::{Call, Fault, Ground};
use crate::text::one_line;

/// Room for one call of a method, or of any method that is not registered.
// Aligned so that a tag has four bits to spare; see `tag`.
#[repr(align(16))]
pub(super) struct Slot {
    method: Option<u32>,
    call: *mut grpc_call,
    deadline: gpr_timespec,
    details: grpc_call_details,
    metadata: grpc_metadata_array,
    payload: *mut grpc_byte_buffer,
}

/// Where C-core is to write.
struct Places {
    method: Option<u32>,
    call: *mut *mut grpc_call,
    deadline: *mut gpr_timespec,
    details: *mut grpc_call_details,
    metadata: *mut grpc_metadata_array,
    payload: *mut *mut grpc_byte_buffer,
    tag: *mut c_void,
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

    /// Gives the slot away: it is no box again before [`take_back`](Self::take_back), so that what is written through
    /// these pointers is written to nobody's box.
    #[inline]
    fn give_away(self: Box<Self>) -> Places {
        let slot: *mut Slot = Box::into_raw(self);
        // SAFETY: the slot is alive, and only its places are taken.
        unsafe {
            Places {
                method: (*slot).method,
                call: &raw mut (*slot).call,
                deadline: &raw mut (*slot).deadline,
                details: &raw mut (*slot).details,
                metadata: &raw mut (*slot).metadata,
                payload: &raw mut (*slot).payload,
                tag: tag(slot, KIND_SLOT),
            }
        }
    }

    /// The slot that was laid out with this tag.
    ///
    /// # Safety
    /// The tag is of a slot, and has come back from the queue, once.
    #[inline]
    pub(super) unsafe fn take_back(tag: *mut c_void) -> Box<Slot> {
        // SAFETY: as the caller promises.
        unsafe { Box::from_raw(untagged::<Slot>(tag)) }
    }

    /// Lays the slot out. After the server's shutdown it comes back unfilled.
    #[inline]
    pub(super) fn lay_out(self: Box<Self>, core: &Core) {
        let queue = core.queue.as_raw();
        let places = self.give_away();
        core.slot_is_out();
        // SAFETY: the slot stays where it is until its tag comes back from the queue.
        let error = unsafe {
            match places.method {
                Some(method) => {
                    let method = &core.methods[method as usize];
                    grpc_server_request_registered_call(
                        core.server.as_raw(),
                        method.handle(),
                        places.call,
                        places.deadline,
                        places.metadata,
                        if method.with_message {
                            places.payload
                        } else {
                            ptr::null_mut()
                        },
                        queue,
                        queue,
                        places.tag,
                    )
                }
                None => grpc_server_request_call(
                    core.server.as_raw(),
                    places.call,
                    places.details,
                    places.metadata,
                    queue,
                    queue,
                    places.tag,
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
    ///
    /// # Safety
    /// C-core has filled the slot, and nothing was taken out of it since.
    #[inline]
    pub(super) unsafe fn take(&mut self, core: &Arc<Core>, ground: &Arc<Ground>) -> Arrival {
        let metadata = mem::replace(&mut self.metadata, {
            // SAFETY: as in `new`.
            unsafe {
                let mut empty = mem::zeroed();
                grpc_metadata_array_init(&mut empty);
                empty
            }
        });
        let payload = mem::replace(&mut self.payload, ptr::null_mut());
        // SAFETY: C-core gives the payload away with the slot.
        let mut fault = unsafe { fault_of(payload) };
        // SAFETY: as above; given away once.
        let mut message = unsafe { received(payload) };
        let (deadline, unknown) = match self.method {
            Some(method) => {
                if !core.methods[method as usize].with_message {
                    // SAFETY: C-core has just given this call away; nothing was received of it.
                    unsafe { touchdown_call_takes_a_stream(self.call) }
                }
                (self.deadline, None)
            }
            None => {
                // SAFETY: as above.
                fault = fault_of_headers(unsafe { touchdown_call_fault(self.call) });
                let path = bytes(&self.details.method);
                // One with a fault has a byte in front, which makes it another than any method's.
                let path = &path[usize::from(fault.is_some()).min(path.len())..];
                // It goes into the log, and to the observers.
                let path = one_line(&String::from_utf8_lossy(path));
                let deadline = self.details.deadline;
                // SAFETY: filled by C-core, and zeroed afterwards.
                unsafe {
                    grpc_call_details_destroy(&mut self.details);
                    self.details = mem::zeroed();
                }
                (deadline, Some(path))
            }
        };
        if !are_values_legal(&metadata) {
            fault = Some(Fault::Metadata);
        }
        if fault.is_some() {
            message = None;
        }
        // SAFETY: C-core has just given this call away, on our queue.
        let wire = unsafe { CoreCall::new(self.call, Arc::clone(core), deadline, metadata) };
        let (method, path) = (self.method, unknown.as_deref());
        Arrival {
            call: Call::new(ground, method, path, message.as_ref(), wire),
            message,
            unknown,
            fault,
        }
    }
}

/// `touchdown_fault`.
fn fault_of_headers(number: c_int) -> Option<Fault> {
    match number {
        0 => None,
        1 => Some(Fault::Method),
        2 => Some(Fault::ContentType),
        3 => Some(Fault::Timeout),
        4 => Some(Fault::Encoding),
        _ => Some(Fault::Header),
    }
}

/// Whether no value of text has a character that HTTP does not allow. C-core looks at names only.
#[inline]
fn are_values_legal(metadata: &grpc_metadata_array) -> bool {
    let pairs: &[grpc_metadata] = match metadata.count {
        0 => &[],
        // SAFETY: C-core filled so many.
        count => unsafe { slice::from_raw_parts(metadata.metadata, count) },
    };
    let is_legal = |pair: &grpc_metadata| {
        is_value_legal(bytes(&pair.value)) || bytes(&pair.key).ends_with(b"-bin")
    };
    pairs.iter().all(is_legal)
}

/// RFC 9110, 5.5, where a tab is allowed, and bytes from 0x80 on are, whatever they mean.
#[inline]
fn is_value_legal(value: &[u8]) -> bool {
    // Most values have fewer bytes than a vector's register, so this goes by words.
    let Some(last) = value.last_chunk() else {
        return value.iter().all(|byte| is_legal(*byte));
    };
    // What is behind the last whole word is looked at with what comes before it.
    let mut words = value.chunks_exact(last.len());
    words.all(|word| word.try_into().is_ok_and(are_legal)) && are_legal(*last)
}

fn is_legal(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// The same of eight bytes.
#[inline]
fn are_legal(bytes: [u8; 8]) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    /// Whether any byte is less than `most`, which is at most 0x80: its subtraction borrows.
    fn has_less(word: u64, most: u8) -> bool {
        word.wrapping_sub(EACH * u64::from(most)) & !word & (EACH << 7) != 0
    }
    let word = u64::from_ne_bytes(bytes);
    let is_plain = !has_less(word, b' ') & !has_less(word ^ (EACH * 0x7f), 1);
    is_plain || bytes.iter().all(|byte| is_legal(*byte))
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: ours; C-core does not have the slot.
        unsafe { grpc_metadata_array_destroy(&mut self.metadata) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_http_does_not_allow_in_a_value_is_found() {
        for byte in 0..=u8::MAX {
            let legal = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
            for place in [0, 1, 40, 99] {
                let mut value = [b'x'; 100];
                value[place] = byte;
                assert_eq!(is_value_legal(&value), legal, "{byte:#04x} at {place}");
            }
        }
        assert!(is_value_legal(b""));
    }

    /// Under Miri this fails if the pointers are those of a box that was made a box again since.
    #[test]
    fn what_is_written_while_a_slot_is_given_away_is_there_when_it_is_taken_back() {
        // SAFETY: as in `new`; nothing of C-core is called, so that Miri can run it.
        let mut slot = Box::new(unsafe { mem::zeroed::<Slot>() });
        slot.method = Some(3);
        let places = slot.give_away();
        let call = ptr::without_provenance_mut(0x1230);
        // SAFETY: C-core writes like this; the slot is alive.
        unsafe {
            places.call.write(call);
            (*places.deadline).tv_sec = 7;
            (*places.metadata).count = 2;
            places.payload.write(ptr::without_provenance_mut(0x4560));
            (*places.details).deadline.tv_nsec = 5;
        }
        // SAFETY: given away above, and taken back once.
        let slot = unsafe { Slot::take_back(places.tag) };
        let seen = (
            slot.method,
            slot.call,
            slot.deadline.tv_sec,
            slot.payload.addr(),
        );
        assert_eq!(seen, (Some(3), call, 7, 0x4560));
        assert_eq!(slot.metadata.count, 2);
        // C-core would free what stands in it.
        let slot = Box::into_raw(slot).cast::<mem::MaybeUninit<Slot>>();
        // SAFETY: what was a box a moment ago, of the same size.
        drop(unsafe { Box::from_raw(slot) });
    }
}
